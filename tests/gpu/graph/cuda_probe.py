"""Opens and runs a model on ONNX Runtime's CUDA provider over the shim, and writes what happened as JSON.

Usage: python cuda_probe.py MODEL RUNS OUT    (RUNS: JSON list of runs, each [width, [length of each row]])

cuda_provider.py starts this script and reads kernel choices from its stdout: ONNX Runtime prints them there, between
this script's lines `run N`. It must be a separate process because LD_LIBRARY_PATH, which selects the shim, is read only
when a process starts.
"""

from __future__ import annotations

import ctypes
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime

# The fields of struct shim_counts in tests/gpu/shim/state.c, in order.
COUNTS = (
    "to_device",
    "to_host",
    "on_device",
    "launches",
    "live_allocations",
    "allocations",
    "live_handles",
    "captures",
    "graph_launches",
    "synchronizations",
    "elsewhere",
)


class Shim:
    """The counters of the libcudart that the provider uses."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libcudart.so.13")

    def counts(self) -> dict[str, int]:
        values = (ctypes.c_long * len(COUNTS))()
        self.library.cuda_shim_counts(values)
        return dict(zip(COUNTS, values, strict=True))

    def launches(self) -> Counter[str]:
        """How often each kernel was launched since the last call."""
        with tempfile.NamedTemporaryFile() as file:
            if self.library.cuda_shim_launches(file.name.encode()) != 0:
                raise OSError(f"the shim cannot write {file.name}")
            return Counter(Path(file.name).read_text().splitlines())


def open_session(model: str, cpu: bool) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if not cpu:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CUDAExecutionProvider"])
    # Without the shim, the Python package falls back to the CPU, where every node would count as placed.
    if session.get_providers()[0] != "CUDAExecutionProvider":
        raise RuntimeError("the CUDA provider was not loaded")
    return session


def assignment(session: onnxruntime.InferenceSession) -> dict[str, list[str]]:
    """Provider -> "operator name" of each node assigned to it, after ONNX Runtime's own fusions."""
    nodes: dict[str, list[str]] = {}
    for subgraph in session.get_provider_graph_assignment_info():
        nodes.setdefault(subgraph.ep_name, []).extend(f"{node.op_type} {node.name}" for node in subgraph.get_nodes())
    return nodes


def feed(names: list[str], width: int, lengths: list[int]) -> dict[str, np.ndarray]:
    """The graph's inputs, for rows of these lengths padded to `width`; packed tokens get padding too."""
    if "row_lengths" in names:
        return packed(width, lengths)
    mask = (np.arange(width) < np.array(lengths)[:, None]).astype(np.int64)
    return {"input_ids": mask, "attention_mask": mask, "pool_mask": mask}


def packed(width: int, lengths: list[int]) -> dict[str, np.ndarray]:
    rows = np.repeat(np.arange(len(lengths)), lengths)
    positions = np.concatenate([np.arange(length) for length in lengths])
    padding = -len(rows) % 16
    of_token = {
        "input_ids": np.ones_like(rows),
        "position_ids": positions,
        "pool_mask": np.ones_like(rows),
        "row_ids": rows,
        "position_of_token": rows * width + positions,
    }
    token_of_position = np.zeros((len(lengths), width), np.int64)
    token_of_position[rows, positions] = np.arange(len(rows))
    return {name: np.pad(array, (0, padding)).astype(np.int64) for name, array in of_token.items()} | {
        "token_of_position": token_of_position,
        "row_lengths": np.array(lengths, np.int64),
    }


def main(model: str, runs: str, out: str) -> None:
    onnxruntime.set_default_logger_severity(4)
    report = {"refused": None, "nodes": {}, "runs": []}
    try:
        session = open_session(model, cpu=False)
    except Exception as error:
        report["refused"] = str(error)
        session = open_session(model, cpu=True)
    report["nodes"] = assignment(session)
    shim = Shim()
    for number, (width, lengths) in enumerate(json.loads(runs)):
        print(f"run {number}", flush=True)
        shim.launches()
        before, error = shim.counts(), None
        try:
            session.run(None, feed([node.name for node in session.get_inputs()], width, lengths))
        except Exception as problem:
            error = str(problem)
        counts = {name: value - before[name] for name, value in shim.counts().items()}
        report["runs"].append({"error": error, "counts": counts, "launches": shim.launches()})
    Path(out).write_text(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
