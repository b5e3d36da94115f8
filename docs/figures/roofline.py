"""Upper bounds for the speed of NV-Embed 7B on three GPUs, computed from data sheets; nothing here was measured.

    make performance-tables                        # write the table in docs/lab/gpu-roofline.md
    python docs/figures/roofline.py --check        # fail if the document has another table

Roofline model (Williams, Waterman, Patterson 2009): an operation takes the longer of its arithmetic divided by peak
FLOP/s and its bytes divided by memory bandwidth. Operations run one after another; within an operation, arithmetic and
memory access overlap fully. Operations between products are fused into passes over the residual stream.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from tables import write_or_check

DOCUMENT = Path(__file__).resolve().parent.parent / "lab" / "gpu-roofline.md"
START, END = "<!-- table: computed by docs/figures/roofline.py -->\n", "<!-- end of computed table -->"

# NV-Embed's sizes; the pooler in its fused form.
HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD, INNER = 4096, 32, 32, 8, 128, 14336
LATENTS, CROSS_HEADS = 512, 8
HALF, FULL = 2, 4  # bytes of float16 and float32
# Bytes per stored weight: int4 has 4 bits and one float16 scale per 32 weights.
WEIGHT_BYTES = {"fp16": 2.0, "int4": 0.5 + 2 / 32}


@dataclass(frozen=True)
class Gpu:
    """Dense float16 tensor-core peak with float32 sums in FLOP/s, and bandwidth in bytes/s, from the data sheet."""

    name: str
    flops: float
    bandwidth: float
    source: str


GPUS = (
    Gpu("H100 SXM", 989.4e12, 3.35e12, "nvidia.com/en-us/data-center/h100"),
    Gpu("A100 SXM 80 GB", 312e12, 2.039e12, "nvidia.com/en-us/data-center/a100"),
    Gpu("L40S", 362.05e12, 0.864e12, "nvidia.com/en-us/data-center/l40s"),
)
SHAPES = ((1, 32), (1, 128), (8, 128), (1, 512), (32, 512), (1, 4096))


def product(tokens: int, inputs: int, outputs: int, weight_bytes: float) -> tuple[float, float]:
    """FLOPs and bytes of [tokens, inputs] × [inputs, outputs]; weights, input and output are moved once each."""
    return 2.0 * tokens * inputs * outputs, inputs * outputs * weight_bytes + tokens * (inputs + outputs) * HALF


def operations(rows: int, length: int, weight_bytes: float) -> list[tuple[float, float]]:
    """FLOPs and bytes of each operation in a run."""
    tokens, queries, keys = rows * length, HEADS * HEAD, KV_HEADS * HEAD
    # Reads and writes the residual stream in float32, writes the norm's output.
    norm = (0.0, tokens * HIDDEN * (2 * FULL + HALF))
    layer = [
        norm,
        product(tokens, HIDDEN, queries + 2 * keys, weight_bytes),
        (4.0 * rows * length**2 * queries, 2.0 * tokens * (queries + keys) * HALF),  # fused: no scores in memory
        product(tokens, queries, HIDDEN, weight_bytes),
        norm,
        product(tokens, HIDDEN, 2 * INNER, weight_bytes),
        product(tokens, INNER, HIDDEN, weight_bytes),
    ]
    scores = CROSS_HEADS * LATENTS
    pooler = [
        norm,
        product(tokens, HIDDEN, scores, weight_bytes),
        product(tokens, scores, HIDDEN, weight_bytes),
        norm,
        product(tokens, HIDDEN, 8 * HIDDEN, weight_bytes),
        product(rows, 4 * HIDDEN, HIDDEN, weight_bytes),
    ]
    return layer * LAYERS + pooler


def least_time(gpu: Gpu, found: list[tuple[float, float]]) -> tuple[float, float]:
    """The lower bound in seconds, and the share of it that is bound by memory."""
    times = [(flops / gpu.flops, size / gpu.bandwidth) for flops, size in found]
    total = sum(max(pair) for pair in times)
    return total, sum(memory for compute, memory in times if memory > compute) / total


def table() -> str:
    """The Markdown table."""
    lines = [
        "| GPU | weights | rows × tokens | least ms | most tokens/s | waits for memory |",
        "|---|---|---|---:|---:|---:|",
    ]
    for gpu in GPUS:
        for name, weight_bytes in WEIGHT_BYTES.items():
            for rows, length in SHAPES:
                seconds, memory = least_time(gpu, operations(rows, length, weight_bytes))
                speed = float(f"{rows * length / seconds:.3g}")
                shape = f"{rows} × {length:,}"
                lines.append(f"| {gpu.name} | {name} | {shape} | {seconds * 1e3:,.2f} | {speed:,.0f} | {memory:.0%} |")
    sources = "; ".join(
        f"{gpu.name} {gpu.flops / 1e12:g} TFLOP/s, {gpu.bandwidth / 1e12:g} TB/s ({gpu.source})" for gpu in GPUS
    )
    return "\n".join(["", *lines, "", f"Peaks of the data sheets, float16 without sparsity: {sources}.", "", ""])


if __name__ == "__main__":
    sys.exit(write_or_check(__doc__, DOCUMENT, START, END, table()))
