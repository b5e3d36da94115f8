"""Writes the adapters in this folder with PEFT, and the weights that PEFT merges them to.

    pip install torch==2.15.0 transformers==5.23.0 accelerate==1.15.0 peft==0.21.2
    python export/tests/peft/make.py

They are committed because the exporter's tests run without PyTorch. The base model is the small random one of
`questions.py`; the adapters' values are random too, as if they had been trained.
"""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import peft
import torch
from questions import SMALL
from safetensors.torch import save_file
from seeded_checkpoint import random_tensors
from torch import nn

HERE = Path(__file__).resolve().parent
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
CASES = {
    "plain": (torch.float16, {"r": 4, "lora_alpha": 16, "target_modules": [*ATTENTION, "down_proj"]}),
    "patterns": (
        torch.bfloat16,
        {
            "r": 4,
            "lora_alpha": 8,
            "use_rslora": True,
            "target_modules": [*ATTENTION, "gate_proj", "to_q", "embed_tokens"],
            "rank_pattern": {"self_attn.q_proj": 2, "k_proj": 6},
            "alpha_pattern": {r"layers\.\d+\.self_attn\.k_proj": 24},
            "modules_to_save": ["norm_context"],
        },
    ),
    "dora": (torch.float32, {"r": 3, "lora_alpha": 6, "use_dora": True, "target_modules": ["v_proj", "up_proj"]}),
}


def small_model(dtype: torch.dtype) -> nn.Module:
    """Modules with the names, kinds and weights of the small random model. It has no forward pass."""
    root = nn.Module()
    for name, array in random_tensors(SMALL).items():
        *path, last = name.split(".")
        tensor = torch.from_numpy(array).to(dtype)
        module = root
        for part in path[:-1]:
            if part not in dict(module.named_children()):
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        if path[-1] not in dict(module.named_children()):
            module.add_module(path[-1], leaf(path[-1], tensor) if last == "weight" else nn.Module())
        module.get_submodule(path[-1]).register_parameter(last, nn.Parameter(tensor, requires_grad=False))
    return root


def leaf(name: str, tensor: torch.Tensor) -> nn.Module:
    if name == "embed_tokens":
        return nn.Embedding(*tensor.shape)
    if tensor.ndim == 2:
        return nn.Linear(tensor.shape[1], tensor.shape[0], bias=False)
    return nn.LayerNorm(tensor.shape[0])


def write(name: str, dtype: torch.dtype, options: dict) -> None:
    base = small_model(dtype)
    model = peft.get_peft_model(base, peft.LoraConfig(**options))
    generator = torch.Generator().manual_seed(len(name))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "magnitude" in key:
                parameter.mul_(torch.rand(parameter.shape, generator=generator) + 0.5)
            elif parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    # As a user merges: the adapter is read from its folder.
    merged = peft.PeftModel.from_pretrained(small_model(dtype), folder).merge_and_unload()
    before = small_model(dtype).state_dict()
    changed = {k: v.contiguous() for k, v in merged.state_dict().items() if not torch.equal(v, before[k])}
    save_file(changed, folder / "merged.safetensors")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for name, (dtype, options) in CASES.items():
        write(name, dtype, options)
    versions = {"torch": torch.__version__, "peft": peft.__version__, "numpy": np.__version__}
    (HERE / "made_by.json").write_text(json.dumps(versions) + "\n")
