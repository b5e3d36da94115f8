"""Graphs for OpenVINO: operators that its ONNX importer does not support are decomposed into older ones.

OpenVINO (2026.4, in onnxruntime-ep-openvino 1.8) recognises the decomposed norm and attention and has kernels for them.
Letters: B batch, S sequence, T real tokens in the batch, H query heads, K key/value heads, d head_dim.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from nvembed_export.config import TextConfig
from nvembed_export.graph import GraphBuilder
from nvembed_export.precision import Precision


class OpenVinoGraphBuilder(GraphBuilder):
    """Decomposes RMSNormalization and RotaryEmbedding, both from opset 23, into several nodes each."""

    def op(self, op_type: str, *inputs: ir.Value | None, **attributes):
        """Like GraphBuilder.op."""
        match op_type:
            case "RMSNormalization":
                return self._rms_normalization(*inputs, epsilon=attributes["epsilon"])
            case "RotaryEmbedding":
                return self._rotary_embedding(*inputs, heads=attributes["num_heads"])
        return super().op(op_type, *inputs, **attributes)

    def _rms_normalization(self, x: ir.Value, weight: ir.Value, epsilon: float) -> ir.Value:
        """x / √(mean(x²) + ε) · weight over the last axis, in float32."""
        square = self.op("Pow", x, self.constant(2, np.float32))
        mean = self.op("ReduceMean", square, self.constant([-1], np.int64), keepdims=1)
        length = self.op("Sqrt", self.op("Add", mean, self.constant(epsilon, np.float32)))
        unit = self.op("Mul", x, self.op("Div", self.constant(1, np.float32), length))
        return self.op("Mul", unit, weight)

    def _rotary_embedding(self, x: ir.Value, cos: ir.Value, sin: ir.Value, heads: int) -> ir.Value:
        """Rotate the halves of each head of x [1, T, H·d]; cos and sin of each token [1, T, d/2]."""
        x = self.op("Reshape", x, self.constant([0, 0, heads, -1], np.int64))
        first, second = self.op("Split", x, outputs=2, axis=-1, num_outputs=2)
        axis = self.constant([2], np.int64)
        cos, sin = (
            self.once(("every head", rows), lambda rows=rows: self.op("Unsqueeze", rows, axis)) for rows in (cos, sin)
        )
        left = self.op("Sub", self.op("Mul", first, cos), self.op("Mul", second, sin))
        right = self.op("Add", self.op("Mul", second, cos), self.op("Mul", first, sin))
        return self.op("Reshape", self.op("Concat", left, right, axis=-1), self.constant([0, 0, -1], np.int64))


class OpenVinoAttention:
    """Product, softmax, product: OpenVINO fuses them into one kernel that processes queries in blocks.

    The mask is additive. No query is masked, so the queries of a group can be treated as additional positions of a
    single head, and keys and values need not be repeated.
    """

    HIDDEN = -1e9  # far below any real score, so its softmax weight is 0 in float32

    def __init__(self, precision: Precision, config: TextConfig):
        self.precision = precision
        self.heads, self.kv_heads, self.dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim

    def prepare(self, graph: GraphBuilder, tokens) -> ir.Value:
        """0 for real keys, a large negative number for padding, [B, 1, 1, S]; computed once, shared by all layers."""
        p = self.precision
        real = graph.op("Cast", tokens.attention_mask, to=int(p.wide))
        hidden = graph.op("Mul", graph.op("Sub", p.scalar(graph, 1.0), real), p.scalar(graph, self.HIDDEN))
        return graph.op("Unsqueeze", hidden, graph.constant([1, 2], np.int64))

    def __call__(self, graph: GraphBuilder, q: ir.Value, k: ir.Value, v: ir.Value, mask: ir.Value) -> ir.Value:
        """q [B, S, H·d], k and v [B, S, K·d] -> [B, S, H·d]."""
        q = self._by_head(graph, q, self.heads)
        q = graph.op("Reshape", q, graph.constant([0, self.kv_heads, -1, self.dim], np.int64))  # [B, K, H/K·S, d]
        k, v = (self._by_head(graph, x, self.kv_heads) for x in (k, v))
        scores = graph.op("MatMul", q, graph.op("Transpose", k, perm=[0, 1, 3, 2]))
        scores = graph.op("Mul", scores, self.precision.scalar(graph, self.dim**-0.5, wide=False))
        weights = graph.op("Softmax", graph.op("Add", scores, mask), axis=-1)
        x = graph.op("MatMul", weights, v)
        x = graph.op("Reshape", x, graph.constant([0, self.heads, -1, self.dim], np.int64))
        x = graph.op("Transpose", x, perm=[0, 2, 1, 3])
        return graph.op("Reshape", x, graph.constant([0, 0, self.heads * self.dim], np.int64))

    def _by_head(self, graph: GraphBuilder, x: ir.Value, heads: int) -> ir.Value:
        """[B, S, heads·d] -> [B, heads, S, d]."""
        x = graph.op("Reshape", x, graph.constant([0, 0, heads, self.dim], np.int64))
        return graph.op("Transpose", x, perm=[0, 2, 1, 3])
