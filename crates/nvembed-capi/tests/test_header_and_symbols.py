"""The headers compile everywhere they must, and the libraries export what the header declares and nothing else."""

from __future__ import annotations

import re

import pytest
from conftest import WARNINGS, run, tool


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
