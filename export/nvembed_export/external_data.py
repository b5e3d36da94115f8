"""The external data file: all weights get their offsets first and are then streamed, so that few are in memory at once.

onnx_ir has a writer of its own. This one computes the checksum while writing and lets the caller see a full disk as an
OSError.
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
PAGE = 4096  # alignment that memory-mapping part of a file needs on Linux and macOS
BIG_PAGE, BIG = 65536, 1 << 20  # the same on Windows; its padding is acceptable only for weights of 1 MiB or more


@dataclass(frozen=True)
class Initializer:
    """An array of the data file. `make`, called when it is written, returns it C-contiguous in `dtype` and `shape`."""

    name: str
    dtype: ir.DataType
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    make: Callable[[], np.ndarray]


class ExternalData:
    """The layout of the data file, in the order of writing."""

    def __init__(self) -> None:
        self.initializers: list[Initializer] = []

    @property
    def total_bytes(self) -> int:
        last = self.initializers[-1] if self.initializers else None
        return last.offset + last.nbytes if last else 0

    def add(self, name: str, dtype: ir.DataType, shape: tuple[int, ...], make: Callable[[], np.ndarray]) -> ir.Value:
        """Reserve space for an array at the next aligned offset and return its graph value."""
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.numpy().itemsize
        page = BIG_PAGE if nbytes >= BIG else PAGE
        offset = -(-self.total_bytes // page) * page
        self.initializers.append(Initializer(name, dtype, shape, offset, nbytes, make))
        tensor = ir.ExternalTensor(DATA_FILE, offset, nbytes, dtype, shape=ir.Shape(shape), name=name)
        return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype), const_value=tensor)

    def write(self, path: Path, advance: Callable[[int], None]) -> str:
        """Write the file and return its SHA-256 in hex; `advance` is called with the byte count of each array.

        At most two arrays are in memory. OSError is passed on, since only the caller knows the folder and its limits.
        """
        digest, position = hashlib.sha256(), 0
        with path.open("wb", buffering=0) as file, closing(_made_ahead(self.initializers)) as made:
            for item, array in made:
                if array.nbytes != item.nbytes or array.shape != item.shape:
                    raise AssertionError(f"{item.name}: made {array.shape}, planned {item.shape}")
                # View as bytes, because the buffer protocol does not support bfloat16.
                data = memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
                for chunk in (memoryview(bytes(item.offset - position)), data):
                    digest.update(chunk)
                    _write_all(file, chunk)
                position = item.offset + item.nbytes
                del array, data, chunk  # free them before the next array is made
                advance(item.nbytes)
        return digest.hexdigest()


def _made_ahead(items: list[Initializer]) -> Iterator[tuple[Initializer, np.ndarray]]:
    """Yield each item with its array while a thread makes the next, so that reading overlaps hashing and writing.

    The main thread writes, because that is where Python delivers signals, and a signal must stop the writing.
    """
    pool = ThreadPoolExecutor(1, "make")
    try:
        coming = pool.submit(items[0].make) if items else None
        for index, item in enumerate(items):
            array = coming.result()
            coming = pool.submit(items[index + 1].make) if index + 1 < len(items) else None
            yield item, array
            del array  # otherwise three arrays exist while this waits for the next one
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _write_all(file, data: memoryview) -> None:
    """Write all data. One call may write less: Linux takes at most 2 GiB, and a file size limit cuts the last write."""
    while data:
        data = data[file.write(data) :]
