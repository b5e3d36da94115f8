"""tests/cuda-shim does what its README says, as far as the other tests rely on it."""

from __future__ import annotations

import ctypes
import math
import struct

import pytest
from cuda_probe import Shim

TO_DEVICE, TO_HOST = 1, 2


@pytest.fixture
def cudart(shim):
    return ctypes.CDLL(str(shim / "libcudart.so.13"))


@pytest.fixture
def counts(cudart):
    reader = Shim.__new__(Shim)
    reader.library = cudart
    return reader.counts


@pytest.fixture
def device_memory(cudart):
    pointer = ctypes.c_void_p()
    assert cudart.cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(1000)) == 0
    yield pointer
    assert cudart.cudaFree(pointer) == 0


def test_copies_keep_the_bytes_and_are_counted(cudart, counts, device_memory):
    before = counts()
    sent, received = ctypes.create_string_buffer(b"1234", 4), ctypes.create_string_buffer(4)
    cudart.cudaMemcpy(device_memory, sent, ctypes.c_size_t(4), TO_DEVICE)
    cudart.cudaMemcpyAsync(received, device_memory, ctypes.c_size_t(4), TO_HOST, None)
    assert received.raw == b"1234"
    after = counts()
    assert {name: after[name] - before[name] for name in after} == {
        "to_device": 1,
        "to_host": 1,
        "on_device": 0,
        "launches": 0,
        "live_allocations": 0,
    }


def test_memory_never_written_reads_as_nan(cudart, device_memory):
    received = ctypes.create_string_buffer(1000)
    cudart.cudaMemcpy(received, device_memory, ctypes.c_size_t(1000), TO_HOST)
    assert all(math.isnan(value) for (value,) in struct.iter_unpack("<e", received.raw))


def test_live_allocations_are_those_not_freed(cudart, counts):
    before, pointer = counts()["live_allocations"], ctypes.c_void_p()
    cudart.cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(1))
    assert counts()["live_allocations"] == before + 1
    cudart.cudaFree(pointer)
    assert counts()["live_allocations"] == before


def test_there_is_one_device(cudart):
    number = ctypes.c_int()
    assert cudart.cudaGetDeviceCount(ctypes.byref(number)) == 0
    assert number.value == 1
    assert cudart.cudaSetDevice(1) != 0
