"""What a layer computes number by number or token by token, in the forms that targets need: norms and SiLU."""

from __future__ import annotations

import onnx_ir as ir

from nvembed_export.checkpoint import Checkpoint
from nvembed_export.graph import GraphBuilder
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


def silu(graph: GraphBuilder, x: ir.Value) -> ir.Value:
    """x · sigmoid(x), in standard operators."""
    return graph.op("Mul", x, graph.op("Sigmoid", x))
