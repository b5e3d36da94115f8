"""NV-Embed as an ONNX graph. Classes and attributes have the names used in the checkpoint.

Letters: B batch, S sequence, D hidden size, H query heads, K key/value heads, d head_dim, P pooled tokens. Sources:
Mistral 7B (arXiv 2310.06825) for the layers, NV-Embed (arXiv 2405.17428) for bidirectional attention and the pooler.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from nvembed_export.checkpoint import BACKBONE, Checkpoint
from nvembed_export.config import ModelConfig, TextConfig
from nvembed_export.external_data import ExternalData
from nvembed_export.graph import GraphBuilder
from nvembed_export.latent_attention import POOLERS
from nvembed_export.precision import Precision
from nvembed_export.targets import Target
from nvembed_export.weights import Weight

MIN_LENGTH = 1e-12  # eps of torch.nn.functional.normalize


class Linear:
    """y = x Wᵀ without bias; x and y are narrow."""

    def __init__(self, checkpoint: Checkpoint, precision: Precision, name: str):
        self.weight, self.precision = Weight.from_checkpoint(checkpoint, f"{name}.weight"), precision

    def __call__(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        return self.precision.linear(graph, x, self.weight)


class RotaryEmbedding:
    """Rotates the two halves of each head by position · theta^(-2i/d) (arXiv 2104.09864, rotate-half layout)."""

    def __init__(self, precision: Precision, config: TextConfig, max_length: int):
        self.precision, self.config, self.max_length = precision, config, max_length

    def angles(self) -> np.ndarray:
        """Angles, float64 [max_length, d/2]: position times the frequency of each pair."""
        half = np.arange(0, self.config.head_dim, 2, dtype=np.float64)
        frequencies = self.config.rope_theta ** (-half / self.config.head_dim)
        return np.outer(np.arange(self.max_length, dtype=np.float64), frequencies)

    def tables(self, graph: GraphBuilder) -> tuple[ir.Value, ir.Value]:
        """cos and sin, narrow [max_length, d/2] each; stored once, shared by all layers."""
        shape = (self.max_length, self.config.head_dim // 2)
        cos = Weight.from_array("rotary_emb.cos", lambda: np.cos(self.angles()), shape)
        sin = Weight.from_array("rotary_emb.sin", lambda: np.sin(self.angles()), shape)
        return self.precision.narrow_weight(graph, cos), self.precision.narrow_weight(graph, sin)


class SelfAttention:
    """Grouped-query attention in which every token attends to every real token of its row."""

    def __init__(self, checkpoint: Checkpoint, precision: Precision, name: str, config: TextConfig, attention):
        self.q_proj = Linear(checkpoint, precision, f"{name}.q_proj")
        self.k_proj = Linear(checkpoint, precision, f"{name}.k_proj")
        self.v_proj = Linear(checkpoint, precision, f"{name}.v_proj")
        self.o_proj = Linear(checkpoint, precision, f"{name}.o_proj")
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.attention = attention

    def __call__(self, graph: GraphBuilder, x: ir.Value, rotary, tokens, real, kept) -> ir.Value:
        q, k, v = self.q_proj(graph, x), self.k_proj(graph, x), self.v_proj(graph, x)
        q = graph.op("RotaryEmbedding", q, *rotary, num_heads=self.heads)
        k = graph.op("RotaryEmbedding", k, *rotary, num_heads=self.kv_heads)
        x = self.attention(graph, *(tokens.to_rows(graph, x) for x in (q, k, v)), real)
        return self.o_proj(graph, kept(graph, tokens.from_rows(graph, x)))


class MLP:
    """SwiGLU (arXiv 2002.05202): down(silu(gate x) ⊙ up x)."""

    def __init__(self, checkpoint: Checkpoint, precision: Precision, name: str, target: Target):
        self.precision, self.silu = precision, target.silu
        self.gate_proj = Linear(checkpoint, precision, f"{name}.gate_proj")
        self.up_proj = Linear(checkpoint, precision, f"{name}.up_proj")
        self.down_proj = Linear(checkpoint, precision, f"{name}.down_proj")

    def __call__(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        gate, up = self.gate_proj(graph, x), self.up_proj(graph, x)
        return self.down_proj(graph, graph.op("Mul", self.silu(graph, self.precision, gate), up))


class DecoderLayer:
    """Pre-norm layer: x + attention(norm x), then x + mlp(norm x); x is the wide residual stream [B, S, D]."""

    def __init__(
        self, checkpoint: Checkpoint, precision: Precision, name: str, config: TextConfig, target: Target, attention
    ):
        norm, eps = target.norm, config.rms_norm_eps
        self.precision = precision
        self.input_layernorm = norm(checkpoint, precision, f"{name}.input_layernorm", eps)
        self.self_attn = SelfAttention(checkpoint, precision, f"{name}.self_attn", config, attention)
        self.post_attention_layernorm = norm(checkpoint, precision, f"{name}.post_attention_layernorm", eps)
        self.mlp = MLP(checkpoint, precision, f"{name}.mlp", target)

    def __call__(self, graph: GraphBuilder, x: ir.Value, *attention_inputs, kept) -> ir.Value:
        """`kept` selects the tokens that are still needed after this layer's attention."""
        widened = self.precision.widened
        with graph.scope("self_attn"):
            y = self.self_attn(graph, self.input_layernorm.narrowed(graph, x), *attention_inputs, kept)
            x = graph.op("Add", kept(graph, x), widened(graph, y))
        with graph.scope("mlp"):
            y = self.mlp(graph, self.post_attention_layernorm.narrowed(graph, x))
            return graph.op("Add", x, widened(graph, y))


class MistralModel:
    """The backbone: tokens -> wide hidden states, [B, S, D] of all positions or [1, P, D] of pooled tokens only."""

    def __init__(
        self, checkpoint: Checkpoint, precision: Precision, config: TextConfig, max_length: int, target: Target
    ):
        self.precision = precision
        self.attention = target.attention(precision, config)
        self.embed_tokens = Weight.from_checkpoint(checkpoint, f"{BACKBONE}.embed_tokens.weight")
        self.rotary_emb = RotaryEmbedding(precision, config, max_length)
        self.layers = [
            DecoderLayer(checkpoint, precision, f"{BACKBONE}.layers.{index}", config, target, self.attention)
            for index in range(config.num_hidden_layers)
        ]
        self.norm = target.norm(checkpoint, precision, f"{BACKBONE}.norm", config.rms_norm_eps)

    def __call__(self, graph: GraphBuilder, tokens) -> ir.Value:
        real = self.attention.prepare(graph, tokens)
        rotary = tokens.rotary(graph, *self.rotary_emb.tables(graph))
        x = self.precision.embedding(graph, self.embed_tokens, tokens.ids)
        for index, layer in enumerate(self.layers):
            kept = tokens.pooled if index == len(self.layers) - 1 else everything
            with graph.scope(f"layers.{index}"):
                x = layer(graph, x, rotary, tokens, real, kept=kept)
        return self.norm(graph, x)


def everything(graph: GraphBuilder, x: ir.Value) -> ir.Value:
    """Select all tokens."""
    return x


class NVEmbedModel:
    """The inputs of the target's tokens -> embeddings [B, D]."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        precision: Precision,
        config: ModelConfig,
        max_length: int,
        pooler: str,
        target: Target,
    ):
        self.precision, self.config, self.tokens = precision, config, target.tokens
        self.vector_length = target.vector_length
        self.embedding_model = MistralModel(checkpoint, precision, config.text, max_length, target)
        self.latent_attention_model = POOLERS[pooler](checkpoint, precision, config)

    def __call__(self, graph: GraphBuilder, inputs: dict[str, ir.Value]) -> ir.Value:
        with graph.scope("embedding_model"):
            tokens = self.tokens(graph, self.precision, **inputs)
            hidden = self.embedding_model(graph, tokens)
        with graph.scope("latent_attention_model"):
            pooled = self.latent_attention_model(graph, hidden, tokens)
        if self.config.latent_attention.output_normalize:
            with graph.scope("normalize"):
                length = self.vector_length(graph, pooled)
                length = graph.op("Max", length, self.precision.scalar(graph, MIN_LENGTH))
                pooled = graph.op("Div", pooled, length)
        return self.precision.finished(graph, pooled)


def build_model(
    checkpoint: Checkpoint, config: ModelConfig, precision: Precision, max_length: int, pooler: str, target: Target
) -> tuple[onnx.ModelProto, ExternalData]:
    """The graph and the layout of its data file. Does not read any weights."""
    graph = target.builder("nv-embed")
    int64 = ir.TensorType(ir.DataType.INT64)
    inputs = {
        name: ir.Value(name=name, shape=ir.Shape(dims), type=int64) for name, dims in target.tokens.INPUTS.items()
    }
    model = NVEmbedModel(checkpoint, precision, config, max_length, pooler, target)
    embeddings = model(graph, inputs)
    embeddings.name = "embeddings"
    embeddings.shape = ir.Shape(["batch", config.text.hidden_size])
    embeddings.type = ir.TensorType(precision.output)
    return graph.model(list(inputs.values()), [embeddings]), graph.data
