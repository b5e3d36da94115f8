"""golden.json: reference embeddings of a few texts, computed in float64 from the unfused formulas.

Shares only the checkpoint reader with the graph and its folded weights, so that neither can hide the other's mistakes.
Rows are concatenated to [T, D] for T tokens in total, so that each weight is read once; only attention is computed per
row. Memory: [T, 2F] for a feed-forward layer of width F and a block of one weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from nvembed_export.checkpoint import BACKBONE, CROSS, FEED_FORWARD, POOLER, Checkpoint
from nvembed_export.config import ModelConfig
from nvembed_export.golden_texts import GOLDEN_TEXTS

REFERENCE = "numpy float64, unfused pooler"
LAYER_NORM_EPS = 1e-5
Observer = Callable[[str, np.ndarray], None]
_erf = np.frompyfunc(math.erf, 1, 1)  # numpy has no erf


def ignore(name: str, x: np.ndarray) -> None:
    """Observes nothing."""


@dataclass(frozen=True)
class _Source:
    """Where the weights are, and who looks at what they are multiplied with."""

    checkpoint: Checkpoint
    observe: Observer


def golden_document(
    checkpoint: Checkpoint,
    config: ModelConfig,
    tokenizer: Tokenizer,
    max_length: int,
    progress: Callable[[str], None],
    observe: Observer = ignore,
) -> dict:
    """The content of golden.json. Omits texts whose instruction leaves no token to pool within `max_length`."""
    rows = [tokenize(tokenizer, instruction, text, max_length) for instruction, text in GOLDEN_TEXTS]
    usable = [index for index, (ids, skipped) in enumerate(rows) if skipped < len(ids)]
    vectors = reference_embeddings(checkpoint, config, [rows[index] for index in usable], progress, observe)
    return {
        "schema_version": 1,
        "reference": REFERENCE,
        "rows": [
            {
                "instruction": GOLDEN_TEXTS[index][0],
                "text": GOLDEN_TEXTS[index][1],
                "input_ids": rows[index][0],
                "instruction_tokens": rows[index][1],
                # The shortest decimal that parses to the same float32.
                "embedding": [float(str(value)) for value in vector.astype(np.float32)],
            }
            for index, vector in zip(usable, vectors, strict=True)
        ],
    }


def tokenize(tokenizer: Tokenizer, instruction: str, text: str, max_length: int) -> tuple[list[int], int]:
    """Token ids of instruction + text + `</s>`, truncated on the right, and the number of leading ids not pooled.

    That number is NVIDIA's: the tokens of the instruction tokenized alone, without `<s>`. In the full text it covers
    `<s>` and the instruction without its trailing space.
    """
    ids = tokenizer.encode(instruction + text + "</s>").ids[:max_length]
    skipped = len(tokenizer.encode(instruction, add_special_tokens=False).ids) if instruction else 0
    return ids, skipped


def reference_embeddings(
    checkpoint: Checkpoint,
    config: ModelConfig,
    rows: list[tuple[list[int], int]],
    progress: Callable[[str], None] = lambda _: None,
    observe: Observer = ignore,
) -> np.ndarray:
    """Embeddings of (token ids, number of leading positions not pooled) rows, float64 [rows, D].

    `observe` gets the name of each weight and what it is multiplied with, [T, in]; of the scale of a LayerNorm too.
    """
    source, lengths = _Source(checkpoint, observe), [len(ids) for ids, _ in rows]
    hidden = _backbone(source, config, np.concatenate([ids for ids, _ in rows]), lengths, progress)
    progress("pooler")
    hidden = _latent_attention(source, config, hidden)
    vectors = []
    for row, (_, skipped) in zip(_split(hidden, lengths), rows, strict=True):
        vector = row[skipped:].mean(axis=0)
        if config.latent_attention.output_normalize:
            vector = vector / max(np.linalg.norm(vector), 1e-12)
        vectors.append(vector)
    return np.stack(vectors)


def _backbone(source, config, ids: np.ndarray, lengths: list[int], progress) -> np.ndarray:
    """Mistral's layers (arXiv 2310.06825) without a causal mask: ids [T] -> [T, D]."""
    text = config.text
    heads, kv_heads, dim = text.num_attention_heads, text.num_key_value_heads, text.head_dim
    table = f"{BACKBONE}.embed_tokens.weight"
    x = np.concatenate([source.checkpoint.rows(table, id, id + 1) for id in ids.tolist()]).astype(np.float64)
    positions = np.concatenate([np.arange(length) for length in lengths])
    for index in range(text.num_hidden_layers):
        layer = f"{BACKBONE}.layers.{index}"
        progress(f"layer {index + 1}/{text.num_hidden_layers}")
        y = _rms_norm(source, f"{layer}.input_layernorm", x, text.rms_norm_eps)
        q, k, v = (
            _linear(source, f"{layer}.self_attn.{name}_proj", y).reshape(len(x), count, dim)
            for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads))
        )
        q, k = (_rotate(part, positions, text.rope_theta) for part in (q, k))
        parts = zip(_split(q, lengths), _split(k, lengths), _split(v, lengths), strict=True)
        y = np.concatenate([_attend(*part, heads // kv_heads) for part in parts])
        x = x + _linear(source, f"{layer}.self_attn.o_proj", y)
        y = _rms_norm(source, f"{layer}.post_attention_layernorm", x, text.rms_norm_eps)
        gate, up = (_linear(source, f"{layer}.mlp.{name}_proj", y) for name in ("gate", "up"))
        x = x + _linear(source, f"{layer}.mlp.down_proj", gate / (1 + np.exp(-gate)) * up)
    return _rms_norm(source, f"{BACKBONE}.norm", x, text.rms_norm_eps)


def _rotate(x: np.ndarray, positions: np.ndarray, theta: float) -> np.ndarray:
    """Rotary embedding (arXiv 2104.09864) of [T, heads, d]: entries i and i + d/2 form a complex number."""
    half = x.shape[-1] // 2
    angles = positions[:, None] * theta ** (-np.arange(half) / half)
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)[:, None, :]
    return np.concatenate([turned.real, turned.imag], axis=-1)


def _attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, group: int) -> np.ndarray:
    """q [S, H, d], k and v [S, H/group, d] of one row -> [S, H·d]; every token attends to every other."""
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    weights = _softmax(np.einsum("qhd,khd->hqk", q, k) / math.sqrt(q.shape[-1]))
    return np.einsum("hqk,khd->qhd", weights, v).reshape(len(q), -1)


def _latent_attention(source, config, hidden: np.ndarray) -> np.ndarray:
    """Cross-attention to the latents, then GEGLU, both with residuals (arXiv 2405.17428): [T, D] -> [T, D]."""
    latent = config.latent_attention
    dim, cross = latent.cross_dim_head, latent.num_cross_heads * latent.cross_dim_head
    context = _layer_norm(source, f"{CROSS}.norm_context", _float64(source, f"{POOLER}.latents"))
    queries = _linear(source, f"{CROSS}.fn.to_q", _layer_norm(source, f"{CROSS}.norm", hidden))
    keys_and_values = _linear(source, f"{CROSS}.fn.to_kv", context)
    keys, values = keys_and_values[:, :cross], keys_and_values[:, cross:]
    attended = np.empty_like(queries)
    for start in range(0, cross, dim):
        head = slice(start, start + dim)
        weights = _softmax(queries[:, head] @ keys[:, head].T / math.sqrt(dim))
        attended[:, head] = weights @ values[:, head]
    hidden = hidden + _linear(source, f"{CROSS}.fn.to_out", attended)
    wide = _layer_norm(source, f"{FEED_FORWARD}.norm", hidden)
    wide = _linear(source, f"{FEED_FORWARD}.fn.net.0", wide) + _float64(source, f"{FEED_FORWARD}.fn.net.0.bias")
    value, gate = np.split(wide, 2, axis=-1)
    gelu = gate * (1 + _erf(gate / math.sqrt(2)).astype(np.float64)) / 2
    bias = _float64(source, f"{FEED_FORWARD}.fn.net.2.bias")
    return hidden + _linear(source, f"{FEED_FORWARD}.fn.net.2", value * gelu) + bias


def _linear(source: _Source, name: str, x: np.ndarray) -> np.ndarray:
    """x Wᵀ, [T, in] -> [T, out]; W is read in blocks of rows."""
    source.observe(f"{name}.weight", x)
    blocks = source.checkpoint.row_blocks(f"{name}.weight")
    return np.concatenate([x @ block.astype(np.float64).T for block in blocks], axis=-1)


def _rms_norm(source: _Source, name: str, x: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * _float64(source, f"{name}.weight")


def _layer_norm(source: _Source, name: str, x: np.ndarray) -> np.ndarray:
    unit = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + LAYER_NORM_EPS)
    source.observe(f"{name}.weight", unit)
    return unit * _float64(source, f"{name}.weight") + _float64(source, f"{name}.bias")


def _softmax(scores: np.ndarray) -> np.ndarray:
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def _split(x: np.ndarray, lengths: list[int]) -> list[np.ndarray]:
    return np.split(x, np.cumsum(lengths)[:-1])


def _float64(source: _Source, name: str) -> np.ndarray:
    return source.checkpoint.rows(name).astype(np.float64)
