"""A weight of the graph, read or folded, as rows in checkpoint layout, and its rounding to a dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from nvembed_export.checkpoint import CACHE_BYTES, Checkpoint
from nvembed_export.errors import WeightValueError

TILE_ROWS, TILE_COLUMNS = 64, 256  # tile of a transposition, in rows and 8-byte words; fits in a core's caches


@dataclass(frozen=True)
class Weight:
    """A named array, read as consecutive blocks of rows so that it never exists as a whole in float64.

    `shape` is in checkpoint layout: [out, in] for a projection, [n] for a vector.
    """

    name: str
    shape: tuple[int, ...]
    row_blocks: Callable[[], Iterator[np.ndarray]]

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, name: str) -> Weight:
        return cls(name, checkpoint.shape(name), lambda: checkpoint.row_blocks(name, CACHE_BYTES))

    @classmethod
    def from_array(cls, name: str, make: Callable[[], np.ndarray], shape: tuple[int, ...]) -> Weight:
        """A weight small enough to be made as a whole; `make` is called when it is written."""
        return cls(name, shape, lambda: iter([make()]))

    def array(self, dtype: np.dtype, transposed: bool = False) -> np.ndarray:
        """The whole weight rounded to `dtype`: [out, in], or [in, out] if transposed.

        Raises WeightValueError if a value exceeds the range of `dtype`.
        """
        shape = self.shape[::-1] if transposed else self.shape
        whole = np.empty(shape, dtype)
        row = 0
        for block in self.row_blocks():
            rounded = round_to(block, dtype, self.name)
            if transposed:
                copy_transposed(whole, row, rounded)
            else:
                whole[row : row + len(block)] = rounded
            row += len(block)
        if row != self.shape[0]:
            raise AssertionError(f"{self.name}: blocks cover {row} of {self.shape[0]} rows")
        return whole


def copy_transposed(target: np.ndarray, column: int, block: np.ndarray) -> None:
    """target[:, column:column + rows] = blockᵀ, for block [rows, in] and target [in, out] of the same dtype.

    numpy transposes element by element. This moves 8 bytes at a time by first interleaving four fp16 rows into one row
    of 8-byte words, which takes a third of the time; otherwise transposing would be half of an export.
    """
    lanes = 8 // block.itemsize
    if block.dtype != target.dtype or any(size % lanes for size in (column, len(block), target.shape[1])):
        target[:, column : column + len(block)] = block.T
        return
    words = target.view(np.uint64)
    for start in range(0, len(block), TILE_ROWS):
        rows = block[start : start + TILE_ROWS]
        packed = np.empty((len(rows) // lanes, rows.shape[1], lanes), block.dtype)
        for lane in range(lanes):
            packed[:, :, lane] = rows[lane::lanes]
        tile = packed.view(np.uint64)[:, :, 0]
        first = (column + start) // lanes
        for left in range(0, tile.shape[1], TILE_COLUMNS):
            part = tile[:, left : left + TILE_COLUMNS]
            words[left : left + TILE_COLUMNS, first : first + len(tile)] = part.T


def round_to(block: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    """`block` in `dtype`. Raises WeightValueError if a value would become infinite."""
    if block.dtype == dtype:
        return block
    with np.errstate(over="ignore"):
        rounded = block.astype(dtype)
    if not np.isfinite(rounded).all():
        worst = float(block.flat[int(np.abs(block).argmax())])
        limit, hint = float(ml_dtypes.finfo(dtype).max), "; export with --precision bf16 or fp32"
        raise WeightValueError(
            f"tensor `{name}` has {worst:g}, the limit of {dtype} is {limit:g}{hint if dtype == np.float16 else ''}"
        )
    return rounded
