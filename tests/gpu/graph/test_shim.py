"""tests/gpu/shim does what its README says, where other tests rely on it."""

from __future__ import annotations

import ctypes
import math
import struct
import subprocess
import sys
import threading

import pytest
from cuda_probe import Shim

TO_DEVICE, TO_HOST = 1, 2
OUT_OF_MEMORY, CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED, ILLEGAL_ADDRESS = 2, 900, 901, 700
GLOBAL, THREAD_LOCAL = 0, 1  # cudaStreamCaptureMode
FAIL_ALLOCATION, FAIL_COPY = 0, 1


@pytest.fixture
def cudart(shim):
    ctypes.CDLL(str(shim / "libcuda.so.1"))  # libcudart needs it, and LD_LIBRARY_PATH is not set here
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
    assert {name: after[name] - before[name] for name in after if after[name] != before[name]} == {
        "to_device": 1,
        "to_host": 1,
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


def test_driver_and_runtime_share_their_state(cudart, counts, shim):
    driver = ctypes.CDLL(str(shim / "libcuda.so.1"))
    before, pointer = counts(), ctypes.c_void_p()
    assert driver.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(8)) == 0
    assert counts()["live_allocations"] == before["live_allocations"] + 1
    assert cudart.cudaFree(pointer) == 0
    after = counts()
    assert (after["allocations"], after["live_allocations"]) == (before["allocations"] + 1, before["live_allocations"])


def test_memory_is_refused_beyond_its_size(cudart, device_memory):
    pointer = ctypes.c_void_p()
    assert cudart.cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(1 << 60)) == OUT_OF_MEMORY


@pytest.mark.parametrize(("begin", "other", "refused"), [(GLOBAL, GLOBAL, True), (GLOBAL, THREAD_LOCAL, False)])
def test_an_allocation_of_another_thread_spoils_a_capture_in_global_mode(cudart, begin, other, refused):
    stream, graph, answer = ctypes.c_void_p(), ctypes.c_void_p(), []
    assert cudart.cudaStreamCreate(ctypes.byref(stream)) == 0

    def allocate():
        pointer, mode = ctypes.c_void_p(), ctypes.c_int(other)
        cudart.cudaThreadExchangeStreamCaptureMode(ctypes.byref(mode))
        answer.append(cudart.cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(1)))
        cudart.cudaFree(pointer)

    assert cudart.cudaStreamBeginCapture(stream, begin) == 0
    thread = threading.Thread(target=allocate)
    thread.start()
    thread.join()
    assert answer == [CAPTURE_UNSUPPORTED if refused else 0]
    assert cudart.cudaStreamEndCapture(stream, ctypes.byref(graph)) == (CAPTURE_INVALIDATED if refused else 0)
    assert bool(graph) is not refused
    assert cudart.cudaGraphDestroy(graph) == 0
    assert cudart.cudaStreamDestroy(stream) == 0


def test_a_capture_refuses_its_own_threads_allocations(cudart):
    stream, graph, pointer = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    assert cudart.cudaStreamCreate(ctypes.byref(stream)) == 0
    assert cudart.cudaStreamBeginCapture(stream, GLOBAL) == 0
    assert cudart.cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(1)) == CAPTURE_UNSUPPORTED
    assert cudart.cudaStreamEndCapture(stream, ctypes.byref(graph)) == CAPTURE_INVALIDATED
    assert cudart.cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(1)) == 0
    assert cudart.cudaFree(pointer) == 0
    assert cudart.cudaStreamDestroy(stream) == 0


def test_a_fault_comes_at_its_turn_and_once(cudart, counts, device_memory):
    sent = ctypes.create_string_buffer(4)
    copy = lambda: cudart.cudaMemcpy(device_memory, sent, ctypes.c_size_t(4), TO_DEVICE)  # noqa: E731
    before = counts()["to_device"]
    cudart.cuda_shim_fail(FAIL_COPY, ctypes.c_long(2), ILLEGAL_ADDRESS, 0)
    assert [copy(), copy(), copy()] == [0, ILLEGAL_ADDRESS, 0]
    assert counts()["to_device"] == before + 2


def test_a_sticky_fault_poisons_every_later_call(shim):
    """In a separate process, since a poisoned device stays poisoned."""
    script = f"""
import ctypes
cudart = ctypes.CDLL({str(shim / "libcudart.so.13")!r})
pointer = ctypes.c_void_p()
cudart.cuda_shim_fail({FAIL_ALLOCATION}, ctypes.c_long(1), {ILLEGAL_ADDRESS}, 1)
allocate = lambda: cudart.cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(1))
print(allocate(), allocate(), cudart.cudaStreamSynchronize(None), cudart.cudaGetLastError())
"""
    environment = {"LD_LIBRARY_PATH": str(shim)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(ILLEGAL_ADDRESS)] * 4
