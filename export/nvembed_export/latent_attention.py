"""The latent-attention pooler (arXiv 2405.17428, section 3.1.2), fused by default, and the weighted mean.

Letters: B batch, S sequence, D hidden size, R latents, n cross heads, e cross_dim_head, P pooled tokens, F the width of
the feed-forward layer (4D in NVIDIA's code). x̂ is a row minus its mean, divided by its standard deviation: LayerNorm
without its affine part.

    h ← h + softmax(LN(h) Wqᵀ kᵀ / √e) v Woᵀ           k, v = LN(latents) Wkvᵀ, per head
    h ← h + (u ⊙ gelu(g)) W2ᵀ + b2                      u, g = halves of LN(h) W1ᵀ + b1

Neither k nor v depends on the input. So, for head i, Wqᵀ kᵀ / √e is a constant [D, R] and v Woᵀ a constant [R, D]; with
the norm's γ and β folded in, the scores are x̂ A + a and the update is softmax(scores) C. γ and β of the second norm
fold into W1 and b1 the same way. W2 is linear and commutes with the mean over tokens, so it is applied once per text.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from nvembed_export.checkpoint import BLOCK_BYTES, CROSS, FEED_FORWARD, POOLER, Checkpoint
from nvembed_export.config import ModelConfig
from nvembed_export.graph import GraphBuilder
from nvembed_export.precision import Precision
from nvembed_export.weights import Weight

LAYER_NORM_EPS = 1e-5  # torch's default, which NVIDIA's pooler uses


class Folding:
    """The constants of the fused form, computed in float64, one block of rows at a time.

    At the 7B size `to_kv` is [65536, 4096]. Only the block of one head, or `v` [R, n·e] and a block of `to_out` of the
    same size, is in memory: 134 MB each.
    """

    def __init__(self, checkpoint: Checkpoint, config: ModelConfig):
        latent = config.latent_attention
        self.checkpoint = checkpoint
        self.hidden, self.latents = config.text.hidden_size, latent.num_latents_value
        self.heads, self.head_dim = latent.num_cross_heads, latent.cross_dim_head
        self.width = latent.feed_forward_dim
        self._biases: dict[str, np.ndarray] = {}

    def scores_weight(self) -> Weight:
        """Aᵀ [n·R, D]: the rows of head i are k_i Wq_i / √e, with columns scaled by γ."""
        return Weight(f"{CROSS}.scores.weight", (self.heads * self.latents, self.hidden), self._scores_rows)

    def scores_bias(self) -> Weight:
        """a [n·R]: the contribution of the norm's β to the scores."""
        return self._bias(f"{CROSS}.scores.bias", self.heads * self.latents, self._scores_rows)

    def values_weight(self) -> Weight:
        """Cᵀ [D, n·R]: the columns of head i are Wo_i v_iᵀ."""
        return Weight(f"{CROSS}.values.weight", (self.hidden, self.heads * self.latents), self._values_rows)

    def feed_forward_weight(self) -> Weight:
        """W1 [2F, D] with columns scaled by the norm's γ."""
        return Weight(f"{FEED_FORWARD}.folded.weight", (2 * self.width, self.hidden), self._feed_forward_rows)

    def feed_forward_bias(self) -> Weight:
        """b1 + W1 β [2F]."""
        return self._bias(f"{FEED_FORWARD}.folded.bias", 2 * self.width, self._feed_forward_rows)

    def _bias(self, name: str, size: int, rows) -> Weight:
        """A bias is a by-product of the pass over its matrix; if that pass was not made yet, this makes it."""

        def make() -> np.ndarray:
            if name not in self._biases:
                for _ in rows():
                    pass
            return self._biases[name]

        return Weight.from_array(name, make, (size,))

    def _scores_rows(self) -> Iterator[np.ndarray]:
        """Aᵀ head by head, [R, D] each; the sum over e is taken in blocks of `to_q` and `to_kv` rows."""
        gamma, beta = self._vector(f"{CROSS}.norm.weight"), self._vector(f"{CROSS}.norm.bias")
        context, biases = self._context(), []
        for head in range(self.heads):
            block = np.zeros((self.latents, self.hidden))
            for start, stop in self._row_ranges(head * self.head_dim, (head + 1) * self.head_dim):
                wq, wk = self._rows(f"{CROSS}.fn.to_q.weight", start, stop), self._key_rows(start, stop)
                block += (context @ wk.T) @ wq
            block /= np.sqrt(self.head_dim)
            biases.append(block @ beta)
            yield block * gamma
        self._biases[f"{CROSS}.scores.bias"] = np.concatenate(biases)

    def _values_rows(self) -> Iterator[np.ndarray]:
        """Cᵀ in blocks of its D rows, each from whole rows of `to_out`, which are contiguous in the file."""
        cross, context = self.heads * self.head_dim, self._context()
        values = np.empty((self.latents, cross))
        for start, stop in self._row_ranges(0, cross):
            values[:, start:stop] = context @ self._value_rows(start, stop).T
        step = max(1, 4 * BLOCK_BYTES // (8 * cross))  # `to_out` has long rows; matrix products of few rows are slow
        for start in range(0, self.hidden, step):
            wo = self._rows(f"{CROSS}.fn.to_out.weight", start, min(start + step, self.hidden))
            heads = [slice(head * self.head_dim, (head + 1) * self.head_dim) for head in range(self.heads)]
            yield np.concatenate([wo[:, head] @ values[:, head].T for head in heads], axis=1)

    def _feed_forward_rows(self) -> Iterator[np.ndarray]:
        gamma, beta = self._vector(f"{FEED_FORWARD}.norm.weight"), self._vector(f"{FEED_FORWARD}.norm.bias")
        biases = []
        for block in self.checkpoint.row_blocks(f"{FEED_FORWARD}.fn.net.0.weight"):
            wide = block.astype(np.float64)
            biases.append(wide @ beta)
            yield wide * gamma
        b1 = self._vector(f"{FEED_FORWARD}.fn.net.0.bias")
        self._biases[f"{FEED_FORWARD}.folded.bias"] = b1 + np.concatenate(biases)

    def _context(self) -> np.ndarray:
        """LN(latents; norm_context) [R, D]."""
        latents = self.checkpoint.rows(f"{POOLER}.latents").astype(np.float64)
        centred = latents - latents.mean(axis=-1, keepdims=True)
        unit = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + LAYER_NORM_EPS)
        return unit * self._vector(f"{CROSS}.norm_context.weight") + self._vector(f"{CROSS}.norm_context.bias")

    def _key_rows(self, start: int, stop: int) -> np.ndarray:
        return self._rows(f"{CROSS}.fn.to_kv.weight", start, stop)

    def _value_rows(self, start: int, stop: int) -> np.ndarray:
        """Rows of the values, which follow the rows of the keys in `to_kv`."""
        cross = self.heads * self.head_dim
        return self._rows(f"{CROSS}.fn.to_kv.weight", cross + start, cross + stop)

    def _row_ranges(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        step = max(1, BLOCK_BYTES // (8 * self.hidden))
        return ((row, min(row + step, stop)) for row in range(start, stop, step))

    def _rows(self, name: str, start: int, stop: int) -> np.ndarray:
        return self.checkpoint.rows(name, start, stop).astype(np.float64)

    def _vector(self, name: str) -> np.ndarray:
        return self.checkpoint.rows(name).astype(np.float64)


def geglu(graph: GraphBuilder, x: ir.Value, half: int) -> ir.Value:
    """u ⊙ gelu(g), [B, S, 2F] -> [B, S, F]: value half u first, gate half g second; exact (erf) GELU."""
    u, g = graph.op("Split", x, graph.constant([half, half], np.int64), outputs=2, axis=-1)
    return graph.op("Mul", u, graph.op("Gelu", g, approximate="none"))


class FusedLatentAttention:
    """The pooler as two products with a softmax over blocks of R, and W2 applied once per text."""

    def __init__(self, checkpoint: Checkpoint, precision: Precision, config: ModelConfig):
        self.precision, self.hidden = precision, config.text.hidden_size
        self.heads, self.latents = config.latent_attention.num_cross_heads, config.latent_attention.num_latents_value
        self.width = config.latent_attention.feed_forward_dim
        folding = Folding(checkpoint, config)
        self.scores_weight, self.scores_bias = folding.scores_weight(), folding.scores_bias()
        self.values_weight = folding.values_weight()
        self.w1, self.b1 = folding.feed_forward_weight(), folding.feed_forward_bias()
        self.w2 = Weight.from_checkpoint(checkpoint, f"{FEED_FORWARD}.fn.net.2.weight")
        self.b2 = Weight.from_checkpoint(checkpoint, f"{FEED_FORWARD}.fn.net.2.bias")

    def __call__(self, graph: GraphBuilder, h: ir.Value, tokens) -> ir.Value:
        """Wide hidden states of tokens [B, S, D] or [1, P, D] -> wide mean [B, D], not normalised."""
        p = self.precision
        # LayerNormalization requires a scale. The norm's own scale is folded into the products that follow.
        ones = p.wide_weight(graph, Weight.from_array("ones", lambda: np.ones(self.hidden), (self.hidden,)))
        with graph.scope("cross_attend_blocks.0"):
            scores = p.widened(graph, p.linear(graph, self._unit_rows(graph, h, ones), self.scores_weight))
            scores = graph.op("Add", scores, p.wide_weight(graph, self.scores_bias))
            by_head = graph.constant([0, 0, self.heads, self.latents], np.int64)
            weights = graph.op("Softmax", graph.op("Reshape", scores, by_head), axis=-1)
            together = graph.constant([0, 0, self.heads * self.latents], np.int64)
            weights = p.narrowed(graph, graph.op("Reshape", weights, together))
            update = p.linear(graph, weights, self.values_weight, weights_of_mean=True)
            h = graph.op("Add", h, p.widened(graph, update))
        with graph.scope("cross_attend_blocks.1"):
            x = p.linear(graph, self._unit_rows(graph, h, ones), self.w1)
            x = graph.op("Add", x, p.narrow_weight(graph, self.b1))
            activations = p.widened(graph, geglu(graph, x, self.width))
        with graph.scope("mean"):
            mean = tokens.mean(graph)
            pooled = p.narrowed(graph, mean.of_activations(graph, activations))
            pooled = p.widened(graph, p.linear(graph, pooled, self.w2))
            pooled = graph.op("Add", pooled, p.wide_weight(graph, self.b2))
            return graph.op("Add", pooled, mean.of_hidden(graph, h))

    def _unit_rows(self, graph: GraphBuilder, h: ir.Value, ones: ir.Value) -> ir.Value:
        x = graph.op("LayerNormalization", h, ones, axis=-1, epsilon=LAYER_NORM_EPS, stash_type=1)
        return self.precision.narrowed(graph, x)


class DirectLatentAttention:
    """The pooler as published: slower, and the reference for the fused form."""

    def __init__(self, checkpoint: Checkpoint, precision: Precision, config: ModelConfig):
        latent = config.latent_attention
        self.precision, self.hidden = precision, config.text.hidden_size
        self.heads, self.head_dim, self.latents = (
            latent.num_cross_heads,
            latent.cross_dim_head,
            latent.num_latents_value,
        )
        self.width = latent.feed_forward_dim
        self.weight = lambda name: Weight.from_checkpoint(checkpoint, name)

    def __call__(self, graph: GraphBuilder, h: ir.Value, tokens) -> ir.Value:
        """Wide hidden states of tokens [B, S, D] or [1, P, D] -> wide mean [B, D], not normalised."""
        p = self.precision
        with graph.scope("cross_attend_blocks.0"):
            h = graph.op("Add", h, p.widened(graph, self._cross_attention(graph, h)))
        with graph.scope("cross_attend_blocks.1"):
            x = p.linear(
                graph, self._norm(graph, h, f"{FEED_FORWARD}.norm"), self.weight(f"{FEED_FORWARD}.fn.net.0.weight")
            )
            x = graph.op("Add", x, p.narrow_weight(graph, self.weight(f"{FEED_FORWARD}.fn.net.0.bias")))
            x = p.linear(graph, geglu(graph, x, self.width), self.weight(f"{FEED_FORWARD}.fn.net.2.weight"))
            x = graph.op("Add", x, p.narrow_weight(graph, self.weight(f"{FEED_FORWARD}.fn.net.2.bias")))
            h = graph.op("Add", h, p.widened(graph, x))
        with graph.scope("mean"):
            return tokens.mean(graph).of_hidden(graph, h)

    def _cross_attention(self, graph: GraphBuilder, h: ir.Value) -> ir.Value:
        """Cross-attention from every token to the R latents; k [n, e, R] and v [n, R, e] broadcast over the batch."""
        p, cross = self.precision, self.heads * self.head_dim
        latents = p.wide_weight(graph, self.weight(f"{POOLER}.latents"))
        context = self._norm(graph, latents, f"{CROSS}.norm_context")
        kv = p.linear(graph, context, self.weight(f"{CROSS}.fn.to_kv.weight"))
        k, v = graph.op("Split", kv, graph.constant([cross, cross], np.int64), outputs=2, axis=-1)
        by_head = graph.constant([self.latents, self.heads, self.head_dim], np.int64)
        k = graph.op("Transpose", graph.op("Reshape", k, by_head), perm=[1, 2, 0])
        v = graph.op("Transpose", graph.op("Reshape", v, by_head), perm=[1, 0, 2])
        q = p.linear(graph, self._norm(graph, h, f"{CROSS}.norm"), self.weight(f"{CROSS}.fn.to_q.weight"))
        q = graph.op("Reshape", q, graph.constant([0, 0, self.heads, self.head_dim], np.int64))
        # Scale before the product to keep fp16 scores small.
        q = graph.op("Mul", q, p.scalar(graph, self.head_dim**-0.5, wide=False))
        scores = p.widened(graph, graph.op("MatMul", graph.op("Transpose", q, perm=[0, 2, 1, 3]), k))
        weights = p.narrowed(graph, graph.op("Softmax", scores, axis=-1))
        x = graph.op("Transpose", graph.op("MatMul", weights, v), perm=[0, 2, 1, 3])
        x = graph.op("Reshape", x, graph.constant([0, 0, cross], np.int64))
        return p.linear(graph, x, self.weight(f"{CROSS}.fn.to_out.weight"))

    def _norm(self, graph: GraphBuilder, x: ir.Value, name: str) -> ir.Value:
        p = self.precision
        gamma, beta = (p.wide_weight(graph, self.weight(f"{name}.{part}")) for part in ("weight", "bias"))
        x = graph.op("LayerNormalization", x, gamma, beta, axis=-1, epsilon=LAYER_NORM_EPS, stash_type=1)
        return p.narrowed(graph, x)


POOLERS = {"fused": FusedLatentAttention, "direct": DirectLatentAttention}
