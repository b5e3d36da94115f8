"""The rooms of the library and who imports whom: no import goes upward, and none goes in a circle.

    python3 tests/lint/imports.py            # checks, exits with 1 on a violation
    python3 tests/lint/imports.py --list     # prints every import between rooms

A room is a folder of src/, or a file beside the folders. FLOORS lists the rooms from the ground up: a room imports only
rooms of lower floors. Within a folder, modules must not import each other in a circle. A name that a folder or the
crate re-exports counts as an import of the module that defines it. Test modules are left out. The check first proves
that it can fail, on a small tree of its own.
"""

import re
import sys
import tempfile
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
    ["self_check", "stream"],
    ["embedder"],
    ["prepare", "steps", "queue"],
    ["lib"],
]

USE = re.compile(r"\b(crate(?:::\w+)+)")
GROUP = re.compile(r"\b((?:crate|super)(?:::\w+)*)::\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}", re.S)
SUPER = re.compile(r"\b(super(?:::super)*(?:::\w+)+)")
REEXPORT = re.compile(r"^pub(?:\([^)]*\))? use ([\w:]+?)(?:::\{([^}]*)\})?;", re.M)
TESTS = re.compile(r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub\(crate\) )?mod \w+(?:;| \{.*?^\}$)", re.S | re.M)


Module = tuple[str, ...]


def module_of(path: Path, src: Path) -> Module:
    """src/execution/gpu/mod.rs is ("execution", "gpu"), src/error.rs is ("error",)."""
    parts = list(path.relative_to(src).with_suffix("").parts)
    return tuple(parts[:-1] if parts[-1] == "mod" else parts)


def code_of(path: Path) -> str:
    """The source without comments and without its test modules."""
    return TESTS.sub("", re.sub(r"//[^\n]*", "", path.read_text()))


def reexports(path: Path, here: Module) -> dict[tuple[Module, str], Module]:
    """The names that a folder's own file takes from its modules, or the crate from its rooms: where each is from."""
    base = () if here == ("lib",) else here
    found = {}
    for match in REEXPORT.finditer(code_of(path)):
        parts = match[1].split("::")
        if parts[0] in ("crate", "super", "std"):
            continue
        names = match[2].split(",") if match[2] else [parts.pop()]
        for name in filter(None, (name.strip() for name in names)):
            found[base, name.split(" as ")[-1]] = base + tuple(parts)
    return found


def defined_in(target: Module, modules: set[Module], names: dict[tuple[Module, str], Module]) -> Module:
    """The module that defines what a path names; () when it is the crate's own."""
    module = target
    while module and module not in modules:
        module = module[:-1]
    rest = target[len(module) :]
    if rest and (module, rest[0]) in names:
        return defined_in((*names[module, rest[0]], *rest), modules, names)
    return module


def imports(path: Path, src: Path, modules: set[Module], known: dict[tuple[Module, str], Module]) -> set[Module]:
    """The modules that a file names in paths from `crate` or `super`; the crate itself is ("lib",)."""
    text, here = code_of(path), module_of(path, src)
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
        module = defined_in(target, modules, known) or ("lib",)
        if module != here:
            found.add(module)
    return found


def room(module: Module) -> str:
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


def check(src: Path, floors: list[list[str]]) -> tuple[list[str], dict[str, set[str]], int]:
    """The violations, the rooms that each room imports, and the number of imports between rooms."""
    files = sorted(path for path in src.rglob("*.rs") if path.name != "tests.rs")
    modules = {module_of(path, src) for path in files}
    known: dict[tuple[Module, str], Module] = {}
    for path in files:
        if path.name in ("mod.rs", "lib.rs"):
            known |= reexports(path, module_of(path, src))
    floor = {name: level for level, names in enumerate(floors) for name in names}
    unknown = {room(module) for module in modules} - floor.keys()
    problems = [f"src/{name} has no floor in {Path(__file__).name}" for name in sorted(unknown)]
    between, within, pairs = defaultdict(set), defaultdict(lambda: defaultdict(set)), 0
    for path in files:
        here = module_of(path, src)
        for target in imports(path, src, modules, known):
            one, other = room(here), room(target)
            if one == other:
                # A folder's own file collects what its modules offer; it is not part of a circle with them.
                if here != target[: len(here)] and target != here[: len(target)]:
                    within[one]["::".join(here)].add("::".join(target))
                continue
            between[one].add(other)
            pairs += 1
            if one not in unknown and other not in unknown and floor[other] >= floor[one]:
                problems.append(f"{path.relative_to(src.parent)} imports {'::'.join(target)}: not below it")
    for name, graph in within.items():
        if found := circle(graph):
            problems.append(f"a circle in src/{name}: {' -> '.join(found)}")
    return problems, between, pairs


def planted() -> list[str]:
    """What the check says of a tree with one violation of each kind."""
    files = {
        "lib.rs": "mod low;\nmod high;\npub use high::High;\n",
        "low/mod.rs": "mod a;\nmod b;\npub use a::A;\npub(crate) use b::B;\n",
        "low/a.rs": "use super::B;\n#[cfg(test)]\nmod tests {\n    use crate::high::High;\n}\npub struct A;\n",
        "low/b.rs": "use super::A;\nuse crate::High;\n",
        "high.rs": "use crate::low::{A, B};\n",
    }
    with tempfile.TemporaryDirectory() as folder:
        src = Path(folder) / "src"
        for name, text in files.items():
            (src / name).parent.mkdir(parents=True, exist_ok=True)
            (src / name).write_text(text)
        return check(src, [["low"], ["high"], ["lib"]])[0]


def main() -> int:
    wanted = ["src/low/b.rs imports high: not below it", "a circle in src/low: low::a -> low::b -> low::a"]
    if (found := planted()) != wanted:
        print(f"the check itself is broken: of a planted tree it says {found}")
        return 1
    problems, between, pairs = check(SRC, FLOORS)
    if "--list" in sys.argv:
        for one in sorted(between):
            print(f"{one}: {', '.join(sorted(between[one]))}")
    rooms = sum(map(len, FLOORS))
    print("\n".join(problems) or f"{rooms} rooms, {pairs} imports between them: none upward, no circle")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
