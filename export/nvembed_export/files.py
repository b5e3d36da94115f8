"""Reading a checkpoint's small files, with one place that recognises what is not the file it should be."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from nvembed_export.errors import ExportError

POINTER = b"version https://git-lfs.github.com/spec/"  # how a Git LFS pointer begins


def is_there(path: Path, error: type[ExportError]) -> bool:
    """Whether there is a file or folder. Raises `error` for a link that leads nowhere: that is not the same as none."""
    if path.exists():
        return True
    if path.is_symlink():
        raise error(f"{path}: a link to {os.readlink(path)}, which is not there; finish the download, or copy the file")
    return False


def refuse_pointer(path: Path, error: type[ExportError]) -> None:
    """Raise `error` if the file is a Git LFS pointer, which a clone without git-lfs leaves in a file's place."""
    try:
        with path.open("rb") as stream:
            head = stream.read(len(POINTER))
    except OSError:  # whoever reads the file reports it
        return
    if head == POINTER:
        raise error(f"{path}: a Git LFS pointer and not the file itself; run `git lfs pull`, or download the file")


def read_bytes(path: Path, error: type[ExportError]) -> bytes:
    """The file's content. Raises `error`."""
    is_there(path, error)
    refuse_pointer(path, error)
    try:
        return path.read_bytes()
    except OSError as failure:
        raise error(f"{path}: cannot be read: {(failure.strerror or str(failure)).lower()}") from None


def read_json(path: Path, error: type[ExportError], kind: type = dict, content: bytes | None = None) -> Any:
    """The file's JSON, an object unless `kind` says otherwise. Raises `error`."""
    content = read_bytes(path, error) if content is None else content
    what = {dict: "an object", list: "a list"}[kind]
    try:
        values = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as failure:  # not UTF-8, not JSON, an integer too long, brackets too deep
        raise error(f"{path}: not valid JSON ({failure}), expected {what}") from None
    if not isinstance(values, kind):
        raise error(f"{path}: holds another value, expected {what}")
    return values
