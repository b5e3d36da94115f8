"""Measure the expected figures with PyTorch, from the checkpoint itself: no ONNX, no Rust, no exporter code.

    python tests/eval/reference.py [--model models/nv-embed-mini]            # print
    python tests/eval/reference.py [--model models/nv-embed-mini] --write    # and write expected.json

The backbone is transformers' MistralModel under a mask that hides padding only; the pooler is the direct (unfused) form.
Everything runs in float32. Run `make.py --local` first: expected.json holds the figures of every set.
Needs torch, transformers, tokenizers, safetensors and numpy.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
import tokenizers
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file
from score import EXPECTED, HERE, SETS, available, digest, evaluate
from transformers import MistralConfig, MistralModel

MAX_LENGTH = 4096
TOKENS_PER_BATCH = 8192
MASK_OFFSET = torch.finfo(torch.float32).min

# How far an embedding may be from the reference, as ‖e - reference‖ for unit vectors, and why.
NOISE = {
    "fp32": (1e-4, "float32 sums in another order: the program on a CPU was 7.4e-7 away; room for other backends"),
    "fp16": (2e-3, "float16 weights and activations: the program on a CPU was 3.7e-4 away; room for other backends"),
}
NOISE_SEEDS = 20


class Reference:
    def __init__(self, folder):
        config = json.loads((folder / "config.json").read_text("utf-8"))
        weights = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
        self.backbone = self.load_backbone(config["text_config"], weights)
        self.pooler = {k.split(".", 1)[1]: v for k, v in weights.items() if k.startswith("latent_attention_model.")}
        latent = config["latent_attention_config"]
        self.heads, self.head_dim = latent["num_cross_heads"], latent["cross_dim_head"]
        self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MAX_LENGTH)

    @staticmethod
    def load_backbone(text, weights):
        taken = ["hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "num_key_value_heads"]
        taken += ["rms_norm_eps", "vocab_size", "max_position_embeddings", "hidden_act"]
        config = MistralConfig(
            **{key: text[key] for key in taken},
            rope_parameters={"rope_type": "default", "rope_theta": text["rope_theta"]},
            sliding_window=None,
            attn_implementation="eager",
        )
        model = MistralModel(config).eval()
        prefix = "embedding_model."
        model.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
        return model

    def pool(self, hidden, pool_mask):
        """Latent attention, then the mean of the rows under `pool_mask`, at length 1: [B, S, D] -> [B, D]."""
        w = self.pooler
        block = "cross_attend_blocks.0"

        def norm(x, name):
            return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

        def split_heads(x):
            return x.unflatten(-1, (self.heads, self.head_dim)).transpose(-3, -2)

        q = split_heads(norm(hidden, f"{block}.norm") @ w[f"{block}.fn.to_q.weight"].T)
        kv = norm(w["latents"], f"{block}.norm_context") @ w[f"{block}.fn.to_kv.weight"].T
        k, v = (split_heads(x) for x in kv.chunk(2, -1))
        attended = (q @ k.transpose(-1, -2) / math.sqrt(self.head_dim)).softmax(-1) @ v
        hidden = hidden + attended.transpose(-3, -2).flatten(-2) @ w[f"{block}.fn.to_out.weight"].T
        block = "cross_attend_blocks.1"
        wide = F.linear(norm(hidden, f"{block}.norm"), w[f"{block}.fn.net.0.weight"], w[f"{block}.fn.net.0.bias"])
        value, gate = wide.chunk(2, -1)
        hidden = hidden + F.linear(value * F.gelu(gate), w[f"{block}.fn.net.2.weight"], w[f"{block}.fn.net.2.bias"])
        weight = pool_mask[..., None].float()
        return F.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1)

    def batch(self, rows):
        """`rows` of (ids, instruction length) -> unit embeddings [B, D]."""
        length = max(len(ids) for ids, _ in rows)
        input_ids = torch.full((len(rows), length), 2)
        attention_mask = torch.zeros((len(rows), length), dtype=torch.bool)
        pool_mask = attention_mask.clone()
        for r, (ids, skipped) in enumerate(rows):
            input_ids[r, : len(ids)] = torch.tensor(ids)
            attention_mask[r, : len(ids)] = True
            pool_mask[r, skipped : len(ids)] = True
        # A four-dimensional mask is used as it is: this is what makes the backbone bidirectional.
        mask = torch.zeros(len(rows), 1, length, length).masked_fill(~attention_mask[:, None, None, :], MASK_OFFSET)
        positions = torch.arange(length).expand(len(rows), -1)
        output = self.backbone(input_ids=input_ids, attention_mask=mask, position_ids=positions, use_cache=False)
        return self.pool(output.last_hidden_state, pool_mask)

    @torch.inference_mode()
    def embed(self, requests):
        """A list of (instruction, text) -> float32 [N, D], in order."""
        rows = []
        for instruction, text in requests:
            ids = self.tokenizer.encode(instruction + text + "</s>").ids
            skipped = len(self.tokenizer.encode(instruction, add_special_tokens=False).ids) if instruction else 0
            rows.append((ids, skipped))
        out = None
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i][0]))
        while order:
            size = max(1, TOKENS_PER_BATCH // len(rows[order[0]][0]))
            chosen, order = order[:size], order[size:]
            embeddings = self.batch([rows[i] for i in chosen]).numpy()
            out = np.empty((len(rows), embeddings.shape[1]), np.float32) if out is None else out
            out[chosen] = embeddings
        return out


def largest_move(sets, embeddings, figures, distance):
    """The most any figure moves when every embedding is put `distance` away from where it is, over some seeds."""
    most = 0.0
    for seed in range(NOISE_SEEDS):
        noise = np.random.default_rng(seed).standard_normal(embeddings.shape)
        noise *= distance / np.linalg.norm(noise, axis=1, keepdims=True)
        moved = embeddings + noise
        moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        for name, metrics in evaluate(sets, lambda _, moved=moved: moved).items():
            most = max(most, *(abs(value - figures[name][metric]) for metric, value in metrics.items()))
    return most


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=HERE.parents[1] / "models" / "nv-embed-mini")
    parser.add_argument("--write", action="store_true", help="write expected.json")
    args = parser.parse_args()

    sets = available()
    if args.write and len(sets) != len(SETS):
        sys.exit("expected.json needs every set: run make.py --local first")
    reference, kept = Reference(args.model), {}

    def embed(requests):
        kept["embeddings"] = reference.embed(requests)
        return kept["embeddings"]

    figures = evaluate(sets, embed)
    tolerance = {}
    for precision, (distance, reason) in NOISE.items():
        move = largest_move(sets, kept["embeddings"], figures, distance)
        # Twice, since twenty draws do not show the largest move there is; rounded up to 1e-4.
        tolerance[precision] = {
            "value": math.ceil(2 * move * 1e4) / 1e4,
            "reason": f"twice the largest move of a figure under {NOISE_SEEDS} draws of noise of length {distance:g} on every "
            f"embedding ({reason})",
        }
    expected = {
        "reference": "PyTorch float32 on CPU: transformers MistralModel, bidirectional, with the direct pooler",
        "made_by": "tests/eval/reference.py --write",
        "versions": {m.__name__: m.__version__ for m in (torch, transformers, tokenizers, np)},
        "model": {"name": args.model.name, "sha256": digest(args.model / "model.safetensors")},
        "tolerance": tolerance,
        "sets": {
            s.name: {
                "file": s.path.name,
                "sha256": digest(s.path),
                "figures": {metric: round(value, 6) for metric, value in figures[s.name].items()},
            }
            for s in sets
        },
    }
    text = json.dumps(expected, indent=2, ensure_ascii=False) + "\n"
    print(text, end="")
    if args.write:
        EXPECTED.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
