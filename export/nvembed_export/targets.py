"""What a graph is made for: which operators it consists of, and which precisions it can have.

docs/guides/model-folder.md lists the targets; docs/lab/gpu-graph.md and docs/lab/precision.md say why they differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from nvembed_export.attention import CpuAttention, MaskedAttention, PortableAttention
from nvembed_export.elementwise import NarrowingRMSNorm, RMSNorm, fused_silu, reduce_l2, root_of_squares, silu
from nvembed_export.errors import UsageError
from nvembed_export.graph import GraphBuilder
from nvembed_export.openvino import OpenVinoAttention, OpenVinoGraphBuilder
from nvembed_export.precision import ACTIVATIONS, BLOCKWISE, PRECISIONS, W8A8, Precision, for_openvino, make_precision
from nvembed_export.tokens import EveryPosition, PackedTokens, RealTokens, RealTokensForOpenVino

EXCEPT_W8A8 = tuple(name for name in PRECISIONS if name != W8A8)


@dataclass(frozen=True)
class Target:
    """The parts of a graph that depend on what it is made for.

    `activations` are those that int8 and int4 may have, the default first; `block_sizes` likewise, None for all.
    `direct_pooler` lists the precisions with the direct pooler, which is a reference for the fused one. `refused` says
    of a precision why this target has not got it.
    """

    tokens: type
    attention: type
    builder: type[GraphBuilder] = GraphBuilder
    norm: type = RMSNorm
    silu: Callable = silu
    vector_length: Callable = root_of_squares
    precisions: tuple[str, ...] = EXCEPT_W8A8
    refused: dict[str, str] = field(default_factory=dict)
    activations: tuple[str, ...] = tuple(ACTIVATIONS)
    block_sizes: tuple[int, ...] | None = None
    direct_pooler: tuple[str, ...] = EXCEPT_W8A8


TARGETS = {
    "any": Target(EveryPosition, PortableAttention),
    "cpu": Target(RealTokens, CpuAttention, precisions=tuple(PRECISIONS), direct_pooler=tuple(PRECISIONS)),
    "openvino": Target(
        RealTokensForOpenVino,
        OpenVinoAttention,
        OpenVinoGraphBuilder,
        vector_length=reduce_l2,
        precisions=("fp32", "bf16"),
    ),
    # ONNX Runtime 1.32's optimiser for CPUs (NchwcTransformer) crashes on the direct pooler behind a 16-bit ScaledSiLU.
    "cuda": Target(
        PackedTokens,
        PortableAttention,
        norm=NarrowingRMSNorm,
        silu=fused_silu,
        activations=("fp16",),
        direct_pooler=("fp32",),
    ),
    "tensorrt": Target(
        EveryPosition,
        MaskedAttention,
        precisions=("fp16", "bf16", "int4"),
        refused={
            "fp32": "TensorRT has no fp32 kernel for attention",
            "int8": "TensorRT's parser takes 4-bit codes only",
        },
        activations=("fp16",),
        block_sizes=(128, 64, 32),
    ),
}


def precision_for(
    target: str,
    pooler: str,
    name: str,
    activations: str | None = None,
    block_size: int | None = None,
    symmetric: bool | None = None,
    accuracy_level: int | None = None,
) -> Precision:
    """The precision with this name in the form that graphs for the target need; None takes the target's default.

    Raises UsageError for what the target or the precision does not have.
    """
    chosen = TARGETS[target]
    if name == W8A8 and name not in chosen.precisions:
        raise UsageError(f"--precision {W8A8} needs --target cpu, got --target {target}")
    if name not in chosen.precisions:
        reason = f": {chosen.refused[name]}" if name in chosen.refused else ""
        raise UsageError(
            f"--target {target} needs --precision {listed(chosen.precisions)}, got --precision {name}{reason}"
        )
    if pooler == "direct" and name not in chosen.direct_pooler:
        raise UsageError(
            f"--target {target} has --pooler direct with --precision {listed(chosen.direct_pooler)} only, got "
            f"--precision {name}: export with --pooler fused, which is equivalent"
        )
    if name in BLOCKWISE:
        activations = activations or chosen.activations[0]
        if activations not in chosen.activations:
            raise UsageError(
                f"--target {target} needs --activations {listed(chosen.activations)}, got --activations {activations}, "
                "with which a GPU would run products and attention in fp32, unfused"
            )
        if chosen.block_sizes is not None:
            block_size = block_size or chosen.block_sizes[0]
            if block_size not in chosen.block_sizes:
                raise UsageError(
                    f"--target {target} needs --block-size {listed(chosen.block_sizes)}, got --block-size {block_size}"
                )
    precision = make_precision(name, activations, block_size, symmetric, accuracy_level)
    return for_openvino(precision) if target == "openvino" else precision


def listed(values: tuple) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *first, last = map(str, values)
    return f"{', '.join(first)} or {last}" if first else last
