"""pytorch_model.bin: the same export as from safetensors; a file that would run code is refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from failing import FP32, assert_fails
from seeded_checkpoint import random_tensors, write_weights

from nvembed_export.checkpoint import Checkpoint
from nvembed_export.config import load_config
from nvembed_export.errors import CheckpointError
from nvembed_export.export import export

FILES = Path(__file__).resolve().parent / "pytorch"
SINGLE = "pytorch_model.bin"


@pytest.fixture
def bin(small):
    """A function that replaces the small checkpoint's weights with a file that PyTorch wrote."""
    (small / "model.safetensors").unlink()

    def put(name: str):
        shutil.copy(FILES / name, small / SINGLE)
        return small

    return put


def test_the_export_is_the_same_as_that_of_the_same_weights_in_safetensors(small, bin, out, small_spec):
    export(bin("state_dict.bin"), out.parent / "a", FP32)
    (small / SINGLE).unlink()
    write_weights(small, random_tensors(small_spec), "F16")
    export(small, out.parent / "b", FP32)
    for file in ("model.onnx", "model.onnx.data", "golden.json", "tokenizer.json", "nvembed.json"):
        assert (out.parent / "a" / file).read_bytes() == (out.parent / "b" / file).read_bytes(), file


def test_parameters_in_one_storage_behind_a_prefix(small, bin, small_spec):
    checkpoint = Checkpoint.open(bin("parameters.bin"), load_config(small))
    for name, array in random_tensors(small_spec).items():
        # PyTorch rounds to the nearest, ties to even: add half a unit of the last place that is kept, and cut.
        bits = array.view(np.uint32)
        expected = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)
        assert np.array_equal(checkpoint.rows(name), expected), name
    assert checkpoint.notes == ["all tensor names begin with `_orig_mod.`, which was left out"]


@pytest.mark.parametrize(
    ("file", "fragments"),
    [
        ("transposed.bin", ["`transposed`", "strides [1, 3]", ".contiguous()"]),
        ("training.bin", ["`state_dict` is a dictionary", "state_dict()"]),
        ("module.bin", ["torch.nn.modules.linear.Linear", "nothing was run"]),
        ("legacy.bin", ["PyTorch 1.6", "safetensors"]),
    ],
)
def test_what_is_no_state_dict_of_contiguous_tensors(bin, out, file, fragments):
    assert_fails(bin(file), out, CheckpointError, SINGLE, *fragments)


def test_shards_with_an_index(small, out, small_spec):
    """Which file has which tensor: the index must agree, as for safetensors."""
    (small / "model.safetensors").unlink()
    shutil.copy(FILES / "state_dict.bin", small / "pytorch_model-00001-of-00002.bin")
    names = list(random_tensors(small_spec))
    index = {"weight_map": dict.fromkeys(names, "pytorch_model-00001-of-00002.bin")}
    (small / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert Checkpoint.open(small, load_config(small)).shape(names[0]) == (384, 32)
    index["weight_map"]["other"] = "pytorch_model-00002-of-00002.bin"
    (small / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert_fails(small, out, CheckpointError, "`pytorch_model-00002-of-00002.bin`", "missing")


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def rewritten(small, change) -> None:
    """The committed state dict with its zip entries changed: change(entries) with name -> bytes."""
    with zipfile.ZipFile(FILES / "state_dict.bin") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    write_entries(small, change(entries) or entries)


def write_entries(small, entries, compression=zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(small / SINGLE, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def test_a_pickle_that_calls_a_function_is_refused_and_nothing_is_run(small, out, tmp_path):
    (small / "model.safetensors").unlink()
    trace = tmp_path / "trace"
    rewritten(small, lambda entries: entries | {"state_dict/data.pkl": pickle.dumps({"w": Evil(trace)}, 2)})
    assert_fails(small, out, CheckpointError, SINGLE, "mkdir`", "may run code", "nothing was run")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        ({"byteorder": b"big"}, ["byte order is 'big'"]),
        ({"data/0": b""}, ["needs bytes up to", "which has 0"]),
        ({"data/0": None}, ["`state_dict/data/0`", "missing"]),
        ({"data.pkl": None}, ["0 entries `*/data.pkl`"]),
        ({"data.pkl": b"\x80\x02K\x01."}, ["holds no dictionary"]),
        ({"data.pkl": b"\x80\x02}X\x01\x00\x00\x00aK\x01s."}, ["`a` is no tensor"]),
        ({"data.pkl": b"\x80\x02K\x01Q."}, ["damaged pickle"]),
        ({"data.pkl": b""}, ["inside the pickle"]),
    ],
    ids=str,
)
def test_a_damaged_file(small, out, change, fragments):
    (small / "model.safetensors").unlink()
    changed = {f"state_dict/{name}": data for name, data in change.items()}
    rewritten(small, lambda entries: {n: d for n, d in (entries | changed).items() if d is not None})
    assert_fails(small, out, CheckpointError, SINGLE, *fragments)


def test_compressed_entries_and_what_is_no_zip_file(small, out):
    (small / "model.safetensors").unlink()
    write_entries(small, {"archive/data.pkl": b"N" * 500}, zipfile.ZIP_DEFLATED)
    assert_fails(small, out, CheckpointError, SINGLE, "compressed")
    data = (FILES / "state_dict.bin").read_bytes()
    for keep in (0, 3, 100, len(data) // 2, len(data) - 1):
        (small / SINGLE).write_bytes(data[:keep])
        assert_fails(small, out, CheckpointError, SINGLE)
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr("a/data.pkl", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/data.pkl", b"2")
    (small / SINGLE).write_bytes(twice.getvalue())
    assert_fails(small, out, CheckpointError, SINGLE, "twice")


def test_every_damaged_byte_is_an_error_or_a_file_that_can_be_read(small):
    (small / "model.safetensors").unlink()
    data, config, rng = (FILES / "state_dict.bin").read_bytes(), load_config(small), np.random.default_rng(0)
    pkl = data.index(b"data.pkl")
    places = [*range(0, 3000), *range(pkl, pkl + 3000), *range(len(data) - 4000, len(data))]
    refused = 0
    for at in rng.choice(places, 300, replace=False):
        changed = bytearray(data)
        changed[at] ^= 1 << int(rng.integers(8))
        (small / SINGLE).write_bytes(changed)
        try:
            Checkpoint.open(small, config)
        except CheckpointError:
            refused += 1
    assert refused > 20
