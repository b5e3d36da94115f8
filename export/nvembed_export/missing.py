"""Says what a folder is when it is not the checkpoint that was expected, and what to do next."""

from __future__ import annotations

import os
import re
from pathlib import Path

# Files that say that a folder has an adapter; the last two are PaddleNLP's.
ADAPTER_FILES = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "lora_config.json",
    "lora_model_state.pdparams",
)
_SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})(\.safetensors|\.bin|\.pdparams)")
_SAVE = "load it in the program that wrote it, and save it in Hugging Face's form with save_pretrained"
# What other programs write, and the next step. The first that matches is told.
_OTHERS = (
    ("nvembed.json", "it is a model folder, which was exported already"),
    ("*.gguf", "a GGUF file has quantized weights for llama.cpp; export the checkpoint that it was made from"),
    ("*.distcp", "it is a distributed checkpoint of PyTorch; gather it with torch.distributed.checkpoint.format_utils"),
    ("global_step*", "it is a checkpoint of DeepSpeed; run its zero_to_fp32.py, which writes one file"),
    ("model_state.tp*.pdparams", "it was saved by PaddleNLP in tensor-parallel parts; merge them with PaddleNLP"),
    ("consolidated*", f"it is in Mistral's own form; {_SAVE}"),
    ("tf_model.h5", f"it is TensorFlow's form; {_SAVE}"),
    ("flax_model.msgpack", f"it is Flax's form; {_SAVE}"),
    ("*.ckpt", f"it is a checkpoint of a training program; {_SAVE}"),
    ("*.pt", f"it is a file of PyTorch of an unknown kind; {_SAVE}"),
    ("*.pth", f"it is a file of PyTorch of an unknown kind; {_SAVE}"),
)


def explain(directory: Path) -> str:
    """What the folder is, to be added to an error; empty if nothing is recognised."""
    if not directory.exists():
        return f"there is no folder {directory}"
    if not directory.is_dir():
        return f"{directory} is a file, expected the folder that holds it"
    names = sorted(os.listdir(directory))
    found = set(names)
    if found & set(ADAPTER_FILES):
        return (
            "it holds an adapter and no model: export the base model, with "
            f"`--adapter {directory}` to merge the adapter into it"
        )
    if "modules.json" in found and (inner := _transformer_folder(directory)) is not None:
        return f"the model is in a folder of its own: export {inner}"
    if "snapshots" in found:
        inner = [path for path in sorted((directory / "snapshots").iterdir()) if path.is_dir()]
        return f"it is a cache of Hugging Face: export {inner[0] if len(inner) == 1 else directory / 'snapshots' / '…'}"
    shards = [match for name in names if (match := _SHARD.fullmatch(name))]
    if shards:
        first = shards[0]
        there = sum(match[1] == first[1] and match[3] == first[3] for match in shards)
        return (
            f"{there} of {int(first[2])} shards are there, such as {first[0]}, but not the index "
            f"{first[1]}{first[3]}.index.json: download it"
        )
    for pattern, advice in _OTHERS:
        if match := next(iter(sorted(directory.glob(pattern))), None):
            return f"{match.name} is there: {advice}"
    if not names:
        return "the folder is empty"
    return "the folder has " + ", ".join(names[:5]) + (" and more" if len(names) > 5 else "")


def _transformer_folder(directory: Path) -> Path | None:
    """The folder with config.json directly below a folder of sentence-transformers."""
    inner = [path.parent for path in sorted(directory.glob("*/config.json")) if _has_weights(path.parent)]
    return inner[0] if inner else None


def _has_weights(folder: Path) -> bool:
    return any(next(folder.glob(f"*{kind}*"), None) for kind in ("model.safetensors", "pytorch_model", "model_state"))
