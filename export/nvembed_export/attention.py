"""The attention operator in the forms that execution providers need.

Letters: B batch, S sequence, H query heads, K key/value heads, d head_dim. Every token attends to every real token of
its row and never to padding; scores are scaled by 1/√d.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from nvembed_export.config import TextConfig
from nvembed_export.graph import MICROSOFT, GraphBuilder
from nvembed_export.precision import Precision


class PortableAttention:
    """Opset 24's Attention with row lengths instead of a mask, the form for which CUDA has flash attention.

    ONNX Runtime's CPU kernel (1.32) stores all B·H·S² scores. TensorRT's parser drops the lengths silently.
    """

    def __init__(self, precision: Precision, config: TextConfig):
        self.heads = {"q_num_heads": config.num_attention_heads, "kv_num_heads": config.num_key_value_heads}

    def prepare(self, graph: GraphBuilder, tokens) -> ir.Value:
        """Number of real tokens per row, int64 [B]; computed once, shared by all layers."""
        return tokens.lengths(graph)

    def __call__(self, graph: GraphBuilder, q: ir.Value, k: ir.Value, v: ir.Value, lengths: ir.Value) -> ir.Value:
        """q [B, S, H·d], k and v [B, S, K·d] -> [B, S, H·d], all narrow."""
        mask = past_key = past_value = None
        return graph.op("Attention", q, k, v, mask, past_key, past_value, lengths, is_causal=0, **self.heads)


class MaskedAttention:
    """Opset 23's Attention with a bool mask [B, 1, S, S], for TensorRT, whose parser ignores row lengths.

    TensorRT wants the mask's query dimension in full ([B, 1, 1, S] would do by ONNX).
    """

    def __init__(self, precision: Precision, config: TextConfig):
        self.heads = {"q_num_heads": config.num_attention_heads, "kv_num_heads": config.num_key_value_heads}

    def prepare(self, graph: GraphBuilder, tokens) -> ir.Value:
        """True where the key is a real token, bool [B, 1, S, S]; computed once, shared by all layers.

        Every query attends, also one that is padding. A factor that is true for each query gives the dimension its
        size without a `Shape` operator.
        """
        mask = tokens.attention_mask
        keys = graph.op("Cast", mask, to=int(ir.DataType.BOOL))
        queries = graph.op("Cast", graph.op("Add", mask, graph.constant([1], np.int64)), to=int(ir.DataType.BOOL))
        keys = graph.op("Unsqueeze", keys, graph.constant([1, 2], np.int64))
        return graph.op("And", graph.op("Unsqueeze", queries, graph.constant([1, 3], np.int64)), keys)

    def __call__(self, graph: GraphBuilder, q: ir.Value, k: ir.Value, v: ir.Value, mask: ir.Value) -> ir.Value:
        """q [B, S, H·d], k and v [B, S, K·d] -> [B, S, H·d], all narrow."""
        return graph.op("Attention", q, k, v, mask, is_causal=0, **self.heads)


class CpuAttention:
    """ONNX Runtime's MultiHeadAttention, whose CPU kernel processes keys in blocks (arXiv 2205.14135).

    That kernel is used only for float32 without a mask, so padding is masked inside the vectors: each head gets one
    extra dimension that is 1 in queries, 0 in real keys and a large negative number in padding keys. It does not change
    the score of a real key, and lowers that of a padding key so far that its weight is exactly 0. Keys and values are
    repeated for the queries of their group, which costs memory linear in S.
    """

    HIDDEN = -1e9  # even times 1/√d far below any real score, so its softmax weight is 0 in float32

    def __init__(self, precision: Precision, config: TextConfig):
        self.precision = precision
        self.heads, self.kv_heads, self.dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim

    def prepare(self, graph: GraphBuilder, tokens) -> tuple[ir.Value, ir.Value]:
        """The extra dimension of queries and of keys, wide [B, S, H, 1]; computed once, shared by all layers."""
        p = self.precision
        real = graph.op("Cast", tokens.attention_mask, to=int(p.wide))
        real = graph.op("Reshape", real, graph.constant([0, 0, 1, 1], np.int64))
        real = graph.op("Expand", real, graph.constant([1, 1, self.heads, 1], np.int64))
        padding = graph.op("Sub", p.scalar(graph, 1.0), real)
        return graph.op("Add", real, padding), graph.op("Mul", padding, p.scalar(graph, self.HIDDEN))

    def __call__(self, graph: GraphBuilder, q: ir.Value, k: ir.Value, v: ir.Value, additional) -> ir.Value:
        """q [B, S, H·d], k and v [B, S, K·d] -> [B, S, H·d], all narrow; computed in the wide dtype."""
        p, (ones, hidden) = self.precision, additional
        q = graph.op("Reshape", p.widened(graph, q), graph.constant([0, 0, self.heads, self.dim], np.int64))
        k, v = (self._repeated(graph, p.widened(graph, x)) for x in (k, v))
        q = self._flat(graph, graph.op("Concat", q, ones, axis=3), self.dim + 1)
        k = self._flat(graph, graph.op("Concat", k, hidden, axis=3), self.dim + 1)
        v = self._flat(graph, v, self.dim)
        scale = self.dim**-0.5  # without the extra dimension
        x = graph.op("MultiHeadAttention", q, k, v, domain=MICROSOFT, num_heads=self.heads, scale=scale)
        return p.narrowed(graph, x)

    def _repeated(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        """[B, S, K·d] -> [B, S, H, d]: each key/value head repeated for the query heads of its group."""
        group = self.heads // self.kv_heads
        x = graph.op("Reshape", x, graph.constant([0, 0, self.kv_heads, 1, self.dim], np.int64))
        x = graph.op("Expand", x, graph.constant([1, 1, 1, group, 1], np.int64))
        return graph.op("Reshape", x, graph.constant([0, 0, self.heads, self.dim], np.int64))

    def _flat(self, graph: GraphBuilder, x: ir.Value, dim: int) -> ir.Value:
        return graph.op("Reshape", x, graph.constant([0, 0, self.heads * dim], np.int64))
