"""Write signatures.json: the arguments of SentenceTransformer's methods, read from its wheel without importing it.

pip download --no-deps sentence-transformers==6.2.0 && python signatures.py sentence_transformers-*.whl
"""

import ast
import json
import sys
import zipfile
from pathlib import Path

METHODS = ("encode", "encode_query", "encode_document")


def arguments(function: ast.FunctionDef) -> dict[str, str | None]:
    """Each argument with the text of its default; None without one."""
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    defaults = [None] * (len(names) - len(function.args.defaults)) + [ast.unparse(d) for d in function.args.defaults]
    found = dict(zip(names, defaults, strict=True))
    for argument, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        found[argument.arg] = ast.unparse(default) if default else None
    return found


def main(wheel: str) -> None:
    found: dict = {"wheel": Path(wheel).name}
    with zipfile.ZipFile(wheel) as files:
        for name in files.namelist():
            if not name.endswith(".py") or "/test" in name:
                continue
            for node in ast.walk(ast.parse(files.read(name))):
                if isinstance(node, ast.ClassDef) and node.name == "SentenceTransformer":
                    for item in node.body:
                        is_overload = isinstance(item, ast.FunctionDef) and any(
                            "overload" in ast.unparse(d) for d in item.decorator_list
                        )
                        if isinstance(item, ast.FunctionDef) and item.name in METHODS and not is_overload:
                            found[item.name] = arguments(item)
    (Path(__file__).parent / "signatures.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
