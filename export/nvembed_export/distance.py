"""How far the embeddings of a written graph are from the golden ones, on ONNX Runtime's CPU provider.

`nvembed verify` measures the same on the provider that will serve, in whole batches too.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Bounds of what the runtime accepts: the kind, and the largest value. The runtime has the same table, with reasons
# (Precision::tolerance in src/model/precision.rs), and one of its tests compares them.
LARGEST_DIFFERENCE, COSINE_DISTANCE = "largest_difference", "cosine_distance"
TOLERANCES = {
    "fp32": (LARGEST_DIFFERENCE, 1e-5),
    "fp16": (COSINE_DISTANCE, 1e-4),
    "bf16": (COSINE_DISTANCE, 2e-3),
    "int8": (COSINE_DISTANCE, 1e-3),
    "int4": (COSINE_DISTANCE, 5e-2),
    "w8a8": (COSINE_DISTANCE, 5e-3),
}
#: A session may take this many times the bytes of the weights: the file in memory, and copies in the kernels' order.
SESSION_MEMORY = 2.5
#: What to do about a folder whose distance is beyond its tolerance.
BEYOND = (
    "The runtime will not open this folder without --no-self-check, since this precision loses too much of this "
    "checkpoint: export fp32, fp16 or int8, and compare them with `nvembed eval` on data of yours"
)
INPUTS = ["input_ids", "attention_mask", "pool_mask"]


@dataclass(frozen=True)
class Distance:
    """The worst of the golden rows, each run alone."""

    largest_difference: float
    cosine_distance: float
    precision: str

    @property
    def is_within_tolerance(self) -> bool:
        kind, bound = TOLERANCES[self.precision]
        return getattr(self, kind) <= bound  # which NaN is not

    def __str__(self) -> str:
        kind, bound = TOLERANCES[self.precision]
        words = {LARGEST_DIFFERENCE: "in each number", COSINE_DISTANCE: "in 1 - cosine"}[kind]
        return (
            f"golden embeddings on the CPU provider: largest difference {self.largest_difference:.1e}, 1 - cosine "
            f"{self.cosine_distance:.1e}; tolerance {bound:.0e} {words}"
        )


def golden_distance(folder: Path) -> Distance | str:
    """Run the golden rows of a model folder; or why they cannot be run here, in words that follow "not measured: "."""
    manifest = json.loads((folder / "nvembed.json").read_text())
    precision, graph = manifest["precision"], manifest["graph"]
    if manifest["golden"] is None:
        return "the folder has no golden embeddings (--no-golden)"
    if precision == "bf16" or graph["target"] == "openvino" or [entry["name"] for entry in graph["inputs"]] != INPUTS:
        where = {"any": "cuda", "cpu": "cpu"}.get(graph["target"], graph["target"])
        return f"this folder is for another provider than the CPU's; `nvembed verify --provider {where}` measures there"
    if precision == "w8a8" and not products_are_exact():
        return "this processor has no VNNI, without which 8-bit products are wrong"
    needed, free = SESSION_MEMORY * graph["data_bytes"], _free_memory()
    if free is not None and needed > free:
        return (
            f"that takes about {needed / 1e9:.0f} GB of memory, and {free / 1e9:.0f} GB are free; see `nvembed verify`"
        )
    # Official builds would start a thread of Microsoft's telemetry.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError:
        return "the Python package onnxruntime is not installed"
    session = onnxruntime.InferenceSession(str(folder / graph["file"]), providers=["CPUExecutionProvider"])
    rows = json.loads((folder / manifest["golden"]["file"]).read_text())["rows"]
    differences, distances = [], []
    for row in rows:
        ids = np.asarray([row["input_ids"]], np.int64)
        attended = np.ones_like(ids)
        pooled = (np.arange(ids.shape[1]) >= row["instruction_tokens"]).astype(np.int64)[np.newaxis]
        found = session.run(None, dict(zip(INPUTS, (ids, attended, pooled), strict=True)))[0][0].astype(np.float64)
        wanted = np.asarray(row["embedding"], np.float64)
        differences.append(np.abs(found - wanted).max())
        distances.append(1 - found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted))
    # max() of Python would drop a NaN.
    return Distance(float(np.max(differences)), float(np.max(distances)), precision)


def products_are_exact() -> bool:
    """Whether ONNX Runtime sums 8-bit products in 32 bits on this processor."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    flags = Path("/proc/cpuinfo")
    return flags.exists() and ("avx512_vnni" in flags.read_text() or "avx_vnni" in flags.read_text())


def _free_memory() -> int | None:
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return None
