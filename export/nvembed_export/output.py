"""The model folder appears whole or not at all: everything is written beside it and renamed at the end."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nvembed_export.errors import OutputError

MANIFEST_FILE = "nvembed.json"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk, quota, file size limit


def check_output(target: Path, checkpoint_dir: Path, force: bool) -> None:
    """Refuse a target that must not be written, before any work is done. Raises OutputError."""
    resolved, source = target.resolve(), checkpoint_dir.resolve()
    if resolved == source or resolved in source.parents:
        raise OutputError(f"{target}: output holds the checkpoint, {checkpoint_dir}; expected another folder")
    if not os.path.lexists(target):
        return
    if not force:
        raise OutputError(f"{target}: output exists, expected no such folder (--force replaces it)")
    if not _may_replace(target):
        raise OutputError(
            f"{target}: found no {MANIFEST_FILE} in it, expected a model folder; --force replaces no other"
        )


def _may_replace(target: Path) -> bool:
    """Only a model folder or an empty one: --force must not be a way to delete a home directory."""
    if target.is_symlink() or not target.is_dir():
        return False
    try:
        return (target / MANIFEST_FILE).is_file() or not any(target.iterdir())
    except OSError as error:
        raise OutputError(f"{target}: cannot be read: {(error.strerror or str(error)).lower()}") from None


@contextmanager
def partial_folder(target: Path, force: bool, needed_bytes: int) -> Iterator[Path]:
    """A temporary sibling of `target`, renamed to it when the body succeeds and removed when anything stops it.

    Raises OutputError when the disk holds fewer than `needed_bytes`, fills up, or cannot be written.
    """
    target = Path(os.path.abspath(target))
    made: list[Path] = []
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        try:
            made = _make_parents(target.parent)
            _clean_stale(target)
            free = shutil.disk_usage(target.parent).free
            if free < needed_bytes:
                raise OutputError(f"{target.parent}: disk has {free} bytes free, needed {needed_bytes}")
            partial.mkdir()
            yield partial
            _sync_tree(partial)
            _put_in_place(partial, target, force)
        except OSError as error:
            raise _output_error(error, target, partial, needed_bytes) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        for parent in reversed(made):
            _remove_if_empty(parent)
        raise


def _output_error(error: OSError, target: Path, partial: Path, needed: int) -> OutputError:
    if error.errno in FULL:
        written = sum(file.stat().st_size for file in partial.glob("*")) if partial.is_dir() else 0
        return OutputError(f"{target}: disk full after {written} bytes, needed {needed}: {error.strerror.lower()}")
    where = f" ({error.filename})" if error.filename else ""
    return OutputError(f"{target}: cannot be written: {(error.strerror or str(error)).lower()}{where}")


def _make_parents(parent: Path) -> list[Path]:
    """Create missing parents and return them, outermost first, so that a failure can take them away again."""
    missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    parent.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return


def _clean_stale(target: Path) -> None:
    """Take away what exporters that no longer run have left; a folder a dead one had set aside goes back."""
    pattern = re.compile(re.escape(f".{target.name}.") + r"(partial|old)-(\d+)")
    for path in target.parent.iterdir():
        match = pattern.fullmatch(path.name)
        if not match or _is_running(int(match[2])):
            continue
        if match[1] == "old" and not os.path.lexists(target):
            path.rename(target)
        else:
            shutil.rmtree(path)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return pid != os.getpid()


def _sync_tree(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _put_in_place(partial: Path, target: Path, force: bool) -> None:
    """Rename; with `force` an existing folder steps aside first and comes back if the second rename fails."""
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    if os.path.lexists(target):
        if not force:
            raise OutputError(f"{target}: output appeared during the export, expected no such folder")
        target.rename(old)
    try:
        partial.rename(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    shutil.rmtree(old, ignore_errors=True)
