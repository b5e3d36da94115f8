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
# Of fsync, on network file systems and file systems in user space that have no such operation.
UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EROFS)
# Of rename: a mount point, another file system, or one that does not rename folders.
NO_RENAME = (errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


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
    """A temporary folder: it becomes `target` if the body succeeds, and is removed if anything stops the body.

    It is a sibling of `target`, which is renamed at the end. A target that cannot be renamed, because it is a mount
    point or its parent may not be written, has the temporary folder inside, and gets the files one by one.

    A complete folder that cannot be put in place is kept, and the error says where. Raises OutputError if the disk has
    less than `needed_bytes` free, fills up, or cannot be written.
    """
    target = Path(os.path.abspath(target))
    made: list[Path] = []
    lock_held = ExitStack()
    inside = _must_be_filled(target)
    lock, partial, old = _siblings(target / target.name if inside else target, secrets.token_hex(8))
    try:
        try:
            made = _make_parents(partial.parent)
            _clean_stale(target, inside)
            usage = shutil.disk_usage(partial.parent)
            # Some file systems in user space say that they have 0 of 0 bytes: they do not know.
            if usage.free < needed_bytes and usage.total > 0:
                raise OutputError(f"{partial.parent}: disk has {usage.free} bytes free, needed {needed_bytes}")
            lock_held.enter_context(_locked(lock, partial, old))
            partial.mkdir()
            yield partial
            _sync_tree(partial)
        except OSError as error:
            raise _output_error(error, target, partial, needed_bytes) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        lock_held.close()  # after removing the folder it protects, before removing the parents it is in
        for parent in reversed(made):
            _remove_if_empty(parent)
        raise
    try:
        if inside:
            _fill(partial, target, old)
        else:
            _put_in_place(partial, target, old, force)
    except (OSError, OutputError) as error:
        kept = _keep(partial, target)
        if not old.exists():
            lock.unlink(missing_ok=True)  # it would mark the folder as a leftover
        why = (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
        raise OutputError(
            f"{target}: the model folder is complete, but could not be put in place: {why}; it was kept: {kept}"
        ) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        lock_held.close()


def _must_be_filled(target: Path) -> bool:
    """Whether `target` is a folder that cannot be replaced by a rename."""
    if not target.is_dir() or target.is_symlink():
        return False
    return _is_mount_point(target) or not os.access(target.parent, os.W_OK | os.X_OK)


def _is_mount_point(folder: Path) -> bool:
    """As os.path.ismount, and also for a folder that is mounted from the same file system, as containers do."""
    if os.path.ismount(folder):
        return True
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return False
    escaped = os.fsencode(folder.resolve())
    for character in (b"\\", b" ", b"\t", b"\n"):
        escaped = escaped.replace(character, b"\\%03o" % character[0])
    return any(line.split(b" ")[4:5] == [escaped] for line in lines)


def _fill(partial: Path, target: Path, old: Path) -> None:
    """Move the files of `partial` into the folder `target`, the manifest last. What is in a model folder goes to `old`.

    If that fails, everything is moved back.
    """
    ours = {partial.name, old.name, old.name.replace(".old-", ".lock-")}
    moved: list[tuple[Path, Path]] = []

    def move(source: Path, goal: Path) -> None:
        shutil.move(source, goal)  # a rename, or a copy to another file system
        moved.append((source, goal))

    try:
        before = [path for path in target.iterdir() if path.name not in ours]
        if before:
            old.mkdir()
        # A folder without a manifest is no model folder: so it goes first and comes last.
        for path in sorted(before, key=lambda path: path.name != MANIFEST_FILE):
            move(path, old / path.name)
        for path in sorted(partial.iterdir(), key=lambda path: path.name == MANIFEST_FILE):
            move(path, target / path.name)
    except BaseException:
        with suppress(OSError):
            for source, goal in reversed(moved):
                shutil.move(goal, source)
            _remove_if_empty(old)
        raise
    _sync_tree(target)
    partial.rmdir()
    shutil.rmtree(old, ignore_errors=True)


def _keep(partial: Path, target: Path) -> Path:
    """Give a complete folder a name that no later export takes for a leftover, if it can be renamed."""
    kept = partial.with_name(f"{target.name}.finished-{partial.name[-16:]}")
    try:
        partial.rename(kept)
    except OSError:
        return partial
    return kept


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


def _clean_stale(target: Path, inside: bool) -> None:
    """Remove leftovers of exporters that no longer run, and move a folder that one had set aside back to `target`.

    An exporter no longer runs if its lock file exists and can be locked. Everything else is left alone.
    """
    if fcntl is None:
        return
    pattern = re.compile(re.escape(f".{target.name}.lock-") + r"([0-9a-f]{16})")
    folder = target if inside else target.parent
    for match in [pattern.fullmatch(path.name) for path in folder.iterdir()]:
        if not match:
            continue
        lock, partial, old = _siblings(folder / target.name, match[1])
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
            if old.exists() and not inside and not os.path.lexists(target):
                old.rename(target)
            if (partial / MANIFEST_FILE).is_file():  # complete, though it was not put in place
                _keep(partial, target)
            for folder in (partial, old):
                if folder.exists():
                    shutil.rmtree(folder)
            lock.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        _sync(path)


def _sync(path: Path) -> None:
    """fsync a file or folder. That a file system has no such operation, for folders above all, is no failure."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # some systems do not open folders
        if path.is_dir():
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def _put_in_place(partial: Path, target: Path, old: Path, force: bool) -> None:
    """Rename `partial` to `target`. With `force`, an existing target moves to `old`, and back if the rename fails.

    Where folders cannot be renamed, `target` is made and the files are moved into it.
    """
    if os.path.lexists(target):
        if not force:
            raise OutputError("the output appeared during the export; replace it with --force")
        try:
            target.rename(old)
        except OSError as error:
            if error.errno not in NO_RENAME or not target.is_dir():
                raise
            _fill(partial, target, old)
            return
    try:
        try:
            partial.rename(target)
        except OSError as error:
            if error.errno not in NO_RENAME:
                raise
            target.mkdir()
            _fill(partial, target, old.with_name(f"{old.name}-2"))
    except BaseException:
        if old.exists():
            _remove_if_empty(target)
            old.rename(target)
        raise
    _sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)
