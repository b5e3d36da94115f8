"""What a layer computes number by number or token by token, in the forms that targets need: norms and SiLU."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from nvembed_export.checkpoint import Checkpoint
from nvembed_export.graph import MICROSOFT, GraphBuilder
from nvembed_export.precision import Precision
from nvembed_export.weights import Weight


class RMSNorm:
    """x / √(mean(x²) + ε) · weight (arXiv 1910.07467), computed in the wide dtype."""

    def __init__(self, checkpoint: Checkpoint, precision: Precision, name: str, eps: float):
        self.weight = Weight.from_checkpoint(checkpoint, f"{name}.weight")
        self.precision, self.eps = precision, eps

    def __call__(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        """wide -> wide"""
        weight = self.precision.wide_weight(graph, self.weight)
        return graph.op("RMSNormalization", x, weight, axis=-1, epsilon=self.eps, stash_type=1)

    def narrowed(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        """wide -> narrow, as products take it."""
        return self.precision.narrowed(graph, self(graph, x))


class NarrowingRMSNorm(RMSNorm):
    """Reads the wide residual stream and writes float16 itself: what it writes is not written and read a second time.

    `SimplifiedLayerNormalization` is ONNX Runtime's own operator in the standard domain. It has kernels for float32
    with a float16 weight on CUDA and CPUs; RMSNormalization with these types has one on CUDA only. The kernel rounds
    before and after it multiplies by the weight, as Mistral's code does. There is none for bfloat16.
    """

    def narrowed(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        """wide -> narrow, as products take it."""
        if self.precision.narrow != ir.DataType.FLOAT16:
            return super().narrowed(graph, x)
        weight = self.precision.narrow_weight(graph, self.weight)
        y = graph.op("SimplifiedLayerNormalization", x, weight, axis=-1, epsilon=self.eps, stash_type=1)
        y.type = ir.TensorType(ir.DataType.FLOAT16)  # which shape inference cannot know
        return y


def silu(graph: GraphBuilder, precision: Precision, x: ir.Value) -> ir.Value:
    """x · sigmoid(x), in standard operators."""
    return graph.op("Mul", x, graph.op("Sigmoid", x))


def fused_silu(graph: GraphBuilder, precision: Precision, x: ir.Value) -> ir.Value:
    """x · sigmoid(x) as one operator whose sigmoid is computed in float32.

    ONNX Runtime fuses `silu` into QuickGelu on CUDA, which computes 1 - 1/(1 + exp(x)) in the dtype of x: for negative
    x the difference cancels.
    """
    y = graph.op("ScaledSiLU", x, domain=MICROSOFT, alpha=1.0)
    y.type = ir.TensorType(precision.narrow)  # which shape inference cannot know
    return y


def root_of_squares(graph: GraphBuilder, x: ir.Value) -> ir.Value:
    """The length of each vector, [B, D] -> [B, 1]. On CUDA, ReduceL2 would be the only operator that needs cuDNN."""
    squares = graph.op("ReduceSum", graph.op("Mul", x, x), graph.constant([-1], np.int64), keepdims=1)
    return graph.op("Sqrt", squares)


def reduce_l2(graph: GraphBuilder, x: ir.Value) -> ir.Value:
    """The length of each vector, [B, D] -> [B, 1], as one operator."""
    return graph.op("ReduceL2", x, graph.constant([-1], np.int64), keepdims=1)
