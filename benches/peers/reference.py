"""The reference embeddings, from the tests' PyTorch reference in float64: `reference.py CHECKPOINT THREADS OUT.npz`.

Standard input is a JSON list of batches. Each is a list of (instruction, text) of equal length, so that nothing is
padded. OUT.npz has `full`, the embeddings, and `backbone`, the mean of the last hidden states, as [N, D] unit rows in
order. This runs as a separate process because float64 takes twice the memory of any peer.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "export" / "tests"))

import numpy as np
import torch
from packing import pack, tokenize
from reference_torch import ReferenceModel


class Both(ReferenceModel):
    """The reference, which also keeps the hidden states that go into its pooler."""

    def _hidden(self, ids, real):
        self.states = super()._hidden(ids, real)
        return self.states


def main() -> None:
    checkpoint, threads, out = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(threads)
    model, full, backbone = Both(checkpoint), [], []
    for batch in json.load(sys.stdin):
        rows = tokenize(checkpoint / "tokenizer.json", batch)
        ids, real, pooled = pack(rows)
        if not real.all():
            raise ValueError("the rows of a batch differ in length, expected equal lengths")
        full.append(model.embed(ids, real, pooled))
        weights = pooled / pooled.sum(1, keepdims=True)
        mean = np.einsum("bs,bsd->bd", weights, model.states.numpy())
        backbone.append(mean / np.linalg.norm(mean, axis=1, keepdims=True))
    np.savez(out, full=np.concatenate(full), backbone=np.concatenate(backbone))


if __name__ == "__main__":
    main()
