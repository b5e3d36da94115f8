"""The model folder appears complete or not at all, whatever goes wrong while it is written."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from failing import FP32, assert_fails

import nvembed_export.external_data
import nvembed_export.output
from nvembed_export.errors import OutputError
from nvembed_export.export import ExportOptions, export

FORCE = ExportOptions(precision="fp32", force=True)
TOKEN = "0123456789abcdef"  # of another export


def test_existing_folder_is_kept(small, out):
    export(small, out, FP32)
    before = (out / "nvembed.json").stat()
    assert_fails(small, out, OutputError, str(out), "already exists", "--force")
    assert (out / "nvembed.json").stat() == before


def test_force_replaces_a_model_folder(small, out):
    export(small, out, FP32)
    (out / "stray").write_text("from before")
    export(small, out, ExportOptions(precision="fp16", force=True))
    assert not (out / "stray").exists()
    assert '"fp16"' in (out / "nvembed.json").read_text()
    assert list(out.parent.iterdir()) == [out]


def test_force_fills_an_empty_folder(small, out):
    out.mkdir()
    export(small, out, FORCE)
    assert (out / "nvembed.json").exists()


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_force_replaces_only_model_folders(small, out, kind):
    if kind == "folder":
        out.mkdir()
        (out / "thesis.txt").write_text("years of work")
    elif kind == "file":
        out.write_text("years of work")
    else:
        elsewhere = small.parent / "elsewhere"
        export(small, elsewhere, FP32)
        out.symlink_to(elsewhere)
    assert_fails(small, out, OutputError, str(out), "not a model folder", "nvembed.json", options=FORCE)


def test_force_keeps_the_old_folder_when_the_export_fails(small, out):
    export(small, out, FP32)
    (small / "model.safetensors").write_bytes(b"")
    with pytest.raises(Exception, match="found 0 bytes"):
        export(small, out, FORCE)
    assert (out / "nvembed.json").exists()
    assert list(out.parent.iterdir()) == [out]


def test_force_keeps_the_old_folder_when_the_last_rename_fails(small, out, monkeypatch):
    export(small, out, FP32)
    rename = os.rename

    def failing(self, target):
        if ".partial-" in self.name:
            raise OSError(errno.EIO, "Input/output error")
        rename(self, target)

    monkeypatch.setattr("pathlib.Path.rename", failing)
    with pytest.raises(OutputError, match="complete, but could not be put in place: input/output error") as caught:
        export(small, out, FORCE)
    assert (out / "nvembed.json").exists()
    kept = [path for path in out.parent.iterdir() if path != out]
    assert len(kept) == 1
    assert str(caught.value).endswith(str(kept[0]))
    monkeypatch.undo()
    export(small, out, FORCE)
    assert (kept[0] / "nvembed.json").exists()  # it is no leftover


def test_output_must_not_contain_the_checkpoint(small):
    for target in (small, small.parent):
        with pytest.raises(OutputError, match="contains the checkpoint"):
            export(small, target, FORCE)
    assert (small / "config.json").exists()


def test_missing_parents_are_created_and_removed_after_a_failure(small, out):
    deep = out / "a" / "b"
    export(small, deep, FP32)
    assert (deep / "nvembed.json").exists()
    shutil.rmtree(out)
    (small / "model.safetensors").write_bytes((small / "model.safetensors").read_bytes()[:-1] + b"\x7f")
    with pytest.raises(Exception, match="finite"):
        export(small, deep, FP32)
    assert not out.exists()


def test_parent_that_is_a_file(small, out):
    out.write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        export(small, out / "model", FP32)


def test_parent_without_permission(small, out):
    if os.geteuid() == 0:
        pytest.skip("root can write everywhere")
    out.parent.chmod(0o500)
    try:
        assert_fails(small, out, OutputError, str(out), "permission denied")
    finally:
        out.parent.chmod(0o700)


def test_too_little_space_is_detected_before_anything_is_written(small, out, monkeypatch):
    usage = shutil.disk_usage(out.parent)
    monkeypatch.setattr(nvembed_export.output.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    monkeypatch.setattr(nvembed_export.external_data.ExternalData, "write", None)
    message = assert_fails(small, out, OutputError, "1000 bytes free", "needed")
    needed = int(message.rsplit(" ", 1)[-1])
    monkeypatch.undo()
    export(small, out, FP32)
    written = sum(file.stat().st_size for file in out.iterdir())
    assert written <= needed <= written + 200_000


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_disk_fills_up_while_weights_are_written(small, out, monkeypatch, code):
    count = 0

    def failing(file, data):
        nonlocal count
        count += 1
        if count > 9:
            raise OSError(code, os.strerror(code))
        file.write(data)

    monkeypatch.setattr(nvembed_export.external_data, "_write_all", failing)
    assert_fails(small, out, OutputError, str(out), "disk full after", "needed")


def test_file_size_limit(small, out):
    """A real short write and a real error from the system, without a small disk."""
    resource = pytest.importorskip("resource", reason="no file size limits on this system")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        assert_fails(small, out, OutputError, str(out), "disk full after", "needed")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk(small, tmp_path, monkeypatch):
    """On a file system of 64 KiB, first with the check of free space, then without it so that a write fails."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)]
    if os.geteuid() != 0 or not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs here (needs root and permission to mount)")
    try:
        assert_fails(small, mount / "model", OutputError, "bytes free", "needed")
        usage = shutil.disk_usage(mount)
        monkeypatch.setattr(nvembed_export.output.shutil, "disk_usage", lambda _: usage._replace(free=1 << 40))
        assert_fails(small, mount / "model", OutputError, "disk full after", "needed", "no space left")
    finally:
        subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, MemoryError])
def test_nothing_is_left_after_any_other_exception(small, out, monkeypatch, stop):
    def failing(file, data):
        raise stop

    monkeypatch.setattr(nvembed_export.external_data, "_write_all", failing)
    with pytest.raises(stop):
        export(small, out, FP32)
    assert list(out.parent.iterdir()) == []


# A process that sleeps for a minute once it has written part of the weights, so that a signal arrives at that point.
SLOW_EXPORT = """
import signal, sys, time
import nvembed_export.external_data as external_data
from nvembed_export.cli import main

write_all = external_data._write_all

def slow(file, data):
    write_all(file, data)
    if file.tell() > 50_000:
        time.sleep(60)

external_data._write_all = slow
# A shell starts background jobs with SIGINT ignored, and children inherit that: set the handler a terminal would give.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main(sys.argv[1:]))
"""


def start_slow_export(small, out) -> tuple[subprocess.Popen, list[Path]]:
    """A real process in the middle of writing weights, and the paths it has created beside `out`.

    The timeout is long because a busy disk can delay the process.
    """
    command = [sys.executable, "-c", SLOW_EXPORT, str(small), str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not any(data.stat().st_size > 50_000 for data in out.parent.glob(".model.partial-*/model.onnx.data")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process, sorted(out.parent.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_signal_during_the_export_leaves_nothing(small, out, number):
    process, made = start_slow_export(small, out)
    assert [path.name.rsplit("-", 1)[0] for path in made] == [".model.lock", ".model.partial"]
    process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted" in stderr
    assert list(out.parent.iterdir()) == []


def sibling(out, kind: str, name: str = "model") -> Path:
    return out.with_name(f".{name}.{kind}-{TOKEN}")


def test_running_export_is_left_alone_and_a_killed_one_is_cleaned_up(small, out):
    pytest.importorskip("fcntl", reason="no file locks on this system")
    process, made = start_slow_export(small, out)
    try:
        export(small, out, FP32)
        assert sorted(out.parent.iterdir()) == sorted([*made, out])
    finally:
        process.kill()
        process.communicate()
    assert sorted(out.parent.iterdir()) == sorted([*made, out])
    export(small, out, FORCE)
    assert list(out.parent.iterdir()) == [out]


def test_export_whose_lock_is_held_elsewhere_is_left_alone(small, out):
    """Names do not identify processes, so a lock held by this process looks like one held by another container."""
    fcntl = pytest.importorskip("fcntl", reason="no file locks on this system")
    partial, old = sibling(out, "partial"), sibling(out, "old")
    partial.mkdir()
    old.mkdir()
    with sibling(out, "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        export(small, out, FP32)
        assert sorted(out.parent.iterdir()) == sorted([Path(lock.name), partial, old, out])
    export(small, out, FORCE)
    assert list(out.parent.iterdir()) == [out]


def test_only_leftovers_of_a_dead_exporter_of_the_same_folder_are_removed(small, out):
    pytest.importorskip("fcntl", reason="no file locks on this system")
    sibling(out, "lock").touch()
    sibling(out, "partial").mkdir()
    (sibling(out, "partial") / "model.onnx.data").write_bytes(b"half")
    unlocked = out.with_name(".model.partial-fedcba9876543210")
    others = [sibling(out, "lock", "another"), sibling(out, "partial", "another"), unlocked]
    for other in others:
        other.mkdir()
    export(small, out, FP32)
    assert sorted(out.parent.iterdir()) == sorted([*others, out])


@pytest.mark.parametrize("missing", ["module", "file system"])
def test_without_locks_exports_work_and_leave_others_alone(small, out, monkeypatch, missing):
    fcntl = pytest.importorskip("fcntl", reason="no file locks on this system")

    def failing(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    if missing == "module":
        monkeypatch.setattr(nvembed_export.output, "fcntl", None)
    else:
        monkeypatch.setattr(fcntl, "flock", failing)
    lock, partial = sibling(out, "lock"), sibling(out, "partial")
    lock.touch()
    partial.mkdir()
    export(small, out, FP32)
    assert sorted(out.parent.iterdir()) == sorted([lock, partial, out])


def test_lock_file_removed_as_stale_before_it_was_locked_is_created_again(small, out, monkeypatch):
    """Another exporter that cleans up may find the file after it is created and before it is locked."""
    fcntl = pytest.importorskip("fcntl", reason="no file locks on this system")
    flock, taken = fcntl.flock, []

    def late(descriptor, operation):
        flock(descriptor, operation)
        if not taken:
            taken.extend(out.parent.glob(".model.lock-*"))
            taken[0].unlink()

    monkeypatch.setattr(fcntl, "flock", late)
    with nvembed_export.output.partial_folder(out, False, 0) as partial:
        assert sorted(out.parent.iterdir()) == sorted([*taken, partial])
    assert list(out.parent.iterdir()) == [out]


def test_folder_that_a_dead_exporter_had_set_aside_is_restored(small, out):
    pytest.importorskip("fcntl", reason="no file locks on this system")
    export(small, out, FP32)
    out.rename(sibling(out, "old"))
    sibling(out, "lock").touch()
    (small / "README.md").unlink()
    message = assert_restored(small, out)
    assert "appeared" in message
    assert '"apache-2.0"' in (out / "nvembed.json").read_text()


def test_folder_that_could_not_be_restored_is_restored_by_the_next_export(small, out, monkeypatch):
    pytest.importorskip("fcntl", reason="no file locks on this system")
    export(small, out, FP32)
    rename = os.rename

    def failing(self, target):
        if ".partial-" in self.name or ".old-" in self.name:
            raise OSError(errno.EIO, "Input/output error")
        rename(self, target)

    monkeypatch.setattr("pathlib.Path.rename", failing)
    with pytest.raises(OutputError, match="input/output error"):
        export(small, out, FORCE)
    assert not out.exists()
    monkeypatch.undo()
    assert "appeared" in assert_restored(small, out)


def assert_restored(small, out) -> str:
    """An export finds the old folder, moved back, and keeps its own under another name."""
    with pytest.raises(OutputError) as caught:
        export(small, out, FP32)
    kept = [path for path in out.parent.iterdir() if path != out]
    assert all(".finished-" in path.name or ".partial-" in path.name for path in kept)
    assert any(str(path) in str(caught.value) for path in kept)
    return str(caught.value)


def test_a_file_system_without_fsync_of_folders_is_no_failure(small, out, monkeypatch):
    fsync, refused = os.fsync, []

    def failing(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            refused.append(descriptor)
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    export(small, out, FP32)
    assert refused


def test_an_error_of_fsync_that_means_lost_data_is_a_failure(small, out, monkeypatch):
    def failing(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    assert_fails(small, out, OutputError, "input/output error")


def test_a_disk_that_does_not_know_its_size_is_not_full(small, out, monkeypatch):
    usage = shutil.disk_usage(out.parent)
    unknown, full = usage._replace(total=0, used=0, free=0), usage._replace(free=0)
    monkeypatch.setattr(nvembed_export.output.shutil, "disk_usage", lambda _: full)
    assert_fails(small, out, OutputError, "0 bytes free")
    monkeypatch.setattr(nvembed_export.output.shutil, "disk_usage", lambda _: unknown)
    export(small, out, FP32)


FILES = ["golden.json", "model.onnx", "model.onnx.data", "nvembed.json", "tokenizer.json"]


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EXDEV, errno.EPERM, errno.ENOTSUP])
@pytest.mark.parametrize("before", ["nothing", "empty", "model"])
def test_where_folders_cannot_be_renamed_the_files_are_moved(small, out, monkeypatch, code, before):
    """As with a mount point that nothing tells, or a file system that renames files only."""
    if before == "model":
        export(small, out, ExportOptions("fp16"))
        (out / "stray").write_text("from before")
    elif before == "empty":
        out.mkdir()

    def failing(self, target):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("pathlib.Path.rename", failing)
    export(small, out, FORCE)
    assert list(out.parent.iterdir()) == [out]
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert '"fp32"' in (out / "nvembed.json").read_text()


def mounted(folder, *options):
    """Mount something on a folder, or skip."""
    command = ["mount", *options, str(folder)]
    if os.geteuid() != 0 or not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("cannot mount here (needs root and permission to mount)")


@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_a_mount_point_is_filled_in_place(small, tmp_path, out, kind):
    """As `docker -v volume:/out` gives one; a folder of the same file system is mounted in the second case."""
    out = out.with_name("model with space")
    out.mkdir()
    (tmp_path / "volume").mkdir()
    mounted(out, *(["-t", "tmpfs", "tmpfs"] if kind == "tmpfs" else ["--bind", str(tmp_path / "volume")]))
    try:
        export(small, out, FORCE)
        assert list(out.parent.iterdir()) == [out]
        assert (out / "nvembed.json").exists()
        (out / "stray").write_text("from before")
        export(small, out, ExportOptions("fp16", force=True))
        assert sorted(path.name for path in out.iterdir()) == FILES
        (small / "model.safetensors").write_bytes(b"")
        with pytest.raises(Exception, match="found 0 bytes"):
            export(small, out, FORCE)
        assert sorted(path.name for path in out.iterdir()) == FILES
    finally:
        subprocess.run(["umount", str(out)], check=True)


def test_the_free_space_is_that_of_the_file_system_that_is_mounted(small, out, monkeypatch):
    out.mkdir()
    asked = []
    usage = shutil.disk_usage(out)
    monkeypatch.setattr(nvembed_export.output, "_is_mount_point", lambda folder: folder == out)
    monkeypatch.setattr(nvembed_export.output.shutil, "disk_usage", lambda path: asked.append(path) or usage)
    export(small, out, FORCE)
    assert asked == [out]


def test_a_folder_in_a_parent_that_may_not_be_written_is_filled(small, out, monkeypatch):
    out.mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != out.parent and access(path, mode))
    export(small, out, FORCE)
    assert (out / "nvembed.json").exists()
    assert list(out.parent.iterdir()) == [out]


def test_a_model_that_cannot_be_replaced_file_by_file_is_moved_back(small, out, monkeypatch):
    export(small, out, FP32)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setattr(nvembed_export.output, "_is_mount_point", lambda folder: folder == out)
    move, count = shutil.move, []

    def failing(source, goal):
        count.append(source)
        if len(count) == 8:
            raise OSError(errno.EIO, "Input/output error")
        return move(source, goal)

    monkeypatch.setattr(nvembed_export.output.shutil, "move", failing)
    with pytest.raises(OutputError, match="could not be put in place: input/output error; it was kept: ") as caught:
        export(small, out, ExportOptions("fp16", force=True))
    kept = Path(str(caught.value).rsplit(": ", 1)[1])
    assert sorted(path.name for path in kept.iterdir()) == FILES
    assert {path.name: path.read_bytes() for path in out.iterdir() if path != kept} == before


def test_a_folder_that_appears_during_the_export_is_kept_and_so_is_the_export(small, out, monkeypatch):
    sync = nvembed_export.output._sync_tree
    monkeypatch.setattr(nvembed_export.output, "_sync_tree", lambda folder: (sync(folder), out.mkdir()))
    with pytest.raises(OutputError, match="appeared during the export; .*it was kept: ") as caught:
        export(small, out, FP32)
    kept = Path(str(caught.value).rsplit(": ", 1)[1])
    assert list(out.iterdir()) == []
    assert (kept / "nvembed.json").exists()
