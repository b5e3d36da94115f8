"""How ONNX Runtime's CUDA provider runs a model on the shim, and what is wrong with that."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx

PROBE = Path(__file__).with_name("cuda_probe.py")
PROVIDER = "CUDAExecutionProvider"
ATTENTION = {"Attention", "MultiHeadAttention", "GroupQueryAttention"}
# Part of the name of the CUDA function behind each attention kernel: evidence besides what ONNX Runtime prints.
FUNCTION = {"FLASH_ATTENTION": "flash_fwd", "EFFICIENT_ATTENTION": "attention_kernel_batched", "MATH": ""}
CHOICE = re.compile(r"Operator=\S+ Node=(\S+) DataType=\S+ SdpaKernel=(\w+)")
OUTPUTS = 1

# (width, length of each row): one row and several, full and ragged; multiples of a kernel's tile and not.
RUNS = [
    (32, [32]),
    (32, [32, 31, 17, 9, 8, 3, 2, 1]),
    (77, [77, 40]),
    (128, [100]),
    (128, [128] * 8),
    (512, [512]),
    (512, [512, 511, 300, 257, 256, 64, 5, 1]),
]


@dataclass(frozen=True)
class Run:
    """One run: the kernel chosen for each attention node, how often each kernel was launched, copies, or the error."""

    shape: tuple[int, int]
    error: str | None
    kernels: dict[str, str]
    launches: dict[str, int]
    counts: dict[str, int]

    def __str__(self) -> str:
        return "x".join(map(str, self.shape))


@dataclass(frozen=True)
class Report:
    """`refused` is why no session without CPU nodes could be created; `nodes` lists the nodes of each provider."""

    refused: str | None
    nodes: dict[str, list[str]]
    runs: list[Run]


def probe(model: Path, compute_capability: int, shim: Path, runs=RUNS) -> Report:
    """Open and run `model` on the shim as a device of that compute capability (89 for 8.9)."""
    environment = os.environ | {
        "LD_LIBRARY_PATH": str(shim),
        "LD_BIND_NOW": "1",  # a function that the shim lacks is an error when its library is loaded
        "CUDA_SHIM_CC": str(compute_capability),
        "ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO": "1",
    }
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "report.json"
        command = [sys.executable, str(PROBE), str(model), json.dumps(runs), str(out)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"the probe exited with {done.returncode}:\n{done.stderr[-4000:]}")
        report = json.loads(out.read_text())
    printed = re.split(r"^run \d+$", done.stdout, flags=re.MULTILINE)[1:]
    return Report(
        report["refused"],
        report["nodes"],
        [
            Run((len(lengths), width), kernels=dict(CHOICE.findall(text)), **values)
            for (width, lengths), text, values in zip(runs, printed, report["runs"], strict=True)
        ],
    )


def attention_nodes(model: Path) -> set[str]:
    """Names of the graph's own attention nodes, so that a node that ONNX Runtime drops is noticed."""
    graph = onnx.load(model, load_external_data=False).graph
    return {node.name for node in graph.node if node.op_type in ATTENTION}


def inputs(model: Path) -> int:
    return len(onnx.load(model, load_external_data=False).graph.input)


def problems(model: Path, report: Report, kernel: str, extra_copies: bool = False) -> list[str]:
    """Why the model would be slow or run partly on the CPU; empty if every attention node gets `kernel`.

    With `extra_copies`, a run may copy more to the device than its inputs.
    """
    found = []
    if report.refused is not None:
        found.append(f"no session without the CPU: {report.refused}")
    for provider in sorted(set(report.nodes) - {PROVIDER}):
        found.append(f"{len(report.nodes[provider])} nodes on {provider}: {', '.join(report.nodes[provider])}")
    attention, copies = attention_nodes(model), inputs(model)
    if not attention:
        found.append("no attention operator: attention is composed of primitive operators")
    for run in report.runs:
        if run.error is not None:
            found.append(f"{run}: {run.error}")
            continue
        for node in sorted(attention):
            if run.kernels.get(node) != kernel:
                found.append(f"{run}: {node} runs on {run.kernels.get(node)}, not {kernel}")
        launched = sum(times for name, times in run.launches.items() if FUNCTION[kernel] in name)
        if launched < len(attention):
            found.append(f"{run}: {launched} launches of {FUNCTION[kernel]} for {len(attention)} attention nodes")
        to_device, to_host = run.counts["to_device"], run.counts["to_host"]
        if (to_device > copies and not extra_copies) or to_host != OUTPUTS:
            found.append(
                f"{run}: {to_device} copies to the device and {to_host} back, for {copies} inputs and {OUTPUTS} output"
            )
    return found
