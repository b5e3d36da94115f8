"""Runs an exported folder with ONNX Runtime on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from bf16_on_cpu import runnable
from packing import pack


class Model:
    """An open model folder: rows of (ids, number of leading ids not pooled) -> float64 [B, D].

    bf16 graphs are first made runnable (see bf16_on_cpu); the changed graph is stored in the folder as cpu.onnx.
    """

    def __init__(self, folder: Path):
        path = folder / "model.onnx"
        if json.loads((folder / "nvembed.json").read_text())["precision"] == "bf16":
            model, path = runnable(onnx.load(path, load_external_data=False)), folder / "cpu.onnx"
            path.write_bytes(model.SerializeToString())
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def __call__(self, rows, width: int | None = None) -> np.ndarray:
        names = ("input_ids", "attention_mask", "pool_mask")
        return self.session.run(["embeddings"], dict(zip(names, pack(rows, width), strict=True)))[0].astype(np.float64)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of each pair of rows."""
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
