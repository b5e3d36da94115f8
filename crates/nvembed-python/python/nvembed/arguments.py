"""What the arguments of `encode` mean."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvembed.errors import OptionError

#: What `precision` may be, and the element type that the library computes for it.
PRECISIONS = {"float32": "f32", "float16": "f16", "binary": "binary", "ubinary": "binary"}


def instruction_for(task: str) -> str:
    """The instruction of a task that is described in one English sentence, as NVIDIA's model card has it."""
    return f"Instruct: {task}\nQuery: "


def as_list(inputs: str | Iterable[str] | None) -> tuple[list[str], bool]:
    """The texts, and whether there was one string.

    Raises OptionError for what is no text.
    """
    if isinstance(inputs, str):
        return [inputs], True
    if inputs is None:
        raise OptionError("there are no texts; give a str or several as `inputs`")
    texts = list(inputs)
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise OptionError(f"text {index} is of type {type(text).__name__}; texts are str")
    return texts, False


def settings(precision: str, batch_size: int | None, dimensions: int | None) -> dict[str, Any]:
    """The options of the library for these arguments.

    Raises OptionError for those that have none.
    """
    if precision in ("int8", "uint8"):
        raise OptionError(
            f"`precision` is {precision!r}, which sentence-transformers computes from the ranges of other embeddings; "
            "embed as float32 and call its quantize_embeddings with your ranges, or use 'binary'"
        )
    if precision not in PRECISIONS:
        raise OptionError(f"`precision` is {precision!r}; there are {', '.join(map(repr, PRECISIONS))}")
    if batch_size is not None and batch_size < 1:
        raise OptionError(f"`batch_size` is {batch_size}; give 1 or more")
    found: dict[str, Any] = {"dtype": PRECISIONS[precision], "dimensions": dimensions}
    return found if batch_size is None else {**found, "max_batch_size": batch_size}


def converted(values: NDArray[Any], precision: str, single: bool, as_numpy: bool, as_tensor: bool) -> Any:
    """The rows in the form that was asked for."""
    if precision == "binary":
        # The same bytes, shifted: what sentence-transformers calls binary.
        values = (values.astype(np.int16) - 128).astype(np.int8)
    if as_tensor:
        import torch

        tensor = torch.from_numpy(values)
        return tensor[0] if single else tensor
    if single:
        return values[0]
    return values if as_numpy else list(values)


def unit(rows: Any) -> NDArray[np.float32]:
    """Rows of length 1, [N, D]."""
    array = np.asarray(rows, np.float32)
    array = array[np.newaxis] if array.ndim == 1 else array
    return array / np.maximum(np.linalg.norm(array, axis=-1, keepdims=True), np.finfo(np.float32).tiny)
