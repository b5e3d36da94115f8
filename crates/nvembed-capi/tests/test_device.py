"""GPU use through C and C++ on stand-ins for CUDA (tests/cuda-shim): nothing is computed, nothing runs on a GPU."""

from __future__ import annotations

import pytest
from conftest import ROOT, run
from test_programs import ADDRESS, noise

SHIM = ROOT / "build/cuda-shim"
MODELS = ROOT / "build/models"


@pytest.fixture(scope="session")
def on_shim(environment) -> dict[str, str]:
    """The environment of a process whose CUDA is the shim, with two devices."""
    libraries = sorted((ROOT / ".venv-gpu").glob("lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.*"))
    if not libraries or not (SHIM / "libcudnn.so.9").is_file():
        pytest.skip("SKIPPED: there is no CUDA shim (`make cuda-shim`, on x86-64 Linux)")
    fresh = {"CUDA_SHIM_FRESH": "60", "CUDA_SHIM_DEVICES": "2"}
    return environment | fresh | {"ORT_DYLIB_PATH": str(libraries[0]), "LD_LIBRARY_PATH": str(SHIM)}


@pytest.mark.parametrize("flags", [["-O2"], ADDRESS], ids=["plain", "address and undefined"])
def test_rows_are_held_and_given_back(flags, compiled, on_shim):
    run([compiled("device", *flags), MODELS / "nv-embed-mini-fp16", MODELS / "nv-embed-mini-fp32"], env=on_shim)


@pytest.mark.parametrize("flags", [["-O2"], ADDRESS], ids=["plain", "address and undefined"])
def test_owners_give_back_what_they_held(flags, compiled, on_shim):
    run([compiled("device_owner", *flags), MODELS / "nv-embed-mini-fp16"], env=on_shim)


def test_noise_gives_codes_and_no_crash_on_the_device(compiled, on_shim):
    seconds, seed = noise()
    command = [compiled("fuzz", *ADDRESS), MODELS / "nv-embed-mini-fp16", seconds, seed, "cuda"]
    # Models are still open at the end, and their threads alive, among which LeakSanitizer itself crashes now and then.
    # That nothing is left of what is closed is the other tests' matter.
    done = run(command, env=on_shim | {"ASAN_OPTIONS": "detect_leaks=0"}, timeout=int(seconds) + 120)
    print(done.stdout.decode())
