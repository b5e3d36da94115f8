"""From a checkpoint to a model: the exporter, and a cache of what it made."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nvembed.errors import CheckpointError, OptionError

#: What suits a provider: the exporter's target, and a precision.
DEFAULTS = {
    "cpu": ("cpu", "int8"),
    "openvino": ("openvino", "fp32"),
    "cuda": ("cuda", "fp16"),
    "tensorrt": ("tensorrt", "bf16"),
    "nv-tensorrt-rtx": ("tensorrt", "fp16"),
}
#: What a checkpoint of the hub is made of.
PATTERNS = [
    "*.json",
    "*.safetensors",
    "pytorch_model*.bin",
    "tokenizer.model",
    "*/config.json",
    "README.md",
    "LICENSE*",
]


def export(
    checkpoint: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    precision: str = "fp16",
    target: str = "any",
    force: bool = False,
    **options: Any,
) -> Path:
    """Turn a checkpoint into a model folder, as `nvembed-export` does; returns the folder.

    `options` are the other options of the exporter by their names in `nvembed_export.export.ExportOptions`. Raises
    CheckpointError with the exporter's message.
    """
    from nvembed_export.cli import license_line
    from nvembed_export.errors import ExportError, UsageError
    from nvembed_export.export import ExportOptions
    from nvembed_export.export import export as run

    try:
        settings = ExportOptions(precision=precision, target=target, force=force, **options)
    except TypeError as error:
        raise OptionError(f"the exporter has no such option: {error}") from error
    try:
        summary = run(Path(checkpoint), Path(output), settings)
    except UsageError as error:
        raise OptionError(str(error)) from error
    except ExportError as error:
        raise CheckpointError(str(error)) from error
    for line in (license_line(summary), *summary.notes):
        print(f"nvembed: {line}", file=sys.stderr)
    return summary.folder


def cached(
    checkpoint: str | os.PathLike[str],
    provider: str,
    precision: str | None,
    target: str | None,
    cache_folder: str | os.PathLike[str] | None,
    token: str | None,
    revision: str | None,
    options: Mapping[str, Any],
) -> Path:
    """The model folder of a checkpoint, exported if it was not yet."""
    from nvembed_export import __version__

    folder = _folder(checkpoint, token, revision)
    usual = DEFAULTS.get(provider, ("any", "fp32"))
    settings = {**options, "target": target or usual[0], "precision": precision or usual[1]}
    known = json.dumps({"exporter": __version__, "settings": settings, "files": _fingerprint(folder)}, default=str)
    key = hashlib.sha256(known.encode()).hexdigest()[:16]
    name = f"{Path(os.path.abspath(folder)).name}-{settings['target']}-{settings['precision']}-{key}"
    place = _cache(cache_folder) / name
    with _lock(place.with_name(f"{name}.lock")):
        if not (place / "nvembed.json").is_file():
            export(folder, place, force=True, **settings)
    return place


def _folder(checkpoint: str | os.PathLike[str], token: str | None, revision: str | None) -> Path:
    folder = Path(checkpoint)
    if folder.is_dir():
        return folder
    name = os.fspath(checkpoint)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(f"{name} is no folder, and no id of the Hugging Face hub such as nvidia/NV-Embed-v2")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise CheckpointError(
            f"{name} is no folder here; to download it from the Hugging Face hub: pip install 'nvembed[hub]'"
        ) from error
    try:
        return Path(snapshot_download(name, revision=revision, token=token, allow_patterns=PATTERNS))
    except Exception as error:
        raise CheckpointError(
            f"{name} could not be downloaded: {error}. Without a network, copy the checkpoint and name its folder; "
            "a model with a licence to accept needs a token (hf auth login, or `token`)"
        ) from error


def _fingerprint(folder: Path) -> list[list[Any]]:
    """Each file's name and size, its hash, or that of both ends of a large one with the time of its last change."""
    found: list[list[Any]] = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name.startswith("."):
            continue
        status, block = path.stat(), 1 << 20
        with path.open("rb") as file:
            digest = hashlib.sha256(file.read(block))
            if status.st_size > block:
                file.seek(max(block, status.st_size - block))
                digest.update(file.read())
        changed = status.st_mtime_ns if status.st_size > 2 * block else 0
        found.append([path.relative_to(folder).as_posix(), status.st_size, digest.hexdigest(), changed])
    return found


def _cache(folder: str | os.PathLike[str] | None) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    place = Path(folder or os.environ.get("NVEMBED_CACHE") or Path(base) / "nvembed")
    place.mkdir(parents=True, exist_ok=True)
    return place


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process exports, the others wait for it."""
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
