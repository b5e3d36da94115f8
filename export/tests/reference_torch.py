"""An independent reference: transformers' MistralModel with a bidirectional mask, and NVIDIA's pooler in torch.

Imports nothing from the exporter. Letters: B rows, S positions, D hidden size, R latents, n cross heads, e
cross_dim_head.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import MistralConfig, MistralModel


class ReferenceModel:
    """A checkpoint loaded into torch."""

    def __init__(self, checkpoint_dir, dtype=torch.float64):
        directory = Path(checkpoint_dir)
        config = json.loads((directory / "config.json").read_text())
        text, latent = config["text_config"], config.get("latent_attention_config", {})
        weights = {}
        for file in sorted(directory.glob("*.safetensors")):
            weights |= {name: tensor.to(dtype) for name, tensor in load_file(str(file)).items()}
        self.pooler = {k.removeprefix("latent_attention_model."): v for k, v in weights.items() if k.startswith("lat")}
        self.heads, self.head_dim = latent.get("num_cross_heads", 8), latent.get("cross_dim_head", 4096)
        self.normalize, self.dtype = latent.get("output_normalize", True), dtype
        keys = """hidden_size intermediate_size num_attention_heads num_hidden_layers num_key_value_heads head_dim
            rms_norm_eps vocab_size max_position_embeddings""".split()
        theta = text.get("rope_theta") or text["rope_parameters"]["rope_theta"]
        mistral = MistralConfig(
            **{key: text[key] for key in keys if text.get(key) is not None},
            rope_parameters={"rope_type": "default", "rope_theta": theta},
            sliding_window=None,
            attn_implementation="eager",
        )
        prefix = "embedding_model."
        with torch.device("meta"):  # allocates no weights; those loaded above are assigned below
            self.backbone = MistralModel(mistral)
        self.backbone.load_state_dict(
            {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)},
            strict=True,
            assign=True,
        )
        self.backbone.rotary_emb = type(self.backbone.rotary_emb)(mistral)
        self.backbone.eval()

    @torch.inference_mode()
    def embed(self, input_ids, attention_mask, pool_mask) -> np.ndarray:
        """[B, S] int arrays -> [B, D] float64."""
        ids, real, pooled = (torch.as_tensor(array) for array in (input_ids, attention_mask, pool_mask))
        hidden = self._latent_attention(self._hidden(ids, real.bool()))
        weights = pooled.to(self.dtype)[:, :, None]
        vectors = (hidden * weights).sum(1) / weights.sum(1)
        if self.normalize:
            vectors = torch.nn.functional.normalize(vectors, p=2, dim=-1)
        return vectors.double().numpy()

    def _hidden(self, ids, real):
        """Every query attends to every real key: an additive mask [B, 1, S, S], which transformers uses unchanged."""
        rows, width = ids.shape
        hidden_keys = ~real[:, None, None, :].expand(rows, 1, width, width)
        mask = torch.zeros(rows, 1, width, width, dtype=self.dtype)
        mask = mask.masked_fill(hidden_keys, torch.finfo(self.dtype).min)
        positions = torch.arange(width)[None].expand(rows, -1)
        output = self.backbone(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
        return output.last_hidden_state

    def _latent_attention(self, hidden):
        """PreNorm(Attention) and PreNorm(FeedForward) with residuals, as in NVIDIA's modeling code."""
        w, functional = self.pooler, torch.nn.functional

        def norm(x, name):
            return functional.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

        def by_head(x):  # [..., T, n*e] -> [..., n, T, e]
            return x.unflatten(-1, (self.heads, self.head_dim)).transpose(-2, -3)

        attention, feed_forward = "cross_attend_blocks.0", "cross_attend_blocks.1"
        q = by_head(norm(hidden, f"{attention}.norm") @ w[f"{attention}.fn.to_q.weight"].T)
        context = norm(w["latents"], f"{attention}.norm_context") @ w[f"{attention}.fn.to_kv.weight"].T
        k, v = (by_head(part) for part in context.chunk(2, dim=-1))
        weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(self.head_dim), dim=-1)
        out = (weights @ v).transpose(-2, -3).flatten(-2)
        hidden = out @ w[f"{attention}.fn.to_out.weight"].T + hidden
        x = functional.linear(
            norm(hidden, f"{feed_forward}.norm"),
            w[f"{feed_forward}.fn.net.0.weight"],
            w[f"{feed_forward}.fn.net.0.bias"],
        )
        value, gate = x.chunk(2, dim=-1)
        x = value * functional.gelu(gate)
        return hidden + functional.linear(x, w[f"{feed_forward}.fn.net.2.weight"], w[f"{feed_forward}.fn.net.2.bias"])
