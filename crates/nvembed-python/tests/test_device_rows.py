"""Rows on a GPU, as far as the CUDA shim can show: nothing is computed there, and device memory is host memory."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT
from nvembed import OptionError

SHIM = ROOT / "build/cuda-shim"
LIBRARIES = sorted(ROOT.glob(".venv-gpu/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so*"))
HAS_SHIM = (SHIM / "libcudnn.so.9").is_file() and LIBRARIES

PROGRAM = """
import ctypes, gc, sys
import nvembed

class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device", ctypes.c_int32 * 2), ("ndim", ctypes.c_int32),
                ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
                ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
                ("offset", ctypes.c_uint64)]

class Versioned(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32 * 2), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p),
                ("flags", ctypes.c_uint64), ("tensor", Tensor)]

api = ctypes.pythonapi
api.PyCapsule_GetPointer.restype = ctypes.c_void_p
api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]

def tensor(capsule, name, kind):
    found = kind.from_address(api.PyCapsule_GetPointer(capsule, name))
    return found.tensor if kind is Versioned else found

class Counts(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in "in_ out on launches live allocations handles x y z w".split()]

def live():
    counts = Counts()
    ctypes.CDLL("libcuda.so.1").cuda_shim_counts(ctypes.byref(counts))
    return counts.live

model = nvembed.Embedder(sys.argv[1], provider="cuda", self_check=False)
before = live()
model.encode_on_device(["x", "y"])
first = live()
rows = model.encode_on_device(["x", "y"], task="find it")
assert live() == first + 1, "memory of its own"
dim = model.get_embedding_dimension()
assert rows.shape == (2, dim) and rows.dtype == "float16" and rows.device_id == 0, rows
assert len(rows.tokens) == 2 and rows.tokens[0] > 6 and rows.truncated == [False, False]
assert rows.__dlpack_device__() == (2, 0)
for stream in (None, -1, 1, 2, 1 << 40):
    old = tensor(legacy := rows.__dlpack__(stream=stream), b"dltensor", Tensor)
new = tensor(capsule := rows.__dlpack__(max_version=(1, 3)), b"dltensor_versioned", Versioned)
assert new.data == old.data and list(new.device) == [2, 0] and new.offset == 0
assert (new.ndim, new.shape[0], new.shape[1], new.strides[0], new.strides[1]) == (2, 2, dim, dim, 1)
assert (new.code, new.bits, new.lanes) == (2, 16, 1), "float16"
del rows
gc.collect()
assert live() == first + 1, "the tensor keeps the memory"
assert set(ctypes.string_at(new.data, 2 * dim * 2)) == {60}, "what the shim calls a result"
del capsule, legacy
gc.collect()
assert live() == first, "and frees it"
rows = model.encode_on_device("one text")
for arguments in ({"copy": True}, {"dl_device": (1, 0)}, {"stream": 0}, {"stream": "x"}):
    try:
        rows.__dlpack__(**arguments)
    except (BufferError, ValueError):
        continue
    raise AssertionError(arguments)
"""


@pytest.mark.skipif(not HAS_SHIM, reason="make cuda-shim, on x86-64 Linux")
def test_rows_on_a_gpu_are_described_owned_and_freed():
    environment = os.environ | {
        "LD_LIBRARY_PATH": str(SHIM),
        "ORT_DYLIB_PATH": str(LIBRARIES[-1]),
        "CUDA_SHIM_FRESH": "60",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    model = ROOT / "build/models/nv-embed-mini-fp16"
    ended = subprocess.run([sys.executable, "-c", PROGRAM, model], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_rows_stay_on_a_gpu_only_where_there_is_one(model):
    with pytest.raises(OptionError, match="provider"):
        model.encode_on_device(["a text"])


def test_the_shim_is_tested_where_ci_builds_it():
    if os.environ.get("NVEMBED_REQUIRE_TOOLS") and (sys.platform, os.uname().machine) == ("linux", "x86_64"):
        assert HAS_SHIM
