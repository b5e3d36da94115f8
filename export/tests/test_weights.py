"""Transposing by words gives the same result as transposing by elements, for all sizes."""

from __future__ import annotations

import numpy as np
import pytest

from nvembed_export.weights import Weight

# Multiples of four and others, larger and smaller than a tile in each direction, blocks that end inside a word.
SHAPES = [(1, 1), (4, 4), (7, 12), (12, 7), (64, 256), (128, 1030), (200, 8), (1100, 36), (36, 1100)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("step", [3, 4, 64, 1024])
def test_transposed_weight(shape, step, dtype):
    values = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    blocks = [values[start : start + step] for start in range(0, shape[0], step)]
    weight = Weight("w", shape, lambda: iter(blocks))
    assert np.array_equal(weight.array(np.dtype(dtype), transposed=True), values.T)
    assert np.array_equal(weight.array(np.dtype(dtype)), values)
