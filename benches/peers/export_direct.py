"""Export the direct PyTorch form as plain ONNX, as anybody would: `export_direct.py CHECKPOINT OUT.onnx`.

Uses torch.onnx.export with dynamic rows and lengths and nothing else; folding and fusing are left to the runtime.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from direct import Direct


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    model = Direct(args.checkpoint)
    model.attention("sdpa")
    ids = torch.randint(3, 300, (2, 12))
    names = ["input_ids", "attention_mask", "pool_mask"]
    dims = {0: torch.export.Dim("rows", min=1), 1: torch.export.Dim("length", min=2)}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        torch.onnx.export(
            model,
            (ids, torch.ones_like(ids), torch.ones_like(ids)),
            args.output,
            input_names=names,
            output_names=["embeddings"],
            dynamic_shapes=dict.fromkeys(names, dims),
            external_data=True,
            dynamo=True,
            verbose=False,
        )


if __name__ == "__main__":
    main()
