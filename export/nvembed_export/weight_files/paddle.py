"""Paddle's `.pdparams`: a pickle of a dictionary from names to numpy arrays. It is read without running its code.

Paddle has no unsigned 16-bit tensors: an array of uint16 holds bfloat16 (paddle.Tensor.numpy).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvembed_export.errors import CheckpointError
from nvembed_export.weight_files.pickle_reader import Built, Payload, PickleReader
from nvembed_export.weight_files.stored import DTYPE_BYTES, StoredTensor

NAME_TABLE = "StructuredToParameterName@@"  # names of Paddle's own, beside the tensors
SPLIT_TABLE = "UnpackBigParamInfor@@"  # only with pickle protocols 2 and 3
_DTYPES = {"f2": "F16", "u2": "BF16", "f4": "F32", "f8": "F64", "i8": "I64", "i4": "I32", "u1": "U8", "b1": "BOOL"}


@dataclass(frozen=True)
class _Array:
    dtype: str
    shape: tuple[int, ...]
    fortran: bool
    payload: Payload


def read_paddle(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a `.pdparams` file. Raises CheckpointError; nothing in the file is run."""
    try:
        with path.open("rb") as stream:
            values = PickleReader(stream, path.stat().st_size, str(path), _GLOBALS).read()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds no dictionary, expected names and arrays: save model.state_dict()")
    values.pop(NAME_TABLE, None)
    if SPLIT_TABLE in values:
        raise CheckpointError(f"{path}: large arrays were saved in parts; save the file again with protocol=4")
    return {name: _stored(path, name, value) for name, value in values.items()}


def _stored(path: Path, name: Any, value: Any) -> StoredTensor:
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        value = value[1]  # how Paddle pickles a tensor outside a state dict: (its own name, the array)
    try:
        array = _array(value)
    except (TypeError, ValueError, AttributeError):
        array = None
    if array is None or not isinstance(name, str):
        kind = "a dictionary" if isinstance(value, dict) else "no array"
        raise CheckpointError(f"{path}: `{name}` is {kind}, expected an array: save model.state_dict()")
    expected = math.prod(array.shape) * DTYPE_BYTES.get(array.dtype, 0)
    if array.dtype in DTYPE_BYTES and array.payload.length != expected:
        raise CheckpointError(f"{path}: `{name}` has {array.payload.length} bytes, expected {expected} from its shape")
    if array.fortran and len(array.shape) > 1:
        raise CheckpointError(
            f"{path}: `{name}` is stored column by column, expected row by row: save numpy.ascontiguousarray of it"
        )
    return StoredTensor(name, path, array.dtype, array.shape, array.payload.start)


def _array(value: Any) -> _Array | None:
    """An array from what the pickle gave to numpy; None if it is no array."""
    if not isinstance(value, Built) or value.kind != "array":
        return None
    if value.arguments:  # _frombuffer(buffer, dtype, shape, order)
        payload, dtype, shape, order = value.arguments
        fortran = order == "F"
    else:  # the state of _reconstruct: (version, shape, dtype, is Fortran, bytes)
        _, shape, dtype, fortran, payload = value.state
    if not isinstance(payload, Payload) or not isinstance(shape, tuple):
        return None
    if not all(type(size) is int and 0 <= size < 1 << 48 for size in shape):
        return None
    return _Array(_dtype(dtype), shape, bool(fortran), payload)


def _dtype(value: Built) -> str:
    if value.kind != "dtype":
        raise TypeError
    code = value.arguments[0]
    order = value.state[1] if value.state else "|"
    if order == ">":
        return f"big-endian {code}"
    return _DTYPES.get(code, str(code))


def _built(kind: str) -> Callable[..., Built]:
    return lambda *arguments: Built(kind=kind, arguments=arguments)


def _tuple(items: Any) -> tuple:
    if not isinstance(items, tuple):
        raise ValueError
    return items


_GLOBALS: dict[str, Callable[..., Any] | None] = {
    "numpy.ndarray": None,
    "numpy.dtype": _built("dtype"),
    # What a pickled tensor that is in no state dict calls: tuple((name, array)).
    "builtins.tuple": _tuple,
    "collections.OrderedDict": lambda: {},
}
for _module in ("numpy.core", "numpy._core"):
    _GLOBALS[f"{_module}.multiarray._reconstruct"] = lambda *_: Built(kind="array")
    _GLOBALS[f"{_module}.numeric._frombuffer"] = _built("array")
