"""The rooms of the library and who imports whom: no import goes upward, and none goes in a circle.

    python3 tests/lint/imports.py            # checks, exits with 1 on a violation
    python3 tests/lint/imports.py --list     # prints every import between rooms

A room is a folder of src/, or a file beside the folders. FLOORS lists the rooms from the ground up: a room imports only
rooms of lower floors. Within a folder, modules must not import each other in a circle. Test modules are left out.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

SRC = Path(__file__).resolve().parents[2] / "src"

# From the ground up; docs/architecture.md says what each room is for.
FLOORS = [
    ["error", "hash"],
    ["machine", "prompt", "embeddings"],
    ["model"],
    ["provider"],
    ["options"],
    ["tokenize"],
    ["batch"],
    ["onnxruntime"],
    ["execution"],
    ["cache"],
    ["pipeline"],
    ["stream"],
    ["embedder"],
    ["prepare", "steps"],
    ["lib"],
]

USE = re.compile(r"\b(crate(?:::\w+)+)")
GROUP = re.compile(r"\b((?:crate|super)(?:::\w+)*)::\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}", re.S)
SUPER = re.compile(r"\b(super(?:::super)*(?:::\w+)+)")


def module_of(path: Path) -> tuple[str, ...]:
    """src/execution/gpu/mod.rs is ("execution", "gpu"), src/error.rs is ("error",)."""
    parts = list(path.relative_to(SRC).with_suffix("").parts)
    return tuple(parts[:-1] if parts[-1] == "mod" else parts)


def code_of(path: Path) -> str:
    """The source without comments and without its test module."""
    text = re.sub(r"//[^\n]*", "", path.read_text())
    return re.split(r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub\(crate\) )?mod ", text)[0]


def imports(path: Path, modules: set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """The modules that a file names in paths from `crate` or `super`."""
    text, here = code_of(path), module_of(path)
    is_folder = path.name == "mod.rs"
    names = [match[1] for match in USE.finditer(text)] + [match[1] for match in SUPER.finditer(text)]
    for match in GROUP.finditer(text):
        names += [f"{match[1]}::{part.strip()}" for part in re.split(r",(?![^{]*\})", match[2]) if part.strip()]
    found = set()
    for name in names:
        parts = [part for part in re.split(r"::", name.split(" as ")[0].split("{")[0]) if part]
        if parts[0] == "crate":
            base = ()
        else:
            ups = sum(1 for part in parts if part == "super")
            base = here if is_folder else here[:-1]
            base = base[: len(base) - (ups if is_folder else ups - 1)]
        target = base + tuple(part for part in parts if part not in ("crate", "super"))
        while target and target not in modules:
            target = target[:-1]
        if target and target != here:
            found.add(target)
    return found


def room(module: tuple[str, ...]) -> str:
    return module[0]


def circle(graph: dict[str, set[str]]) -> list[str] | None:
    """A circle of the graph, if it has one."""
    state: dict[str, int] = {}

    def visit(node: str, path: list[str]) -> list[str] | None:
        state[node] = 1
        for other in sorted(graph.get(node, ())):
            if state.get(other) == 1:
                return [*path[path.index(other) :], other] if other in path else [node, other]
            if other not in state and (found := visit(other, [*path, other])):
                return found
        state[node] = 2
        return None

    for node in sorted(graph):
        if node not in state and (found := visit(node, [node])):
            return found
    return None


def main() -> int:
    files = sorted(path for path in SRC.rglob("*.rs") if path.name != "tests.rs")
    modules = {module_of(path) for path in files}
    floor = {name: level for level, names in enumerate(FLOORS) for name in names}
    unknown = {room(module) for module in modules} - floor.keys()
    problems = [f"src/{name} has no floor in {Path(__file__).name}" for name in sorted(unknown)]
    between, within, pairs = defaultdict(set), defaultdict(lambda: defaultdict(set)), 0
    for path in files:
        here = module_of(path)
        for target in imports(path, modules):
            one, other = room(here), room(target)
            if one == other:
                # A folder's own file collects what its modules offer; it is not part of a circle with them.
                if here != target[: len(here)] and target != here[: len(target)]:
                    within[one]["::".join(here)].add("::".join(target))
                continue
            between[one].add(other)
            pairs += 1
            if one not in unknown and other not in unknown and floor[other] >= floor[one]:
                problems.append(f"{path.relative_to(SRC.parent)} imports {'::'.join(target)}: not below it")
    if "--list" in sys.argv:
        for one in sorted(between, key=lambda name: floor.get(name, -1)):
            print(f"{one}: {', '.join(sorted(between[one]))}")
    for name, graph in within.items():
        if found := circle(graph):
            problems.append(f"a circle in src/{name}: {' -> '.join(found)}")
    print("\n".join(problems) or f"{len(floor)} rooms, {pairs} imports between them: none upward, no circle")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
