"""The checkpoint's tensors: their names and shapes are checked first, their data is read a few rows at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from nvembed_export.adapter import Adapter
from nvembed_export.config import ModelConfig
from nvembed_export.errors import CheckpointError, TensorError
from nvembed_export.layout import (
    BACKBONE,
    EMBEDDINGS,
    POOLER,
    KeptArrays,
    TransposedTensor,
    is_transposed,
    name_tensors,
)
from nvembed_export.missing import ADAPTER_FILES
from nvembed_export.weight_files import DTYPE_BYTES, StoredTensor, read_folder

BLOCK_BYTES = 32 << 20  # limit of a block of rows, as float64, in any loop over a weight
CACHE_BYTES = 4 << 20  # the same for loops that only move values: 1 MiB of fp16, which fits in a core's cache

CROSS, FEED_FORWARD = f"{POOLER}.cross_attend_blocks.0", f"{POOLER}.cross_attend_blocks.1"


def expected_tensors(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor in an NV-Embed checkpoint with this configuration; projections are [out, in]."""
    text, latent = config.text, config.latent_attention
    hidden, ffn, width = text.hidden_size, text.intermediate_size, latent.feed_forward_dim
    q_dim, kv_dim = text.num_attention_heads * text.head_dim, text.num_key_value_heads * text.head_dim
    cross = latent.num_cross_heads * latent.cross_dim_head
    shapes: dict[str, tuple[int, ...]] = {f"{BACKBONE}.embed_tokens.weight": (text.vocab_size, hidden)}
    for index in range(text.num_hidden_layers):
        layer = f"{BACKBONE}.layers.{index}"
        shapes |= {
            f"{layer}.self_attn.q_proj.weight": (q_dim, hidden),
            f"{layer}.self_attn.k_proj.weight": (kv_dim, hidden),
            f"{layer}.self_attn.v_proj.weight": (kv_dim, hidden),
            f"{layer}.self_attn.o_proj.weight": (hidden, q_dim),
            f"{layer}.mlp.gate_proj.weight": (ffn, hidden),
            f"{layer}.mlp.up_proj.weight": (ffn, hidden),
            f"{layer}.mlp.down_proj.weight": (hidden, ffn),
            f"{layer}.input_layernorm.weight": (hidden,),
            f"{layer}.post_attention_layernorm.weight": (hidden,),
        }
    shapes[f"{BACKBONE}.norm.weight"] = (hidden,)
    shapes[f"{POOLER}.latents"] = (latent.num_latents_value, hidden)
    for norm in (f"{CROSS}.norm", f"{CROSS}.norm_context", f"{FEED_FORWARD}.norm"):
        shapes |= {f"{norm}.weight": (hidden,), f"{norm}.bias": (hidden,)}
    return shapes | {
        f"{CROSS}.fn.to_q.weight": (cross, hidden),
        f"{CROSS}.fn.to_kv.weight": (2 * cross, hidden),
        f"{CROSS}.fn.to_out.weight": (hidden, cross),
        f"{FEED_FORWARD}.fn.net.0.weight": (2 * width, hidden),
        f"{FEED_FORWARD}.fn.net.0.bias": (2 * width,),
        f"{FEED_FORWARD}.fn.net.2.weight": (hidden, width),
        f"{FEED_FORWARD}.fn.net.2.bias": (hidden,),
    }


class Tensor(Protocol):
    """A tensor whose rows are read on demand."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def rows(self, start: int, stop: int) -> np.ndarray: ...


class Checkpoint:
    """The tensors of a checkpoint folder. Names, shapes and dtypes have been checked; rows are read on demand."""

    def __init__(self, tensors: dict[str, Tensor], notes: list[str]):
        self._tensors, self.notes = tensors, notes

    @classmethod
    def open(cls, directory: Path, config: ModelConfig, adapter: Path | None = None) -> Checkpoint:
        """Open the checkpoint in `directory`: a single file, or shards with an index; see `weight_files` and `layout`.
        `adapter` is the folder of a LoRA adapter to merge.

        Raises CheckpointError if files are damaged or inconsistent, and TensorError unless the tensors are exactly
        those of `expected_tensors`, in F16, BF16 or F32.
        """
        files = read_folder(directory)
        _check_no_adapter(directory, adapter)
        named = name_tensors(files.tensors)
        found = named.tensors
        _check_layers(found, config.text.num_hidden_layers)
        expected = expected_tensors(config)
        _check_names(found, expected)
        transposed = is_transposed(found, expected)
        for name, shape in expected.items():
            tensor = found[name]
            stored = shape[::-1] if transposed and name != EMBEDDINGS else shape
            if tensor.shape != stored:
                raise TensorError(f"tensor `{tensor.name}` has shape {list(tensor.shape)}, expected {list(stored)}")
            if tensor.dtype not in DTYPE_BYTES:
                raise TensorError(f"tensor `{tensor.name}` has dtype {tensor.dtype}, expected F16, BF16 or F32")
        notes = list(files.notes)
        if named.prefix:
            notes.append(f"all tensor names begin with `{named.prefix}`, which was left out")
        tensors: dict[str, Tensor] = dict(found)
        if transposed:
            kept = KeptArrays()
            matrices = [name for name, shape in expected.items() if len(shape) == 2 and name != EMBEDDINGS]
            tensors |= {name: TransposedTensor(found[name], kept) for name in matrices}
        if adapter is not None:
            merged = Adapter.open(adapter, expected)
            tensors = merged.apply(tensors)
            notes.append(merged.describe())
        return cls(tensors, notes)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name].shape

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows start to stop (exclusive) of a tensor, [stop - start, ...]: float16 for F16, float32 for BF16 and F32.

        Raises WeightValueError for NaN or infinity, CheckpointError if the file is too short or cannot be read.
        """
        tensor = self._tensors[name]
        return tensor.rows(start, tensor.shape[0] if stop is None else stop)

    def row_blocks(self, name: str, block_bytes: int = BLOCK_BYTES) -> Iterator[np.ndarray]:
        """All rows of a tensor in order, in blocks of at most `block_bytes` (or one row) when widened to float64.

        The default suits matrix products; code that only moves values is faster with blocks that fit in a core's cache.
        """
        shape = self._tensors[name].shape
        step = max(1, block_bytes // (8 * max(1, math.prod(shape[1:]))))
        for start in range(0, shape[0], step):
            yield self.rows(name, start, min(start + step, shape[0]))


def _check_no_adapter(directory: Path, merged: Path | None) -> None:
    """An adapter beside the weights is what transformers would add to them."""
    found = [name for name in ADAPTER_FILES if (directory / name).exists()]
    if found and (merged is None or not merged.exists() or not merged.samefile(directory)):
        raise CheckpointError(
            f"{directory}: {found[0]} is there, so this model has an adapter, which transformers would load too: add "
            f"`--adapter {directory}` to merge it, or move the adapter's files away to export the model without it"
        )


def _check_layers(found: dict[str, StoredTensor], configured: int) -> None:
    """Reject a layer count larger than the files have, before `expected_tensors` builds a table of that size."""
    prefix = f"{BACKBONE}.layers."
    layers = len({name.removeprefix(prefix).split(".")[0] for name in found if name.startswith(prefix)})
    if configured > layers:
        raise TensorError(
            f"config.json: `num_hidden_layers` is {configured}, but the number of layers in the files "
            f"(`{prefix}N`) is {layers}"
        )


def _check_names(found: dict[str, StoredTensor], expected: dict[str, tuple[int, ...]]) -> None:
    if unmerged := next((name for name in found if ".base_layer." in name or ".lora_" in name), None):
        raise TensorError(
            f"tensor `{found[unmerged].name}` belongs to an adapter that was not merged: save the model again after "
            "merge_and_unload()"
        )
    missing = sorted(expected.keys() - found)
    unexpected = sorted(found[name].name for name in found.keys() - expected)
    figures = f"found {len(found)} tensors, expected {len(expected)}"
    if missing and not any(name.startswith(f"{POOLER}.") for name in found):
        raise TensorError(
            f"no tensor begins with `{POOLER}.`: this is the backbone or another model, not NV-Embed with its pooler; "
            f"{_tensor_list('missing', missing, figures)}"
        )
    if missing:
        raise TensorError(_tensor_list("missing", missing, figures))
    if unexpected:
        raise TensorError(_tensor_list("unexpected", unexpected, figures))


def _tensor_list(kind: str, names: list[str], figures: str) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{kind} tensors: " + ", ".join(f"`{name}`" for name in names[:3]) + f"{more}; {figures}"
