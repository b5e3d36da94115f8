"""The programs that are compared, and how to start each."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TARGET = os.environ.get("CARGO_TARGET_DIR") or "target"  # of each package, unless absolute
PROGRAM = ROOT / TARGET / "debug" / "nvembed"
CANDLE = HERE / "candle" / TARGET / "release" / "candle-peer"
LIBRARY = ROOT / "build" / "capi" / "prefix" / "lib" / "libnvembed.so.0"
OPENVINO_VENV = ROOT / ".venv-openvino"  # its ONNX Runtime has the OpenVINO provider


@dataclass(frozen=True)
class Peer:
    """A program that embeds. `arguments` replaces {checkpoint}, {models} and {threads} in `command`."""

    name: str
    precision: str
    command: tuple[str, ...]
    # "full", or "backbone" without latent attention: a smaller task, which is not ranked.
    part: str = "full"
    # Memory in bytes per byte of the fp16 checkpoint, approximately.
    memory: float = 2.5
    # The precision whose limit applies, if not its own.
    limit_of: str | None = None

    def arguments(self, **values: object) -> list[str]:
        return [part.format(**values) for part in self.command]


def python(script: str, *options: str) -> tuple[str, ...]:
    return (sys.executable, str(HERE / script), *options, "--threads", "{threads}")


def ours(precision: str, memory: float) -> Peer:
    command = python("peer_nvembed.py", "{models}/nvembed-" + precision, "--library", str(LIBRARY))
    return Peer(f"nvembed {precision}", precision, command, memory=memory)


def ours_on_openvino(precision: str) -> Peer:
    folder = "{models}/nvembed-openvino-" + precision
    options = ("--library", str(LIBRARY), "--provider", "openvino", "--onnxruntime-venv", str(OPENVINO_VENV))
    return Peer(f"nvembed on OpenVINO {precision}", precision, python("peer_nvembed.py", folder, *options), memory=4.0)


def pytorch(name: str, precision: str, *options: str) -> Peer:
    command = python("peer_pytorch.py", "{checkpoint}", "--precision", precision, *options)
    return Peer(f"{name} {precision}", precision, command)


def openvino(name: str, precision: str, graph: str) -> Peer:
    command = python("peer_openvino.py", "{checkpoint}", graph, "--precision", precision)
    return Peer(f"{name} {precision}", precision, command, memory=5.0)


def candle(part: str) -> Peer:
    command = (str(CANDLE), "{checkpoint}", part)
    if part == "backbone":
        return Peer("candle backbone fp32", "fp32", command, part)
    # Its latent attention approximates GELU by tanh. In float64 that alone moves a number of nv-embed-mini by 8e-5.
    return Peer("candle fp32", "fp32", command, limit_of="fp16")


DIRECT, OURS = "{models}/direct/model.onnx", "{models}/nvembed-fp32/model.onnx"

# In the order of the table.
PEERS = (
    ours("fp32", 4.0),
    ours("int8", 2.0),
    ours("w8a8", 2.0),
    ours_on_openvino("fp32"),
    ours_on_openvino("bf16"),
    pytorch("PyTorch", "fp32"),
    pytorch("PyTorch", "bf16"),
    pytorch("PyTorch, latents kept", "fp32", "--keep-latents"),
    pytorch("PyTorch, latents kept", "bf16", "--keep-latents"),
    pytorch("PyTorch, latents kept, compiled", "fp32", "--keep-latents", "--compile"),
    pytorch("PyTorch, latents kept, compiled", "bf16", "--keep-latents", "--compile"),
    candle("full"),
    candle("backbone"),
    Peer("ONNX Runtime, plain export fp32", "fp32", python("peer_onnxruntime.py", "{checkpoint}", DIRECT), memory=5.0),
    openvino("OpenVINO, plain export", "fp32", DIRECT),
    openvino("OpenVINO, plain export", "bf16", DIRECT),
    openvino("OpenVINO, plain export", "w8a8", DIRECT),
    openvino("OpenVINO, nvembed's graph", "fp32", OURS),
    openvino("OpenVINO, nvembed's graph", "bf16", OURS),
    openvino("OpenVINO, nvembed's graph", "w8a8", OURS),
)
