"""Finds the files of a checkpoint's weights: one file, or shards with an index, in one of the known formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nvembed_export.errors import CheckpointError
from nvembed_export.files import is_there, read_json, refuse_pointer
from nvembed_export.missing import explain
from nvembed_export.weight_files.paddle import read_paddle
from nvembed_export.weight_files.pytorch import read_pytorch
from nvembed_export.weight_files.safetensors_file import read_safetensors
from nvembed_export.weight_files.stored import StoredTensor


@dataclass(frozen=True)
class Format:
    """The names that a format's files have, and its reader."""

    single: str
    read: Callable[[Path], dict[str, StoredTensor]]

    @property
    def index(self) -> str:
        return f"{self.single}.index.json"


# transformers, too, takes safetensors where both are there.
FORMATS = (
    Format("model.safetensors", read_safetensors),
    Format("pytorch_model.bin", read_pytorch),
    Format("model_state.pdparams", read_paddle),
)


@dataclass(frozen=True)
class Found:
    """The tensors of a folder, by their names in the files, and what to tell the user about the choice of files."""

    tensors: dict[str, StoredTensor]
    notes: list[str]


def read_folder(directory: Path) -> Found:
    """All tensors of the checkpoint in `directory`; their data is not read. Raises CheckpointError."""
    present = [form for form in FORMATS if any(_is_there(directory / name) for name in (form.single, form.index))]
    if not present:
        expected = ", ".join(form.single for form in FORMATS)
        raise CheckpointError(
            f"{directory}: no weights found, expected {expected}, or shards with an index of them; {explain(directory)}"
        )
    form, *others = present
    notes = [f"the weights are those of {form.single}; {other.single} is not read" for other in others]
    single, index = directory / form.single, directory / form.index
    if not index.exists():
        return Found(_read(form, single), notes)
    if single.exists():
        raise CheckpointError(f"{directory}: found both {form.single} and {form.index}, expected only one of them")
    return Found(_read_shards(directory, index, form), notes)


def _read_shards(directory: Path, index: Path, form: Format) -> dict[str, StoredTensor]:
    weight_map = _read_index(index)
    tensors: dict[str, StoredTensor] = {}
    for shard in sorted(set(weight_map.values())):
        path = directory / shard
        if Path(shard).name != shard:
            raise CheckpointError(f"{index}: shard `{shard}` is not the name of a file in the same folder")
        if not _is_there(path):
            raise CheckpointError(f"{index}: shard `{shard}` is missing from {directory}; finish the download")
        for name, tensor in _read(form, path).items():
            if weight_map.get(name) != shard:
                listed = f"lists it in {weight_map[name]}" if name in weight_map else "does not list it"
                raise CheckpointError(f"{index}: tensor `{name}` is in {shard}, but the index {listed}")
            tensors[name] = tensor
    for name, shard in weight_map.items():
        if name not in tensors:
            raise CheckpointError(f"{index}: tensor `{name}` is listed in {shard}, but no shard contains it")
    return tensors


def _is_there(path: Path) -> bool:
    return is_there(path, CheckpointError)


def _read(form: Format, path: Path) -> dict[str, StoredTensor]:
    refuse_pointer(path, CheckpointError)
    return form.read(path)


def _read_index(path: Path) -> dict[str, str]:
    weight_map = read_json(path, CheckpointError).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(f"{path}: invalid `weight_map`, expected an object that maps tensor names to file names")
    return weight_map
