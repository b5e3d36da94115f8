"""The one place that decides in which dtype, or quantised form, each weight is stored and each product is taken.

A precision has two dtypes: `wide` for the residual stream, the statistics and weights of norms, the pooler's softmax,
the mean and the length, and `narrow` for projections and attention. NVIDIA runs the model under autocast, which makes
the same division: a residual stream in fp16 would be a different model, since Mistral's has outliers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from nvembed_export.graph import GraphBuilder
from nvembed_export.weights import Weight, round_to


@dataclass(frozen=True)
class Precision:
    """How a graph computes, and the dtype of its output."""

    name: str
    narrow: ir.DataType
    output: ir.DataType
    wide: ir.DataType = ir.DataType.FLOAT

    def narrowed(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        """A wide value in the narrow dtype; no node when the two are the same."""
        return self._cast(graph, x, self.wide, self.narrow)

    def widened(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        """A narrow value in the wide dtype; no node when the two are the same."""
        return self._cast(graph, x, self.narrow, self.wide)

    def finished(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        """A wide value in the dtype of the output; no node when the two are the same."""
        return self._cast(graph, x, self.wide, self.output)

    def _cast(self, graph: GraphBuilder, x: ir.Value, found: ir.DataType, wanted: ir.DataType) -> ir.Value:
        return x if found == wanted else graph.op("Cast", x, to=int(wanted))

    def embedding(self, graph: GraphBuilder, table: Weight, ids: ir.Value) -> ir.Value:
        """Rows of a table [V, D] by ids [B, S] -> wide [B, S, D]."""
        return self.widened(graph, graph.op("Gather", self._store(graph, table, self.narrow), ids, axis=0))

    def linear(self, graph: GraphBuilder, x: ir.Value, weight: Weight) -> ir.Value:
        """x Wᵀ for a weight [out, in] in checkpoint layout: narrow [..., in] -> narrow [..., out].

        Stored as [in, out], which is what MatMul wants: transposing here costs the runtime nothing.
        """
        return graph.op("MatMul", x, self._store(graph, weight, self.narrow, transposed=True))

    def narrow_weight(self, graph: GraphBuilder, weight: Weight) -> ir.Value:
        """Rotary tables and the biases of projections."""
        return self._store(graph, weight, self.narrow)

    def wide_weight(self, graph: GraphBuilder, weight: Weight) -> ir.Value:
        """Norm weights, and biases added to wide values."""
        return self._store(graph, weight, self.wide)

    def _store(self, graph: GraphBuilder, weight: Weight, dtype: ir.DataType, transposed: bool = False) -> ir.Value:
        shape = weight.shape[::-1] if transposed else weight.shape
        return graph.weight(weight.name, dtype, shape, lambda: weight.array(dtype.numpy(), transposed))

    def scalar(self, graph: GraphBuilder, value: float, wide: bool = True) -> ir.Value:
        dtype = (self.wide if wide else self.narrow).numpy()
        return graph.constant(float(round_to(np.asarray([value]), dtype, "constant")[0]), dtype.type)


PRECISIONS = {
    "fp32": Precision("fp32", ir.DataType.FLOAT, output=ir.DataType.FLOAT),
    "fp16": Precision("fp16", ir.DataType.FLOAT16, output=ir.DataType.FLOAT16),
    # Embeddings are finished in float32 and stay so: bfloat16 would drop half of their digits, numpy's files have no
    # such dtype, and a row is small.
    "bf16": Precision("bf16", ir.DataType.BFLOAT16, output=ir.DataType.FLOAT),
}
