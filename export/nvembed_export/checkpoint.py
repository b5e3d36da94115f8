"""The checkpoint's tensors: their names and shapes are checked first, their data is read a few rows at a time.

The safetensors library validates each file. The data is then read with plain reads, not through the library's memory
map: mapped pages count as resident memory, so a 7B checkpoint would show up as 16 GB.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from nvembed_export.config import ModelConfig
from nvembed_export.errors import CheckpointError, TensorError, WeightValueError

SINGLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
BLOCK_BYTES = 32 << 20  # limit of a block of rows, as float64, in any loop over a weight
CACHE_BYTES = 4 << 20  # the same for loops that only move values: 1 MiB of fp16, which fits in a core's cache
DTYPE_BYTES = {"F16": 2, "BF16": 2, "F32": 4}

BACKBONE, POOLER = "embedding_model", "latent_attention_model"
CROSS, FEED_FORWARD = f"{POOLER}.cross_attend_blocks.0", f"{POOLER}.cross_attend_blocks.1"


def expected_tensors(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor in an NV-Embed checkpoint with this configuration; projections are [out, in]."""
    text, latent = config.text, config.latent_attention
    hidden, ffn = text.hidden_size, text.intermediate_size
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
        f"{FEED_FORWARD}.fn.net.0.weight": (8 * hidden, hidden),
        f"{FEED_FORWARD}.fn.net.0.bias": (8 * hidden,),
        f"{FEED_FORWARD}.fn.net.2.weight": (hidden, 4 * hidden),
        f"{FEED_FORWARD}.fn.net.2.bias": (hidden,),
    }


@dataclass(frozen=True)
class _Entry:
    """Where a tensor is stored; `start` is a byte offset from the beginning of the file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int


class Checkpoint:
    """The tensors of a checkpoint folder. Names, shapes and dtypes have been checked; rows are read on demand."""

    def __init__(self, entries: dict[str, _Entry]):
        self._entries = entries

    @classmethod
    def open(cls, directory: Path, config: ModelConfig) -> Checkpoint:
        """Open the checkpoint in `directory`: a single file, or shards with an index.

        Raises CheckpointError if files are damaged or inconsistent, and TensorError unless the tensors are exactly
        those of `expected_tensors`, in F16, BF16 or F32.
        """
        entries = _read_shards(directory)
        _check_layers(entries, config.text.num_hidden_layers)
        expected = expected_tensors(config)
        missing, unexpected = sorted(expected.keys() - entries), sorted(entries.keys() - expected)
        figures = f"found {len(entries)} tensors, expected {len(expected)}"
        if missing:
            raise TensorError(_tensor_list("missing", missing, figures))
        if unexpected:
            raise TensorError(_tensor_list("unexpected", unexpected, figures))
        for name, shape in expected.items():
            entry = entries[name]
            if entry.shape != shape:
                raise TensorError(f"tensor `{name}` has shape {list(entry.shape)}, expected {list(shape)}")
            if entry.dtype not in DTYPE_BYTES:
                raise TensorError(f"tensor `{name}` has dtype {entry.dtype}, expected F16, BF16 or F32")
        return cls(entries)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entries[name].shape

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows start to stop (exclusive) of a tensor, [stop - start, ...]: float16 for F16, float32 for BF16 and F32.

        Raises WeightValueError for NaN or infinity, CheckpointError if the file is too short or cannot be read.
        """
        entry = self._entries[name]
        stop = entry.shape[0] if stop is None else stop
        width = math.prod(entry.shape[1:])
        stored = np.dtype("<u2") if entry.dtype != "F32" else np.dtype("<f4")
        offset, count = entry.start + start * width * stored.itemsize, (stop - start) * width
        flat = np.empty(count, stored)
        try:
            found = _read_into(flat, entry.file, offset) // stored.itemsize
        except OSError as error:
            raise CheckpointError(f"{entry.file}: cannot be read: {error.strerror}") from None
        if found != count:
            raise CheckpointError(f"{entry.file}: read {found} values of `{name}`, expected {count}: file is too short")
        values = _decode(flat, entry.dtype, name, start * width)
        return values.reshape(stop - start, *entry.shape[1:])

    def row_blocks(self, name: str, block_bytes: int = BLOCK_BYTES) -> Iterator[np.ndarray]:
        """All rows of a tensor in order, in blocks of at most `block_bytes` (or one row) when widened to float64.

        The default suits matrix products; code that only moves values is faster with blocks that fit in a core's cache.
        """
        shape = self._entries[name].shape
        step = max(1, block_bytes // (8 * max(1, math.prod(shape[1:]))))
        for start in range(0, shape[0], step):
            yield self.rows(name, start, min(start + step, shape[0]))


def _read_into(target: np.ndarray, file: Path, offset: int) -> int:
    """Fill an array from byte `offset` of the file and return the number of bytes read. Raises OSError."""
    rest = memoryview(target).cast("B")
    with file.open("rb", buffering=0) as stream:
        stream.seek(offset)
        while rest and (count := stream.readinto(rest)):
            rest = rest[count:]
    return target.nbytes - len(rest)


def _decode(flat: np.ndarray, dtype: str, name: str, first: int) -> np.ndarray:
    """Stored values -> float16 or float32. Raises WeightValueError for NaN and infinity (all exponent bits set)."""
    if dtype == "F32":
        values, bad = flat, ~np.isfinite(flat)
    else:
        # Compares the bits because numpy's isfinite is many times slower on float16.
        exponent = np.uint16(0x7C00 if dtype == "F16" else 0x7F80)
        bad = (flat & exponent) == exponent
        values = flat.view("<f2") if dtype == "F16" else (flat.astype("<u4") << np.uint32(16)).view("<f4")
    if bad.any():
        at = int(bad.argmax())
        raise WeightValueError(
            f"tensor `{name}` has {values[at]} at flat index {first + at}, expected only finite values"
        )
    return values


def _read_shards(directory: Path) -> dict[str, _Entry]:
    """All tensors of the checkpoint, from its single file or its shards."""
    single, index = directory / SINGLE_FILE, directory / INDEX_FILE
    if not index.exists():
        if not single.exists():
            raise CheckpointError(f"{directory}: no weights found, expected {SINGLE_FILE} or {INDEX_FILE}")
        return _read_header(single)
    if single.exists():
        raise CheckpointError(f"{directory}: found both {SINGLE_FILE} and {INDEX_FILE}, expected only one of them")
    weight_map = _read_index(index)
    entries: dict[str, _Entry] = {}
    for shard in sorted(set(weight_map.values())):
        path = directory / shard
        if Path(shard).name != shard:
            raise CheckpointError(f"{index}: shard `{shard}` is not the name of a file in the same folder")
        if not path.exists():
            raise CheckpointError(f"{index}: shard `{shard}` is missing from {directory}; finish the download")
        for name, entry in _read_header(path).items():
            if weight_map.get(name) != shard:
                listed = f"lists it in {weight_map[name]}" if name in weight_map else "does not list it"
                raise CheckpointError(f"{index}: tensor `{name}` is in {shard}, but the index {listed}")
            entries[name] = entry
    for name, shard in weight_map.items():
        if name not in entries:
            raise CheckpointError(f"{index}: tensor `{name}` is listed in {shard}, but no shard contains it")
    return entries


def _read_index(path: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: invalid index ({error!r}), expected an object `weight_map`") from None
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(f"{path}: invalid `weight_map`, expected an object that maps tensor names to file names")
    return weight_map


def _read_header(path: Path) -> dict[str, _Entry]:
    """The tensors of a safetensors file: an 8-byte header length, a JSON header, then the data."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise CheckpointError(f"{path}: found {size} bytes, expected at least {8 + length} (8 + header length)")
            header: dict[str, Any] = json.loads(file.read(length))
        header.pop("__metadata__", None)
        expected = 8 + length + max((item["data_offsets"][1] for item in header.values()), default=0)
        if size != expected:
            raise CheckpointError(
                f"{path}: found {size} bytes, expected {expected} from its header: truncated or damaged"
            )
        with safe_open(path, framework="numpy"):
            pass
        return {
            name: _Entry(path, item["dtype"], tuple(item["shape"]), 8 + length + item["data_offsets"][0])
            for name, item in header.items()
        }
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError(f"{path}: damaged header ({error}), expected a safetensors file") from None


def _check_layers(entries: dict[str, _Entry], configured: int) -> None:
    """Reject a layer count larger than the files have, before `expected_tensors` builds a table of that size."""
    prefix = f"{BACKBONE}.layers."
    found = len({name.removeprefix(prefix).split(".")[0] for name in entries if name.startswith(prefix)})
    if configured > found:
        raise TensorError(
            f"config.json: `text_config.num_hidden_layers` is {configured}, but the number of layers in the files "
            f"(`{prefix}N`) is {found}"
        )


def _tensor_list(kind: str, names: list[str], figures: str) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{kind} tensors: " + ", ".join(f"`{name}`" for name in names[:3]) + f"{more}; {figures}"
