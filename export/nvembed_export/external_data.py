"""The one external data file: every weight's place is known before the first is read, then they stream through.

Written here rather than by onnx_ir's saver so that the checksum is taken from the bytes on their way out, and so that a
full disk ends in one typed error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

DATA_FILE = "model.onnx.data"
PAGE = 4096  # what a memory map of part of a file must start at on Linux and macOS
BIG_PAGE, BIG = 65536, 1 << 20  # the same on Windows; worth its padding only for weights of a megabyte or more


@dataclass(frozen=True)
class Initializer:
    """One array of the data file; `make` returns it C-contiguous, in `dtype` and `shape`, when its turn comes."""

    name: str
    dtype: ir.DataType
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    make: Callable[[], np.ndarray]


class ExternalData:
    """The plan of the data file, in writing order."""

    def __init__(self) -> None:
        self.initializers: list[Initializer] = []

    @property
    def total_bytes(self) -> int:
        last = self.initializers[-1] if self.initializers else None
        return last.offset + last.nbytes if last else 0

    def add(self, name: str, dtype: ir.DataType, shape: tuple[int, ...], make: Callable[[], np.ndarray]) -> ir.Value:
        """Plan an array at the next aligned offset and return the graph's value for it."""
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.numpy().itemsize
        page = BIG_PAGE if nbytes >= BIG else PAGE
        offset = -(-self.total_bytes // page) * page
        self.initializers.append(Initializer(name, dtype, shape, offset, nbytes, make))
        tensor = ir.ExternalTensor(DATA_FILE, offset, nbytes, dtype, shape=ir.Shape(shape), name=name)
        return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype), const_value=tensor)

    def write(self, path: Path, advance: Callable[[int], None]) -> str:
        """Write the file and return its sha256 in hex; `advance` is told how many bytes were just written.

        Memory: two arrays at a time. OSError passes through, for the caller knows the folder and its limits.
        """
        digest, position = hashlib.sha256(), 0
        with path.open("wb", buffering=0) as file, closing(_made_ahead(self.initializers)) as made:
            for item, array in made:
                if array.nbytes != item.nbytes or array.shape != item.shape:
                    raise AssertionError(f"{item.name}: made {array.shape}, planned {item.shape}")
                # Viewed as bytes by numpy: the buffer protocol knows no bfloat16.
                data = memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
                for chunk in (memoryview(bytes(item.offset - position)), data):
                    digest.update(chunk)
                    _write_all(file, chunk)
                position = item.offset + item.nbytes
                del array, data, chunk  # before the next one is made
                advance(item.nbytes)
        return digest.hexdigest()


def _made_ahead(items: list[Initializer]) -> Iterator[tuple[Initializer, np.ndarray]]:
    """Each item with its array, while a thread makes the next: reading and transposing beside hashing and writing.

    The thread makes rather than writes, so that a signal, which Python delivers to the main thread, stops the writing.
    """
    pool = ThreadPoolExecutor(1, "make")
    try:
        coming = pool.submit(items[0].make) if items else None
        for index, item in enumerate(items):
            array = coming.result()
            coming = pool.submit(items[index + 1].make) if index + 1 < len(items) else None
            yield item, array
            del array  # while this waits for the one after it, there should be no third
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _write_all(file, data: memoryview) -> None:
    """An unbuffered write may be short: Linux takes at most 2 GiB a call, and a file size limit cuts the last one."""
    while data:
        data = data[file.write(data) :]
