"""The model's name and source in the manifest, and what they tell about its version."""

from __future__ import annotations

import os
import re
from pathlib import Path

from nvembed_export.errors import UsageError

_CACHE = "models--"  # Hugging Face's cache: models--ORGANISATION--NAME/snapshots/COMMIT
_PLAIN = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]*")


def check_text(option: str, text: str | None) -> None:
    """Raise UsageError for a name that cannot be written as text, or that would move a terminal's cursor."""
    if text is not None and not _PLAIN.fullmatch(text):
        raise UsageError(f"{option} is {text!a}, expected text without control characters")
    if text is not None and not text.strip():
        raise UsageError(f"{option} is {text!a}, expected a name")


def folder_name(directory: Path) -> str:
    """The folder's name as the user gave it, links not followed; for a snapshot in Hugging Face's cache the model's."""
    path = Path(os.path.abspath(directory))
    model = path.parent.parent.name
    if path.parent.name == "snapshots" and model.startswith(_CACHE):
        return _printable(model.removeprefix(_CACHE).split("--")[-1])
    return _printable(path.name)


def source_name(name_or_path: str, directory: Path) -> str:
    """config.json's `_name_or_path` without the folders of somebody's machine; else the folder's name."""
    path = Path(os.path.abspath(directory))
    model = path.parent.parent.name
    if path.parent.name == "snapshots" and model.startswith(_CACHE):
        return _printable(model.removeprefix(_CACHE).replace("--", "/"))
    parts = [part for part in re.split(r"[/\\]+", name_or_path) if part not in ("", ".", "..")]
    is_path = len(parts) > 2 or re.match(r"[/\\~.]|[A-Za-z]:", name_or_path) is not None
    return _printable("/".join(parts[-1:] if is_path else parts)) or folder_name(directory)


def version(*names: str) -> str | None:
    """ "v1" or "v2" of NV-Embed if the names say one of them and not the other."""
    found = {match[1] for name in names for match in re.finditer(r"nv-embed-(v[12])(?!\d)", name.lower())}
    return found.pop() if len(found) == 1 else None


def _printable(name: str) -> str:
    return "".join(c if _PLAIN.fullmatch(c) else c.encode("unicode_escape").decode("ascii") for c in name)
