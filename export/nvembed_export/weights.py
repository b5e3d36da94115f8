"""A weight of the graph as rows in checkpoint layout, whether it is read or folded, and its rounding to a dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from nvembed_export.checkpoint import Checkpoint
from nvembed_export.errors import WeightValueError


@dataclass(frozen=True)
class Weight:
    """A named array that comes as consecutive blocks of rows, so that it never has to exist whole in float64.

    `shape` is the checkpoint's layout: [out, in] for a projection, [n] for a vector.
    """

    name: str
    shape: tuple[int, ...]
    row_blocks: Callable[[], Iterator[np.ndarray]]

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, name: str) -> Weight:
        return cls(name, checkpoint.shape(name), lambda: checkpoint.row_blocks(name))

    @classmethod
    def from_array(cls, name: str, make: Callable[[], np.ndarray], shape: tuple[int, ...]) -> Weight:
        """A weight small enough to be made whole; `make` is called when it is written."""
        return cls(name, shape, lambda: iter([make()]))

    def array(self, dtype: np.dtype, transposed: bool = False) -> np.ndarray:
        """The whole weight rounded to `dtype`: [out, in], or [in, out] when transposed. Raises WeightValueError."""
        shape = self.shape[::-1] if transposed else self.shape
        whole = np.empty(shape, dtype)
        target = whole.T if transposed else whole
        row = 0
        for block in self.row_blocks():
            target[row : row + len(block)] = round_to(block, dtype, self.name)
            row += len(block)
        if row != self.shape[0]:
            raise AssertionError(f"{self.name}: blocks cover {row} of {self.shape[0]} rows")
        return whole


def round_to(block: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    """`block` in `dtype`. Raises WeightValueError, with value and limit, where one would become infinite."""
    if block.dtype == dtype:
        return block
    with np.errstate(over="ignore"):
        rounded = block.astype(dtype)
    if not np.isfinite(rounded).all():
        worst = float(block.flat[int(np.abs(block).argmax())])
        raise WeightValueError(
            f"tensor `{name}`: found {worst:g}, limit of {dtype} is {float(ml_dtypes.finfo(dtype).max):g}"
        )
    return rounded
