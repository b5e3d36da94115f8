"""A tensor in a file: where its bytes are, and how its rows are read.

The data is read with plain reads, not through a memory map: mapped pages count as resident memory, so a 7B checkpoint
would show up as 16 GB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nvembed_export.errors import CheckpointError, WeightValueError

DTYPE_BYTES = {"F16": 2, "BF16": 2, "F32": 4}


@dataclass(frozen=True)
class StoredTensor:
    """A contiguous, row-major, little-endian array; `start` is a byte offset from the beginning of the file."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop (exclusive), [stop - start, ...]: float16 for F16, float32 for BF16 and F32.

        Raises WeightValueError for NaN or infinity, CheckpointError if the file is too short or cannot be read.
        """
        width = math.prod(self.shape[1:])
        stored = np.dtype("<f4" if self.dtype == "F32" else "<u2")
        flat = np.empty((stop - start) * width, stored)
        try:
            found = _read_into(flat, self.file, self.start + start * width * stored.itemsize) // stored.itemsize
        except OSError as error:
            raise CheckpointError(f"{self.file}: cannot be read: {error.strerror}") from None
        if found != flat.size:
            raise CheckpointError(
                f"{self.file}: read {found} values of `{self.name}`, expected {flat.size}: file is too short"
            )
        return self._decode(flat, start * width).reshape(stop - start, *self.shape[1:])

    def _decode(self, flat: np.ndarray, first: int) -> np.ndarray:
        """Stored values -> float16 or float32. Raises WeightValueError for NaN and infinity (all exponent bits set)."""
        if self.dtype == "F32":
            values, bad = flat, ~np.isfinite(flat)
        else:
            # Compares the bits because numpy's isfinite is many times slower on float16.
            exponent = np.uint16(0x7C00 if self.dtype == "F16" else 0x7F80)
            bad = (flat & exponent) == exponent
            values = flat.view("<f2") if self.dtype == "F16" else (flat.astype("<u4") << np.uint32(16)).view("<f4")
        if bad.any():
            at = int(bad.argmax())
            raise WeightValueError(
                f"tensor `{self.name}` has {values[at]} at flat index {first + at}, expected only finite values"
            )
        return values


def _read_into(target: np.ndarray, file: Path, offset: int) -> int:
    """Fill an array from byte `offset` of the file and return the number of bytes read. Raises OSError."""
    rest = memoryview(target).cast("B")
    with file.open("rb", buffering=0) as stream:
        stream.seek(offset)
        while rest and (count := stream.readinto(rest)):
            rest = rest[count:]
    return target.nbytes - len(rest)
