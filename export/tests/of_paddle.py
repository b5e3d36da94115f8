"""The random models that PaddleNLP's code saved in `paddle/`, and their values. Imports nothing from the exporter.

PaddleNLP's pooler is as wide as there are positions: so many rows have `to_q` and `net.0`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from seeded_checkpoint import FEED_FORWARD, Spec, quantiles, random_levels, random_tensors

FOLDER = Path(__file__).resolve().parent / "paddle"
Row = tuple[list[int], int]


@dataclass(frozen=True)
class PaddleCase:
    """`shard_size` is PaddleNLP's `max_shard_size`."""

    spec: Spec
    dtype: str
    shard_size: str
    rows: tuple[Row, ...]

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def folder(self) -> Path:
        return FOLDER / self.name


_SIZES = {"hidden": 32, "layers": 1, "heads": 4, "kv_heads": 2, "intermediate": 48, "latents": 512, "cross_heads": 2}
_ROWS: tuple[Row, ...] = (([1, 30, 31, 32, 40, 2], 0), ([1, 7, 8, 9, 200, 201, 33, 34, 2], 4), ([1, 2], 0))
# As wide as NVIDIA's code makes it for this hidden size, 8 · 32: the same weights can be written in NVIDIA's form.
SHARDS = PaddleCase(
    Spec("fp16-shards", 21, cross_dim=128, positions=256, vocab=384, **_SIZES), "float16", "120KB", _ROWS
)
# Of another width, as PaddleNLP's code makes it of another base configuration.
NARROW = PaddleCase(Spec("bf16-narrow", 22, cross_dim=48, positions=96, vocab=384, **_SIZES), "bfloat16", "5GB", _ROWS)
CASES = (SHARDS, NARROW)


def values(case: PaddleCase) -> dict[str, np.ndarray]:
    """NVIDIA's names -> float32 arrays, [out, in], of values that the case's dtype can hold."""
    tensors = random_tensors(case.spec)
    hidden, width = case.spec.hidden, case.spec.positions // 2
    for name, shape in (("0.weight", (2 * width, hidden)), ("0.bias", (2 * width,)), ("2.weight", (hidden, width))):
        full = f"{FEED_FORWARD}.fn.net.{name}"
        if tensors[full].shape != shape:
            levels = random_levels(case.spec.seed, full, int(np.prod(shape)))
            tensors[full] = (quantiles()[levels] * np.float32(0.15)).reshape(shape)
    return {name: _rounded(array, case.dtype) for name, array in tensors.items()}


def _rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "float16":
        return array.astype(np.float16).astype(np.float32)
    return (array.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
