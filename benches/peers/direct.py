"""The model as NVIDIA's code computes it, in PyTorch: transformers' Mistral layers without a causal mask, and latent
attention per token with nothing folded.

Where there was a choice, this takes the faster one: no mask if there is no padding, `scaled_dot_product_attention` if
the process selects it, and the latents' keys and values once per call (NVIDIA's code repeats the latents for every row
and computes them B times). With `keep_latents` they are computed once and kept, which NVIDIA's code does not do but a
server could. `part="backbone"` is the mean of the last hidden states, without latent attention.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "export" / "tests"))

import torch
from reference_torch import ReferenceModel
from torch import nn
from torch.nn import functional


class Direct(nn.Module):
    """input_ids, attention_mask, pool_mask, int64 [B, S] -> unit rows [B, D], float32."""

    def __init__(self, checkpoint: Path, dtype=torch.float32, part: str = "full", keep_latents: bool = False):
        super().__init__()
        loaded = ReferenceModel(checkpoint, dtype)  # its weights only; the computation is below
        self.backbone, self.heads, self.part = loaded.backbone, loaded.heads, part
        for layer in self.backbone.layers:
            layer.self_attn.is_causal = False
        if part == "full":
            for name, tensor in loaded.pooler.items():
                self.register_buffer(self._attribute(name), tensor)
        self.kept = self._keys_values() if keep_latents and part == "full" else None
        self.eval().requires_grad_(False)

    def attention(self, implementation: str) -> None:
        """Select transformers' "eager" or "sdpa" attention; the latent attention uses the same."""
        self.backbone.config._attn_implementation = implementation

    def forward(self, input_ids, attention_mask, pool_mask, padded: bool = True):
        """`padded`: whether any row is shorter than S. If not, no mask is needed."""
        hidden = self._layers(input_ids, attention_mask, padded)
        if self.part == "full":
            hidden = self._latent_attention(hidden)
        weights = pool_mask.to(torch.float32)[:, :, None]
        mean = (hidden.float() * weights).sum(1) / weights.sum(1)
        return functional.normalize(mean, p=2.0, dim=-1)

    def _layers(self, input_ids, attention_mask, padded):
        backbone = self.backbone
        hidden = backbone.embed_tokens(input_ids)
        mask = None
        if padded:  # [B, 1, S, S], which every implementation accepts
            seen = (attention_mask != 0)[:, None, None, :].expand(-1, 1, input_ids.shape[1], -1)
            least = torch.finfo(hidden.dtype).min
            mask = torch.zeros_like(seen, dtype=hidden.dtype).masked_fill(~seen, least)
        positions = torch.arange(input_ids.shape[1])[None]
        rotary = backbone.rotary_emb(hidden, positions)
        for layer in backbone.layers:
            found = layer(hidden, attention_mask=mask, position_embeddings=rotary, use_cache=False)
            hidden = found if isinstance(found, torch.Tensor) else found[0]
        return backbone.norm(hidden)

    def _latent_attention(self, hidden):
        """PreNorm(Attention) and PreNorm(FeedForward), each with a residual."""
        first, second = "cross_attend_blocks.0", "cross_attend_blocks.1"
        keys, values = self.kept if self.kept is not None else self._keys_values()
        queries = functional.linear(self._norm(hidden, f"{first}.norm"), self._weight(f"{first}.fn.to_q.weight"))
        queries = queries.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        rows = hidden.shape[0]
        if self.backbone.config._attn_implementation == "sdpa":
            states = functional.scaled_dot_product_attention(
                queries, keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1)
            )
        else:
            scores = queries @ keys.transpose(-1, -2) * keys.shape[-1] ** -0.5
            states = torch.softmax(scores, dim=-1) @ values
        states = states.transpose(1, 2).flatten(-2)
        hidden = functional.linear(states, self._weight(f"{first}.fn.to_out.weight")) + hidden
        inner = self._linear(self._norm(hidden, f"{second}.norm"), f"{second}.fn.net.0")
        value, gate = inner.chunk(2, dim=-1)
        return self._linear(value * functional.gelu(gate), f"{second}.fn.net.2") + hidden

    def _keys_values(self):
        """Keys and values of the latents, [1, heads, latents, head dimension] each."""
        block = "cross_attend_blocks.0"
        context = self._norm(self._weight("latents"), f"{block}.norm_context")
        both = functional.linear(context, self._weight(f"{block}.fn.to_kv.weight"))
        return tuple(x.unflatten(-1, (self.heads, -1)).transpose(0, 1)[None] for x in both.chunk(2, dim=-1))

    @staticmethod
    def _attribute(name):
        return name.replace(".", "_")

    def _weight(self, name):
        return getattr(self, self._attribute(name))

    def _norm(self, x, name):
        return functional.layer_norm(
            x, x.shape[-1:], self._weight(f"{name}.weight"), self._weight(f"{name}.bias"), 1e-5
        )

    def _linear(self, x, name):
        return functional.linear(x, self._weight(f"{name}.weight"), self._weight(f"{name}.bias"))
