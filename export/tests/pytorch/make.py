"""Writes the files in this folder with PyTorch: a small random model, saved in the ways that people save models.

    pip install torch==2.15.0 numpy==2.3.5
    python export/tests/pytorch/make.py

They are committed because the exporter's tests run without PyTorch. The values are those of `seeded_checkpoint`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from questions import SMALL
from seeded_checkpoint import random_tensors
from torch import nn

HERE = Path(__file__).resolve().parent


def module_of(tensors: dict[str, torch.Tensor]) -> nn.Module:
    """A module whose state dict has these names, so that it carries the metadata of a real one."""
    root = nn.Module()
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(last, nn.Parameter(tensor))
    return root


def main() -> None:
    values = {name: torch.from_numpy(array) for name, array in random_tensors(SMALL).items()}
    state = module_of({name: tensor.half() for name, tensor in values.items()}).state_dict()
    torch.save(state, HERE / "state_dict.bin")

    # Parameters as they are, in one storage, behind a wrapper's prefix; norms in another dtype than the rest.
    flat = torch.cat([tensor.reshape(-1) for tensor in values.values()]).bfloat16()
    parameters, start = {}, 0
    for name, tensor in values.items():
        part = flat[start : start + tensor.numel()].view(tensor.shape)
        start += tensor.numel()
        parameters[f"_orig_mod.{name}"] = nn.Parameter(part.float() if "norm" in name else part)
    torch.save(parameters, HERE / "parameters.bin")

    matrix = torch.arange(6.0).reshape(2, 3)
    torch.save({"transposed": matrix.t()}, HERE / "transposed.bin")
    torch.save({"state_dict": {"w": matrix}, "epoch": 3}, HERE / "training.bin")
    torch.save(nn.Linear(3, 2), HERE / "module.bin")
    torch.save({"w": matrix}, HERE / "legacy.bin", _use_new_zipfile_serialization=False)
    (HERE / "made_by.json").write_text(json.dumps({"torch": torch.__version__}) + "\n")


if __name__ == "__main__":
    main()
