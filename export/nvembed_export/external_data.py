"""The one external data file: every weight's place is known before the first is read, then they stream through.

Written here rather than by onnx_ir's saver so that the checksum is taken from the bytes on their way out, and so that a
full disk ends in one typed error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
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

        Memory: one array at a time. OSError passes through, for the caller knows the folder and its limits.
        """
        digest, position = hashlib.sha256(), 0
        with path.open("wb", buffering=0) as file:
            for item in self.initializers:
                array = item.make()
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


def _write_all(file, data: memoryview) -> None:
    """An unbuffered write may be short: Linux takes at most 2 GiB a call, and a file size limit cuts the last one."""
    while data:
        data = data[file.write(data) :]
