"""Who is compared, and how each is started."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CANDLE = HERE / "candle" / "target" / "release" / "candle-peer"
LIBRARY = ROOT / "build" / "capi" / "prefix" / "lib" / "libnvembed.so.0"

# Distance to the float64 reference, 1 - cosine, beyond which an answer is wrong: what `nvembed verify` allows.
TOLERANCE = {"fp32": 1e-5, "bf16": 2e-3, "int8": 1e-3, "w8a8": 5e-3}


@dataclass(frozen=True)
class Peer:
    """A program that embeds. `command` has {checkpoint}, {models} and {threads} filled in."""

    name: str
    precision: str
    command: tuple[str, ...]
    # "full", or "backbone" for what leaves out the latent attention: a smaller task, which is not ranked.
    part: str = "full"
    # Bytes of memory for each byte of the fp16 checkpoint, about.
    memory: float = 2.5
    # The precision of ours that it is compared with; None: there is none on a CPU.
    ours: str | None = None

    def arguments(self, **values: object) -> list[str]:
        return [part.format(**values) for part in self.command]


def python(script: str, *options: str) -> tuple[str, ...]:
    return (sys.executable, str(HERE / script), *options, "--threads", "{threads}")


def ours(precision: str, memory: float) -> Peer:
    command = python("peer_nvembed.py", "{models}/nvembed-" + precision, "--library", str(LIBRARY))
    return Peer(f"nvembed {precision}", precision, command, memory=memory, ours=precision)


def pytorch(name: str, precision: str, *options: str) -> Peer:
    command = python("peer_pytorch.py", "{checkpoint}", "--precision", precision, *options)
    return Peer(f"{name} {precision}", precision, command, ours=equal(precision))


def openvino(name: str, precision: str, graph: str) -> Peer:
    command = python("peer_openvino.py", "{checkpoint}", graph, "--precision", precision)
    return Peer(f"{name} {precision}", precision, command, memory=5.0, ours=equal(precision))


def candle(part: str) -> Peer:
    name = "candle fp32" if part == "full" else "candle backbone fp32"
    return Peer(name, "fp32", (str(CANDLE), "{checkpoint}", part), part, ours="fp32")


def equal(precision: str) -> str | None:
    """bf16 has no equal: ONNX Runtime's CPU provider has no bf16 products."""
    return None if precision == "bf16" else precision


DIRECT, OURS = "{models}/direct/model.onnx", "{models}/nvembed-fp32/model.onnx"

# The order of the table.
PEERS = (
    ours("fp32", 4.0),
    ours("int8", 2.0),
    ours("w8a8", 2.0),
    pytorch("PyTorch", "fp32"),
    pytorch("PyTorch", "bf16"),
    pytorch("PyTorch, latents kept", "fp32", "--keep-latents"),
    pytorch("PyTorch, latents kept", "bf16", "--keep-latents"),
    pytorch("PyTorch, latents kept, compiled", "fp32", "--keep-latents", "--compile"),
    pytorch("PyTorch, latents kept, compiled", "bf16", "--keep-latents", "--compile"),
    candle("full"),
    candle("backbone"),
    Peer(
        "ONNX Runtime, plain export fp32",
        "fp32",
        python("peer_onnxruntime.py", "{checkpoint}", DIRECT),
        memory=5.0,
        ours="fp32",
    ),
    openvino("OpenVINO, plain export", "fp32", DIRECT),
    openvino("OpenVINO, plain export", "bf16", DIRECT),
    openvino("OpenVINO, plain export", "w8a8", DIRECT),
    openvino("OpenVINO, nvembed's graph", "fp32", OURS),
    openvino("OpenVINO, nvembed's graph", "bf16", OURS),
    openvino("OpenVINO, nvembed's graph", "w8a8", OURS),
)
