"""safetensors: an 8-byte header length, a JSON header, then the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from nvembed_export.errors import CheckpointError
from nvembed_export.weight_files.stored import StoredTensor


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file, which the safetensors library validates. Raises CheckpointError."""
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
            name: StoredTensor(name, path, item["dtype"], tuple(item["shape"]), 8 + length + item["data_offsets"][0])
            for name, item in header.items()
        }
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError(f"{path}: damaged header ({error}), expected a safetensors file") from None
