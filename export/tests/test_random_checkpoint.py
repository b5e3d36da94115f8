"""The tool that writes random checkpoints of NV-Embed's size: shapes at full size, the rest on a tiny checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import random_checkpoint
from random_checkpoint import (
    FULL,
    MISTRAL_TOKENIZER,
    SOURCES,
    checkpoint_config,
    nbytes,
    shards,
    write_random_checkpoint,
)
from safetensors import safe_open
from seeded_checkpoint import Spec, tensor_plan

from nvembed_export.checkpoint import Checkpoint, expected_tensors
from nvembed_export.config import parse_config
from nvembed_export.errors import OutputError
from nvembed_export.export import ExportOptions, export

TINY = Spec(hidden=64, layers=3, heads=4, kv_heads=2, intermediate=96, latents=9, cross_dim=16, vocab=32000)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("random") / "tiny"
    write_random_checkpoint(folder, TINY, shard_bytes=200_000)
    return folder


def read(folder: Path) -> dict[str, np.ndarray]:
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            assert file.metadata() == {"format": "pt"}
            tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    return tensors


def test_the_full_size_is_nv_embeds():
    """7.85 B parameters and 15.70 GB are NVIDIA's figures; these shapes do not come from the exporter."""
    plan = tensor_plan(FULL)
    parameters = sum(map(nbytes, plan)) // 2
    assert parameters == 7_851_016_192
    assert f"{parameters / 1e9:.2f} B, {2 * parameters / 1e9:.2f} GB" == "7.85 B, 15.70 GB"
    assert len(plan) == 1 + 32 * 9 + 1 + 14


@pytest.mark.parametrize("form", sorted(SOURCES))
def test_the_full_shapes_are_those_the_exporter_expects(form):
    config = parse_config(checkpoint_config(FULL, form))
    assert {item.name: item.shape for item in tensor_plan(FULL)} == expected_tensors(config)
    assert (config.text.max_position_embeddings, config.text.rope_theta) == (32768, 10000.0)


def test_the_full_checkpoint_has_four_files():
    parts = shards(tensor_plan(FULL))
    sizes = [sum(map(nbytes, part)) for part in parts]
    assert len(parts) == 4
    assert all(4e9 < size <= 5e9 for size in sizes[:-1])
    assert [item for part in parts for item in part] == tensor_plan(FULL)


def test_a_tiny_one_can_be_read_and_exported(tiny, out):
    assert len(list(tiny.glob("*.safetensors"))) > 2
    config = parse_config(json.loads((tiny / "config.json").read_text()))
    Checkpoint.open(tiny, config)
    assert (tiny / "tokenizer.json").read_bytes() == MISTRAL_TOKENIZER.read_bytes()
    summary = export(tiny, out, ExportOptions())
    assert (summary.name, summary.license) == ("tiny", "apache-2.0")


def test_values_have_the_planned_mean_and_scale(tiny):
    tensors = read(tiny)
    for item in tensor_plan(TINY):
        array = tensors.pop(item.name).astype(np.float64)
        assert array.shape == item.shape
        error = 5 / np.sqrt(array.size)  # five standard errors; the seed is fixed
        assert abs(array.mean() - item.mean) < error * item.scale
        assert abs(array.std() / item.scale - 1) < error
    assert not tensors


def test_values_depend_on_seed_and_name_but_not_on_depth(tiny, tmp_path):
    write_random_checkpoint(tmp_path / "shallow", TINY.but(layers=1))
    write_random_checkpoint(tmp_path / "other", TINY.but(layers=1, seed=1))
    whole, shallow, other = (read(folder) for folder in (tiny, tmp_path / "shallow", tmp_path / "other"))
    q_proj = "embedding_model.layers.{}.self_attn.q_proj.weight"
    assert all(np.array_equal(array, whole[name]) for name, array in shallow.items())
    assert not any(np.array_equal(array, whole[name]) for name, array in other.items())
    assert not np.array_equal(whole[q_proj.format(0)], whole[q_proj.format(1)])


def test_blocks_do_not_change_the_shapes(tmp_path, monkeypatch):
    monkeypatch.setattr(random_checkpoint, "BLOCK_VALUES", 1000)
    write_random_checkpoint(tmp_path / "blocks", TINY)
    assert {name: array.shape for name, array in read(tmp_path / "blocks").items()} == {
        item.name: item.shape for item in tensor_plan(TINY)
    }


def test_too_little_space_is_reported_before_anything_is_written(tmp_path, monkeypatch):
    usage = random_checkpoint.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(random_checkpoint.shutil, "disk_usage", lambda _: usage._replace(free=15_000_000_000))
    with pytest.raises(OutputError, match=r"disk has 15000000000 bytes free, needed 15704\d{6}$"):
        write_random_checkpoint(tmp_path / "full")
    assert list(tmp_path.iterdir()) == []


def test_the_command_line(tmp_path):
    command = [sys.executable, random_checkpoint.__file__, str(tmp_path)]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert (refused.returncode, refused.stdout) == (4, "")
    assert "output already exists" in refused.stderr
    assert subprocess.run([*command, "--layers", "0"], capture_output=True).returncode == 2
