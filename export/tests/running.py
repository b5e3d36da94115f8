"""Runs an exported folder with ONNX Runtime on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import bf16_on_cpu
import int8_on_cpu
import numpy as np
import onnx
import onnxruntime
from packing import pack, pack_tokens


class Model:
    """An open model folder: rows of (ids, number of leading ids not pooled) -> float64 [B, D].

    What this processor cannot run is made runnable first (see bf16_on_cpu and int8_on_cpu); the changed graph stays in
    the folder as cpu.onnx.
    """

    def __init__(self, folder: Path):
        path, changed = folder / "model.onnx", None
        manifest = json.loads((folder / "nvembed.json").read_text())
        precision = manifest["precision"]
        if precision == "bf16":
            changed = bf16_on_cpu.runnable
        elif precision == "w8a8" and not int8_on_cpu.products_are_exact():
            changed = int8_on_cpu.runnable
        if changed:
            model, path = changed(onnx.load(path, load_external_data=False)), folder / "cpu.onnx"
            path.write_bytes(model.SerializeToString())
        self.packed = "row_lengths" in {entry["name"] for entry in manifest["graph"]["inputs"]}
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def __call__(self, rows, width: int | None = None, more_tokens: int = 0, more_rows: int = 0) -> np.ndarray:
        """`width` is that of the padded rows. A graph that takes packed tokens can be given more tokens and rows."""
        if self.packed:
            feeds = pack_tokens(rows, width, more_tokens, more_rows)
        else:
            feeds = dict(zip(("input_ids", "attention_mask", "pool_mask"), pack(rows, width), strict=True))
        return self.session.run(["embeddings"], feeds)[0].astype(np.float64)[: len(rows)]


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of each pair of rows."""
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
