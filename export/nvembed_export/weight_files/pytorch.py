"""PyTorch's zip files (`pytorch_model.bin`): a pickle that describes tensors, and their bytes in entries of their own.

The pickle is read without running its code. Layout of the file:
https://docs.pytorch.org/docs/stable/notes/serialization.html
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvembed_export.errors import CheckpointError
from nvembed_export.weight_files.pickle_reader import Global, PickleReader
from nvembed_export.weight_files.stored import StoredTensor

_STORAGES = {
    f"torch.{name}Storage": (dtype, nbytes)
    for name, dtype, nbytes in (
        ("Half", "F16", 2),
        ("BFloat16", "BF16", 2),
        ("Float", "F32", 4),
        ("Double", "F64", 8),
        ("Long", "I64", 8),
        ("Int", "I32", 4),
        ("Short", "I16", 2),
        ("Char", "I8", 1),
        ("Byte", "U8", 1),
        ("Bool", "BOOL", 1),
    )
}
_LOCAL_HEADER = 30  # bytes of a zip entry's own header, before its name


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str
    item_bytes: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_pytorch(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a PyTorch zip file. Raises CheckpointError; nothing in the file is run."""
    try:
        with path.open("rb") as stream:
            return _read(path, stream)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged zip file ({error})") from None


def _read(path: Path, stream) -> dict[str, StoredTensor]:
    head = stream.read(4)
    if head[:2] != b"PK":
        raise CheckpointError(
            f"{path}: no zip file, expected one as torch.save writes since PyTorch 1.6; load it where you trust it and "
            "save it with safetensors"
        )
    entries = _entries(path, stream)
    pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise CheckpointError(f"{path}: {len(pickles)} entries `*/data.pkl`, expected 1: not a file of torch.save")
    root = pickles[0].removesuffix("data.pkl")
    _check_byte_order(path, stream, entries.get(f"{root}byteorder"))
    start, size = entries[pickles[0]]
    stream.seek(start)
    values = PickleReader(stream, size, str(path), _GLOBALS, _storage).read()
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds no dictionary, expected names and tensors: save model.state_dict()")
    return {name: _stored(path, root, entries, name, value) for name, value in values.items()}


def _entries(path: Path, stream) -> dict[str, tuple[int, int]]:
    """Name -> (byte offset of the data, size) of every entry. All must be stored as they are."""
    found: dict[str, tuple[int, int]] = {}
    with zipfile.ZipFile(stream) as archive:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
                raise CheckpointError(f"{path}: entry `{info.filename}` is compressed or encrypted, expected neither")
            if info.filename in found:
                raise CheckpointError(f"{path}: entry `{info.filename}` is there twice")
            stream.seek(info.header_offset)
            header = stream.read(_LOCAL_HEADER)
            if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
                raise CheckpointError(f"{path}: entry `{info.filename}` has no header: truncated or damaged")
            names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
            found[info.filename] = (info.header_offset + _LOCAL_HEADER + names, info.file_size)
    return found


def _check_byte_order(path: Path, stream, entry: tuple[int, int] | None) -> None:
    if entry is None:  # files before PyTorch 2.1, written on little-endian machines but for a few
        return
    stream.seek(entry[0])
    order = stream.read(min(entry[1], 16))
    if order != b"little":
        raise CheckpointError(f"{path}: byte order is {order.decode('ascii', 'replace')!r}, supported: 'little'")


def _storage(identity: Any) -> _Storage:
    kind, storage, key, _, _ = identity
    if kind != "storage" or not isinstance(storage, Global) or not isinstance(key, str):
        raise ValueError
    return _Storage(key, *_STORAGES[storage.name])


def _tensor(storage, offset, shape, stride, *_) -> _Tensor:
    sizes = (offset, *shape, *stride)
    if not isinstance(storage, _Storage) or not all(type(size) is int and 0 <= size < 1 << 48 for size in sizes):
        raise ValueError
    return _Tensor(storage, offset, shape, stride)


def _parameter(tensor, *_) -> _Tensor:
    if not isinstance(tensor, _Tensor):
        raise ValueError
    return tensor


def _stored(path: Path, root: str, entries: dict[str, tuple[int, int]], name: Any, value: Any) -> StoredTensor:
    if not isinstance(value, _Tensor) or not isinstance(name, str):
        kind = "a dictionary" if isinstance(value, dict) else "no tensor"
        raise CheckpointError(f"{path}: `{name}` is {kind}, expected a tensor: save model.state_dict()")
    entry = f"{root}data/{value.storage.key}"
    if entry not in entries:
        raise CheckpointError(f"{path}: tensor `{name}` is in entry `{entry}`, which is missing: truncated or damaged")
    start, size = entries[entry]
    first, count = value.offset * value.storage.item_bytes, math.prod(value.shape) * value.storage.item_bytes
    if first + count > size:
        raise CheckpointError(
            f"{path}: tensor `{name}` needs bytes up to {first + count} of `{entry}`, which has {size}"
        )
    if count and value.stride != _row_major(value.shape) and not _equal_strides(value):
        raise CheckpointError(
            f"{path}: tensor `{name}` has strides {list(value.stride)}, expected {list(_row_major(value.shape))} "
            "(row by row): save it with .contiguous()"
        )
    return StoredTensor(name, path, value.storage.dtype, value.shape, start + first)


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[index + 1 :]) for index in range(len(shape)))


def _equal_strides(tensor: _Tensor) -> bool:
    """Strides of dimensions of size 1 do not matter."""
    if len(tensor.stride) != len(tensor.shape):
        return False
    pairs = zip(tensor.shape, tensor.stride, _row_major(tensor.shape), strict=True)
    return all(size == 1 or found == expected for size, found, expected in pairs)


_GLOBALS: dict[str, Callable[..., Any] | None] = {
    **dict.fromkeys(_STORAGES),
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "collections.OrderedDict": lambda: {},
}
