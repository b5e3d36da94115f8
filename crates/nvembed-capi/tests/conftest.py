"""What the tests of the C interface share: the installed tree, compilers, models. `make test-c-api` sets it all up."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PREFIX = ROOT / "build/capi/prefix"
WARNINGS = ["-Wall", "-Wextra", "-pedantic", "-Werror", "-g"]
# What no program may need: long enough for two busy cores, short enough to end a hang.
LIMIT_SECONDS = 500


def tool(name: str) -> str:
    """The path of a tool; without it the test is skipped, or fails where all must be there (NVEMBED_REQUIRE_TOOLS)."""
    path = shutil.which(name)
    if path is None:
        if os.environ.get("NVEMBED_REQUIRE_TOOLS"):
            pytest.fail(f"{name} is not installed, and NVEMBED_REQUIRE_TOOLS is set")
        pytest.skip(f"SKIPPED: {name} is not installed")
    return path


def run(command: list, ok: bool = True, **options) -> subprocess.CompletedProcess:
    """Runs a program; what it wrote is bytes."""
    command = [str(part) for part in command]
    done = subprocess.run(command, capture_output=True, **{"timeout": LIMIT_SECONDS} | options)
    output = done.stdout[-4000:] + done.stderr[-4000:]
    assert not ok or done.returncode == 0, f"{command} returned {done.returncode}: {output.decode(errors='replace')}"
    return done


@pytest.fixture(scope="session")
def prefix() -> Path:
    assert (PREFIX / "lib/libnvembed.so.0").is_file(), f"{PREFIX} is made by `make test-c-api`"
    return PREFIX


@pytest.fixture(scope="session")
def model() -> Path:
    return ROOT / "build/models/nv-embed-mini-fp32"


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The caller's environment, with the ONNX Runtime of the virtual environment named and our libraries not."""
    import onnxruntime

    kept = {name: value for name, value in os.environ.items() if name not in ("LD_LIBRARY_PATH", "ORT_LOG")}
    return kept | {"ORT_DYLIB_PATH": str(Path(onnxruntime.__file__).parent / "capi")}


@pytest.fixture(scope="session")
def compiled(prefix, tmp_path_factory):
    """Compiles a test program against the installed tree, once for each set of flags."""
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
