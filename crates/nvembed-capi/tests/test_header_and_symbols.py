"""The headers compile in every supported language version. The libraries export exactly what the header declares."""

from __future__ import annotations

import re

import pytest
from conftest import HERE, WARNINGS, run, tool


@pytest.mark.parametrize(
    ("compiler", "standard", "extra"),
    [
        ("cc", "c99", []),
        ("cc", "c11", []),
        ("c++", "c++17", []),
        ("c++", "c++20", []),
        ("c++", "c++17", ["-fno-exceptions", "-fno-rtti"]),
    ],
)
def test_each_header_compiles_alone_without_a_warning(compiler, standard, extra, prefix, tmp_path):
    is_cpp = compiler == "c++"
    for header in ["nvembed.h", "nvembed.hpp"] if is_cpp else ["nvembed.h"]:
        source = tmp_path / ("one.cpp" if is_cpp else "one.c")
        source.write_text(f"#include <{header}>\n#include <{header}>\nint main(void) {{ return 0; }}\n")
        warnings = [*WARNINGS, "-Wshadow", "-Wconversion", *extra]
        run(
            [
                tool(compiler),
                f"-std={standard}",
                *warnings,
                f"-I{prefix}/include",
                "-c",
                source,
                "-o",
                tmp_path / "one.o",
            ]
        )


def test_structs_have_the_layout_that_they_always_had(prefix, tmp_path):
    """The same lines of abi.txt that header.rs checks in Rust."""
    lines = (HERE / "abi.txt").read_text().splitlines()
    layout = [line for line in lines if line.startswith(("sizeof", "offsetof"))]
    assert len(layout) >= 15
    source = tmp_path / "layout.c"
    checks = "".join(f'_Static_assert({line}, "{line}");\n' for line in layout)
    source.write_text(f"#include <nvembed.h>\n{checks}")
    run([tool("cc"), "-std=c11", *WARNINGS, f"-I{prefix}/include", "-c", source, "-o", tmp_path / "layout.o"])


def declared(prefix) -> set[str]:
    text = re.sub(r"//.*", "", (prefix / "include/nvembed.h").read_text())
    return set(re.findall(r"\b(nvembed_\w+)\(", text))


def symbols(*arguments) -> set[str]:
    lines = run([tool("nm"), "--defined-only", *arguments]).stdout.decode().splitlines()
    return {line.split()[2] for line in lines if len(line.split()) == 3}


def test_the_shared_library_exports_the_header_and_nothing_else(prefix):
    found = declared(prefix)
    assert len(found) >= 31
    assert symbols("--dynamic", prefix / "lib/libnvembed.so") == found


def test_the_static_library_exports_the_header_and_nothing_else(prefix):
    assert symbols("--extern-only", prefix / "lib/libnvembed.a") == declared(prefix)


def test_the_shared_library_has_a_versioned_name_and_needs_only_the_system(prefix):
    text = run([tool("readelf"), "--dynamic", prefix / "lib/libnvembed.so"]).stdout.decode()
    assert re.findall(r"SONAME.*\[(.*)\]", text) == ["libnvembed.so.0"]
    assert not re.search(r"R(UN)?PATH", text), "the tree can be moved"
    system = re.compile(r"(ld-linux.*|lib(c|m|dl|rt|pthread|gcc_s))\.so")
    assert all(system.match(name) for name in re.findall(r"NEEDED.*\[(.*)\]", text)), text
