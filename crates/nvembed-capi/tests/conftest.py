"""Fixtures for the tests of the C interface: the installed tree, compilers, models. `make test-c-api` sets them up."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CRATE = HERE.parent
ROOT = CRATE.parents[1]
PREFIX = ROOT / "build/capi/prefix"
WARNINGS = ["-Wall", "-Wextra", "-pedantic", "-Werror", "-g"]
# The most time that a program may take: long enough for two busy cores, short enough to end a hang.
LIMIT_SECONDS = 500


def tool(name: str) -> str:
    """The path of a tool. Without it the test is skipped, or fails if NVEMBED_REQUIRE_TOOLS is set."""
    path = shutil.which(name)
    if path is None:
        if os.environ.get("NVEMBED_REQUIRE_TOOLS"):
            pytest.fail(f"{name} is not installed, and NVEMBED_REQUIRE_TOOLS is set")
        pytest.skip(f"SKIPPED: {name} is not installed")
    return path


def run(command: list, ok: bool = True, **options) -> subprocess.CompletedProcess:
    """Runs a program; its output is bytes."""
    command = [str(part) for part in command]
    done = subprocess.run(command, capture_output=True, **{"timeout": LIMIT_SECONDS} | options)
    output = done.stdout[-4000:] + done.stderr[-4000:]
    assert not ok or done.returncode == 0, f"{command} returned {done.returncode}: {output.decode(errors='replace')}"
    return done


@pytest.fixture(scope="session")
def prefix() -> Path:
    assert (PREFIX / "lib/libnvembed.so.0").is_file(), f"{PREFIX} is missing: run `make test-c-api`"
    return PREFIX


@pytest.fixture(scope="session")
def program() -> Path:
    """The command line program, which uses the Rust library."""
    command = [tool("cargo"), "metadata", "--format-version", "1", "--no-deps"]
    found = Path(json.loads(run(command, cwd=ROOT).stdout)["target_directory"]) / "debug/nvembed"
    assert found.is_file(), f"{found} is missing: run `make test-c-api`"
    return found


@pytest.fixture(scope="session")
def model() -> Path:
    return ROOT / "build/models/nv-embed-mini-fp32"


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The caller's environment, with the ONNX Runtime of the virtual environment and no path to our libraries."""
    import onnxruntime

    kept = {name: value for name, value in os.environ.items() if name not in ("LD_LIBRARY_PATH", "ORT_LOG")}
    return kept | {"ORT_DYLIB_PATH": str(Path(onnxruntime.__file__).parent / "capi")}


@pytest.fixture(scope="session")
def compiled(prefix, tmp_path_factory):
    """Compiles a test program against the installed tree, once per set of flags."""
    made: dict[tuple[str, ...], Path] = {}

    def compile(name: str, *flags: str) -> Path:
        key = (name, *flags)
        if key not in made:
            program = tmp_path_factory.mktemp("program") / name
            source = HERE / f"{name}.c"
            compiler = ["cc", "-std=gnu99"]
            if not source.exists():
                source, compiler = HERE / f"{name}.cpp", ["c++", "-std=c++17"]
            run(
                [
                    tool(compiler[0]),
                    compiler[1],
                    *WARNINGS,
                    *flags,
                    "-pthread",
                    f"-I{prefix}/include",
                    source,
                    "-o",
                    program,
                    f"-L{prefix}/lib",
                    "-lnvembed",
                    f"-Wl,-rpath,{prefix}/lib",
                    "-lm",
                    "-ldl",
                ]
            )
            made[key] = program
        return made[key]

    return compile
