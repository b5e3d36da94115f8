"""GPU use through C and C++ on stand-ins for CUDA (tests/gpu/shim): nothing is computed, nothing runs on a GPU."""

from __future__ import annotations

import pytest
from conftest import ROOT, run
from test_programs import ADDRESS, seconds_and_seed

SHIM = ROOT / "build/cuda-shim"
MODELS = ROOT / "build/models"


@pytest.fixture(scope="session")
def on_shim(environment) -> dict[str, str]:
    """The environment of a process that uses the shim as CUDA, with two devices."""
    libraries = sorted((ROOT / ".venv-gpu").glob("lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.*"))
    if not libraries or not (SHIM / "libcudnn.so.9").is_file():
        pytest.skip("SKIPPED: the CUDA shim is missing (`make cuda-shim`, on x86-64 Linux)")
    fresh = {"CUDA_SHIM_FRESH": "60", "CUDA_SHIM_DEVICES": "2"}
    return environment | fresh | {"ORT_DYLIB_PATH": str(libraries[0]), "LD_LIBRARY_PATH": str(SHIM)}


@pytest.mark.parametrize("flags", [["-O2"], ADDRESS], ids=["plain", "address and undefined"])
def test_rows_are_held_and_released(flags, compiled, on_shim):
    run([compiled("device", *flags), MODELS / "nv-embed-mini-fp16", MODELS / "nv-embed-mini-fp32"], env=on_shim)


@pytest.mark.parametrize("flags", [["-O2"], ADDRESS], ids=["plain", "address and undefined"])
def test_owners_release_what_they_held(flags, compiled, on_shim):
    run([compiled("device_owner", *flags), MODELS / "nv-embed-mini-fp16"], env=on_shim)


def test_random_calls_return_codes_and_do_not_crash_on_the_device(compiled, on_shim):
    seconds, seed = seconds_and_seed()
    command = [compiled("fuzz", *ADDRESS), MODELS / "nv-embed-mini-fp16", seconds, seed, "cuda"]
    # Models are still open at the end and their threads are running, which sometimes crashes LeakSanitizer itself. The
    # other tests check that nothing leaks.
    done = run(command, env=on_shim | {"ASAN_OPTIONS": "detect_leaks=0"}, timeout=int(seconds) + 120)
    print(done.stdout.decode())
