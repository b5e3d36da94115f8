"""Writes the model folder atomically: everything goes into a temporary sibling that is renamed at the end."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from nvembed_export.errors import OutputError

try:
    import fcntl
except ImportError:  # not POSIX: without locks, leftovers of other exporters are not cleaned up
    fcntl = None

MANIFEST_FILE = "nvembed.json"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk, quota, file size limit


def check_output(target: Path, checkpoint_dir: Path, force: bool) -> None:
    """Raise OutputError for a target that must not be written, before any work is done."""
    resolved, source = target.resolve(), checkpoint_dir.resolve()
    if resolved == source or resolved in source.parents:
        raise OutputError(f"{target}: output folder contains the checkpoint {checkpoint_dir}; choose another folder")
    if not os.path.lexists(target):
        return
    if not force:
        raise OutputError(f"{target}: output already exists; choose another folder or replace it with --force")
    if not _may_replace(target):
        raise OutputError(
            f"{target}: not a model folder (a folder with {MANIFEST_FILE}); --force replaces nothing else, choose "
            "another folder"
        )


def _may_replace(target: Path) -> bool:
    """Only a model folder or an empty folder: --force must not delete anything else, such as a home directory."""
    if target.is_symlink() or not target.is_dir():
        return False
    try:
        return (target / MANIFEST_FILE).is_file() or not any(target.iterdir())
    except OSError as error:
        raise OutputError(f"{target}: cannot be read: {(error.strerror or str(error)).lower()}") from None


@contextmanager
def partial_folder(target: Path, force: bool, needed_bytes: int) -> Iterator[Path]:
    """A temporary sibling of `target`: renamed to `target` if the body succeeds, removed if anything stops it.

    Raises OutputError if the disk has less than `needed_bytes` free, fills up, or cannot be written.
    """
    target = Path(os.path.abspath(target))
    made: list[Path] = []
    lock_held = ExitStack()
    lock, partial, old = _siblings(target, secrets.token_hex(8))
    try:
        try:
            made = _make_parents(target.parent)
            _clean_stale(target)
            free = shutil.disk_usage(target.parent).free
            if free < needed_bytes:
                raise OutputError(f"{target.parent}: disk has {free} bytes free, needed {needed_bytes}")
            lock_held.enter_context(_locked(lock, partial, old))
            partial.mkdir()
            yield partial
            _sync_tree(partial)
            _put_in_place(partial, target, old, force)
        except OSError as error:
            raise _output_error(error, target, partial, needed_bytes) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        lock_held.close()  # after removing the folder it protects, before removing the parents it is in
        for parent in reversed(made):
            _remove_if_empty(parent)
        raise
    lock_held.close()


def _siblings(target: Path, token: str) -> tuple[Path, Path, Path]:
    """Paths that one export creates beside its target: lock file, folder being written, folder being replaced."""
    lock, partial, old = (target.with_name(f".{target.name}.{kind}-{token}") for kind in ("lock", "partial", "old"))
    return lock, partial, old


def _output_error(error: OSError, target: Path, partial: Path, needed: int) -> OutputError:
    if error.errno in FULL:
        written = sum(file.stat().st_size for file in partial.glob("*")) if partial.is_dir() else 0
        return OutputError(f"{target}: disk full after {written} bytes, needed {needed}: {error.strerror.lower()}")
    where = f" ({error.filename})" if error.filename else ""
    return OutputError(f"{target}: cannot be written: {(error.strerror or str(error)).lower()}{where}")


def _make_parents(parent: Path) -> list[Path]:
    """Create missing parents and return them, outermost first, so that they can be removed after a failure."""
    missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    parent.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return


@contextmanager
def _locked(lock: Path, *folders: Path) -> Iterator[None]:
    """Hold a lock file while the body runs. The file is kept only if one of `folders` is left, to mark it as ours.

    A lock works where a pid would not: with another container or host that sees the same folder.
    """
    if fcntl is None:
        yield
        return
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:  # this file system has no locks; without the file no exporter will try to take one
            lock.unlink(missing_ok=True)
            break
        if lock.exists():
            break
        os.close(descriptor)  # another exporter removed the file as stale before we had locked it: try again
    try:
        yield
    finally:
        with suppress(OSError):
            if not any(folder.exists() for folder in folders):
                lock.unlink(missing_ok=True)
        os.close(descriptor)


def _clean_stale(target: Path) -> None:
    """Remove leftovers of exporters that no longer run, and move a folder that one had set aside back to `target`.

    An exporter no longer runs if its lock file exists and can be locked. Everything else is left alone.
    """
    if fcntl is None:
        return
    pattern = re.compile(re.escape(f".{target.name}.lock-") + r"([0-9a-f]{16})")
    for match in [pattern.fullmatch(path.name) for path in target.parent.iterdir()]:
        if not match:
            continue
        lock, partial, old = _siblings(target, match[1])
        try:
            descriptor = os.open(lock, os.O_RDWR)
        except OSError:  # removed in the meantime, or owned by another user
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # held by a running exporter, or locks do not work here
            os.close(descriptor)
            continue
        try:
            if old.exists() and not os.path.lexists(target):
                old.rename(target)
            for folder in (partial, old):
                if folder.exists():
                    shutil.rmtree(folder)
            lock.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _put_in_place(partial: Path, target: Path, old: Path, force: bool) -> None:
    """Rename `partial` to `target`. With `force`, an existing target moves to `old`, and back if the rename fails."""
    if os.path.lexists(target):
        if not force:
            raise OutputError(f"{target}: output appeared during the export and was kept; replace it with --force")
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
