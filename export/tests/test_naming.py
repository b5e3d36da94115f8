"""The model's name and limit, from the folder as it was given, from Hugging Face's cache, and from the files in it."""

from __future__ import annotations

import json
import os

import pytest
from failing import FP32, assert_fails
from seeded_checkpoint import write_checkpoint

from nvembed_export.errors import UsageError
from nvembed_export.export import ExportOptions, export

QUICK = ExportOptions("fp32", golden=False)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def set_name(checkpoint, value) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config.pop("_name_or_path")
    if value is not None:
        config["_name_or_path"] = value
    (checkpoint / "config.json").write_text(json.dumps(config))


def exported(checkpoint, out, options=QUICK) -> tuple[dict, list[str]]:
    summary = export(checkpoint, out, options)
    return json.loads((out / "nvembed.json").read_text()), list(summary.notes)


def test_the_folder_of_a_snapshot_in_the_cache_is_named_as_the_model(tmp_path, out, small_spec):
    """Its files are links to blobs, as huggingface_hub makes them."""
    cache = tmp_path / "models--nvidia--NV-Embed-v2"
    snapshot, blobs = cache / "snapshots" / COMMIT, cache / "blobs"
    blobs.mkdir(parents=True)
    write_checkpoint(snapshot, small_spec.but(positions=32768))
    set_name(snapshot, None)
    for number, file in enumerate(sorted(snapshot.iterdir())):
        file.rename(blobs / str(number))
        file.symlink_to(os.path.relpath(blobs / str(number), snapshot))
    found, notes = exported(snapshot, out)
    assert found["model"]["name"] == "NV-Embed-v2"
    assert found["model"]["source"] == "nvidia/NV-Embed-v2"
    assert found["max_length"] == 32768
    assert notes == []


def test_a_link_to_the_folder_gives_it_its_name(tmp_path, out, small_spec):
    folder = write_checkpoint(tmp_path / "models--x--y" / "snapshots" / COMMIT, small_spec.but(positions=32768))
    set_name(folder, None)
    (tmp_path / "NV-Embed-v2").symlink_to(folder)
    found, _ = exported(tmp_path / "NV-Embed-v2", out)
    assert found["model"]["name"] == found["model"]["source"] == "NV-Embed-v2"
    assert found["max_length"] == 32768


@pytest.mark.parametrize(
    ("value", "source"),
    [
        (None, "checkpoint"),
        ("", "checkpoint"),
        ("/", "checkpoint"),
        ("./", "checkpoint"),
        ("nvidia/NV-Embed-v2", "nvidia/NV-Embed-v2"),
        ("/home/someone/secret-project/ft/checkpoint-1200", "checkpoint-1200"),
        ("/models", "models"),
        ("~/ft", "ft"),
        ("./out/ft", "ft"),
        ("C:\\models\\ft", "ft"),
        ("a/b/c", "c"),
        ("ft\x1b[2J", "ft\\x1b[2J"),
    ],
)
def test_the_source_has_no_folders_of_a_machine_and_the_name_is_the_folders(small, out, value, source):
    set_name(small, value)
    found, _ = exported(small, out)
    assert found["model"]["name"] == "checkpoint"
    assert found["model"]["source"] == source


def test_the_default_limit_is_a_note_when_nothing_says_which_version_it_is(tmp_path, out, small_spec):
    folder = write_checkpoint(tmp_path / "ft", small_spec.but(positions=32768))
    found, notes = exported(folder, out)
    assert found["max_length"] == 4096
    assert len(notes) == 1
    assert "cut at 4096 tokens" in notes[0]
    assert "--max-length" in notes[0]
    card = "---\nlicense: mit\nmodel-index:\n- name: NV-Embed-v2\n  results: []\n---\n"
    (folder / "README.md").write_text(card)
    found, notes = exported(folder, out, ExportOptions("fp32", golden=False, force=True))
    assert (found["max_length"], notes) == (32768, [])


def test_names_that_contradict_each_other_decide_nothing(tmp_path, out, small_spec):
    folder = write_checkpoint(tmp_path / "NV-Embed-v1", small_spec.but(name="NV-Embed-v2", positions=32768))
    found, notes = exported(folder, out)
    assert found["max_length"] == 4096
    assert len(notes) == 1


def test_a_folder_whose_name_is_no_text_is_exported_with_an_escape(tmp_path, out, small_spec):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/mod\xe8le")
    try:
        checkpoint = write_checkpoint(folder, small_spec)
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    set_name(checkpoint, None)
    found, _ = exported(checkpoint, out, FP32)
    assert found["model"]["name"] == "mod\\udce8le"


@pytest.mark.parametrize("name", ["mod\udce8le", "a\x1b[31m", "a\nb", "", "  "])
@pytest.mark.parametrize("option", ["name", "license"])
def test_a_name_that_cannot_be_written_is_refused_at_the_start(small, out, option, name):
    (small / "config.json").unlink()  # what would be found next
    options = ExportOptions("fp32", **{option: name})
    assert_fails(small, out, UsageError, f"--{option} is ", "expected", options=options)
