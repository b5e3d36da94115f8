"""From a checkpoint to a model."""

import os

import numpy as np
import nvembed
import pytest
from conftest import CHECKPOINT, MODEL, TEXTS
from nvembed import CheckpointError, Embedder, OptionError


def test_a_checkpoint_is_exported_once(tmp_path, capfd):
    options = {"precision": "fp32", "target": "any", "cache_folder": tmp_path, "export_options": {"golden": False}}
    first = Embedder.from_checkpoint(CHECKPOINT, **options)
    made = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(made) == 1
    assert "licen" in capfd.readouterr().err
    before = os.stat(made[0] / "nvembed.json").st_mtime_ns
    second = Embedder.from_checkpoint(CHECKPOINT, **options)
    assert os.stat(made[0] / "nvembed.json").st_mtime_ns == before
    assert capfd.readouterr().err == ""
    wanted = Embedder(MODEL).encode(TEXTS)
    assert np.array_equal(first.encode(TEXTS), wanted)
    assert np.array_equal(second.encode(TEXTS), wanted)


def test_what_cannot_be_exported_says_why(tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match="no folder, and no id"):
        Embedder.from_checkpoint("nowhere", cache_folder=tmp_path)
    with pytest.raises(CheckpointError, match="config.json"):
        nvembed.export(tmp_path, tmp_path / "out")
    with pytest.raises(OptionError, match="no such option"):
        nvembed.export(CHECKPOINT, tmp_path / "out", precison="fp32")
    with pytest.raises(OptionError, match="w8a8"):
        nvembed.export(CHECKPOINT, tmp_path / "out", precision="w8a8", target="cuda")
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"nvembed\[hub\]"):
        Embedder.from_checkpoint("nvidia/NV-Embed-v2", cache_folder=tmp_path)
