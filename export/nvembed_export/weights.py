"""A weight of the graph, read or folded, as rows in checkpoint layout, and its rounding to a dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from nvembed_export.arrays import copy_transposed
from nvembed_export.checkpoint import CACHE_BYTES, Checkpoint
from nvembed_export.errors import WeightValueError


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
