"""Running an exported folder through ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from reference_torch import pack


class Model:
    """An open model folder: rows of (ids, leading ids not pooled) -> [B, D] float64."""

    def __init__(self, folder: Path):
        self.session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])

    def __call__(self, rows, width: int | None = None) -> np.ndarray:
        names = ("input_ids", "attention_mask", "pool_mask")
        return self.session.run(["embeddings"], dict(zip(names, pack(rows, width), strict=True)))[0].astype(np.float64)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of each pair of rows."""
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
