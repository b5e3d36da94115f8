"""Measure the expected figures with PyTorch, directly from the checkpoint: no ONNX, no Rust, no exporter code.

    .venv-torch/bin/python tests/eval/reference.py [--model models/nv-embed-mini]            # print
    .venv-torch/bin/python tests/eval/reference.py [--model models/nv-embed-mini] --write    # and write expected.json

The model is the exporter tests' independent reference: transformers' MistralModel under a mask that hides padding only,
with the direct (unfused) pooler, in float64. Run `make.py --local` first: expected.json holds the figures of every set.
Needs `.venv-torch` (`make venv-torch`).
"""

import argparse
import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "export" / "tests"))

import numpy as np
import tokenizers
import torch
import transformers
from packing import pack, tokenize
from reference_torch import ReferenceModel
from score import EXPECTED, HERE, SETS, available, digest, evaluate

TOKENS_PER_BATCH = 4096

# Allowed distance of an embedding from the reference, ‖e - reference‖ for unit vectors, and the reason, which goes into
# expected.json.
NOISE = {
    "fp32": (1e-4, "float32 sums in another order: the program on a CPU was 7.4e-7 away; room for other backends"),
    "fp16": (2e-3, "float16 weights and activations: the program on a CPU was 3.7e-4 away; room for other backends"),
}
NOISE_SEEDS = 20


def embeddings(folder, requests):
    """A list of (instruction, text) -> unit embeddings, float64 [N, D], in order. Batches have similar lengths."""
    model = ReferenceModel(folder)
    rows = tokenize(folder / "tokenizer.json", requests)
    out = np.empty((len(rows), model.backbone.config.hidden_size))
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row][0]))
    while order:
        size = max(1, TOKENS_PER_BATCH // len(rows[order[0]][0]))
        chosen, order = order[:size], order[size:]
        out[chosen] = model.embed(*pack([rows[row] for row in chosen]))
    return out


def largest_move(sets, found, figures, distance):
    """The largest change of any figure when every embedding moves by `distance` in a random direction."""
    most = 0.0
    for seed in range(NOISE_SEEDS):
        noise = np.random.default_rng(seed).standard_normal(found.shape)
        noise *= distance / np.linalg.norm(noise, axis=1, keepdims=True)
        moved = found + noise
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
    kept = {}

    def embed(requests):
        kept["embeddings"] = embeddings(args.model, requests)
        return kept["embeddings"]

    figures = evaluate(sets, embed)
    tolerance = {}
    for precision, (distance, reason) in NOISE.items():
        move = largest_move(sets, kept["embeddings"], figures, distance)
        # Doubled, because twenty draws do not find the largest possible change; rounded up to a multiple of 1e-4.
        tolerance[precision] = {
            "value": math.ceil(2 * move * 1e4) / 1e4,
            "reason": f"twice the largest move of a figure under {NOISE_SEEDS} draws of noise of length {distance:g} "
            f"on every embedding ({reason})",
        }
    expected = {
        "reference": "PyTorch float64 on CPU: transformers MistralModel, bidirectional, with the direct pooler",
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
