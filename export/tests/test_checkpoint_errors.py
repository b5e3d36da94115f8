"""A damaged, incomplete or unsupported checkpoint is rejected; the message names the tensor or file and both values."""

from __future__ import annotations

import json

import numpy as np
import pytest
from failing import assert_fails
from seeded_checkpoint import random_tensors, write_checkpoint, write_safetensors, write_weights

from nvembed_export.checkpoint import Checkpoint
from nvembed_export.config import load_config
from nvembed_export.errors import CheckpointError, TensorError, WeightValueError
from nvembed_export.export import ExportOptions

Q_PROJ = "embedding_model.layers.0.self_attn.q_proj.weight"
NORM = "embedding_model.norm.weight"
NET_0 = "latent_attention_model.cross_attend_blocks.1.fn.net.0.weight"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def tensors(small_spec):
    return random_tensors(small_spec)


@pytest.fixture
def sharded(tmp_path, small_spec):
    return write_checkpoint(tmp_path / "sharded", small_spec.but(shards=2))


def rewrite(checkpoint, tensors, dtype="F16"):
    write_safetensors(checkpoint / "model.safetensors", tensors, dtype)


def test_missing_tensor(small, out, tensors):
    del tensors[Q_PROJ]
    rewrite(small, tensors)
    assert_fails(small, out, TensorError, f"missing tensors: `{Q_PROJ}`", "found 24 tensors", "expected 25")


def test_unexpected_tensor(small, out, tensors):
    rewrite(small, tensors | {"lm_head.weight": np.zeros((2, 2), np.float32)})
    assert_fails(small, out, TensorError, "unexpected tensors: `lm_head.weight`", "found 26 tensors", "expected 25")


PREFIXES = ["model.", "base_model.model.", "module.", "_orig_mod.", "0.auto_model.", "module._orig_mod."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_that_all_names_have_is_left_out(small, tensors, prefix):
    rewrite(small, {prefix + name: array for name, array in tensors.items()})
    checkpoint = Checkpoint.open(small, load_config(small))
    assert np.array_equal(checkpoint.rows(Q_PROJ), tensors[Q_PROJ].astype("f2"))
    assert checkpoint.notes == [f"all tensor names begin with `{prefix}`, which was left out"]


def test_a_prefix_that_some_names_have_is_an_error(small, out, tensors):
    renamed = {name if name == NORM else f"model.{name}": array for name, array in tensors.items()}
    rewrite(small, renamed)
    assert_fails(small, out, TensorError, "24 tensors have `model.` in front", "1 have not", f"`{NORM}`")


def test_long_list_of_missing_tensors_is_shortened(small, out, tensors):
    rewrite(small, {name: tensors[name] for name in (NORM, Q_PROJ)})
    assert_fails(small, out, TensorError, "and 20 more", "found 2 tensors", "expected 25")


@pytest.mark.parametrize("layers", [2, 3_000_000, 2**31 - 1])
def test_more_layers_than_the_files_have(small, out, layers):
    """Even if a table of all their tensors would take minutes or exceed memory."""
    config = json.loads((small / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = layers
    (small / "config.json").write_text(json.dumps(config))
    assert_fails(small, out, TensorError, "num_hidden_layers", f"is {layers}", "layers.N`) is 1")


def test_fewer_layers_than_the_files_have(tmp_path, small_spec, out):
    checkpoint = write_checkpoint(tmp_path / "three", small_spec.but(layers=3))
    config = json.loads((checkpoint / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 1
    (checkpoint / "config.json").write_text(json.dumps(config))
    fragments = "unexpected tensors: `embedding_model.layers.1", "found 43", "expected 25"
    assert_fails(checkpoint, out, TensorError, *fragments)


def test_wrong_shape(small, out, tensors):
    tensors[Q_PROJ] = tensors[Q_PROJ][:-1]
    rewrite(small, tensors)
    assert_fails(small, out, TensorError, f"`{Q_PROJ}`", "[31, 32]", "[32, 32]")


@pytest.mark.parametrize("dtype", ["F64", "I64"])
def test_wrong_dtype(small, out, tensors, dtype):
    rewrite(small, tensors, {Q_PROJ: dtype})
    assert_fails(small, out, TensorError, f"`{Q_PROJ}`", dtype, "F16, BF16 or F32")


@pytest.mark.parametrize("name", [Q_PROJ, NORM, NET_0])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_value_that_is_not_finite(small, out, tensors, name, value, dtype):
    tensors[name].flat[7] = value
    rewrite(small, tensors, dtype)
    assert_fails(small, out, WeightValueError, f"`{name}`", f"has {value}", "index 7", "finite")


def test_weight_beyond_the_range_of_fp16(small, out, tensors):
    tensors[Q_PROJ][3, 4] = -70000.0
    rewrite(small, tensors, "F32")
    fragments = f"`{Q_PROJ}`", "-70000", "65504", "--precision bf16 or fp32"
    assert_fails(small, out, WeightValueError, *fragments, options=ExportOptions("fp16"))


def test_folded_weight_beyond_the_range_of_fp16(small, out, tensors):
    tensors["latent_attention_model.cross_attend_blocks.1.norm.weight"][:] = 3e5
    rewrite(small, tensors, "F32")
    assert_fails(small, out, WeightValueError, "cross_attend_blocks.1", "65504", options=ExportOptions("fp16"))


def test_neither_file_nor_index(small, out):
    (small / "model.safetensors").unlink()
    assert_fails(small, out, CheckpointError, "no weights found", "model.safetensors", "pytorch_model.bin", "index")


def test_both_file_and_index(small, out):
    (small / INDEX).write_text("{}")
    assert_fails(small, out, CheckpointError, "both", "model.safetensors", INDEX)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_truncated_file(small, out, kept):
    path = small / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:kept])
    found = len(data[:kept])
    assert_fails(small, out, CheckpointError, "model.safetensors", f"found {found} bytes", "expected")


def test_file_with_extra_bytes(small, out):
    path = small / "model.safetensors"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"x")
    assert_fails(small, out, CheckpointError, f"found {size + 1} bytes", f"expected {size}")


@pytest.mark.parametrize(
    "content",
    [b"not json", b"[]", b'{"a": 1}', b'{"a": {"dtype": "F16"}}', b"\xff\xfe", b"[" * 10_000, b"9" * 5_000],
    ids=lambda content: content[:24].decode("latin-1"),
)
def test_damaged_header(small, out, content):
    (small / "model.safetensors").write_bytes(len(content).to_bytes(8, "little") + content)
    assert_fails(small, out, CheckpointError, "model.safetensors", "damaged header", "expected a safetensors file")


def test_header_whose_shape_does_not_match_its_bytes(small, out):
    header = json.dumps({"a": {"dtype": "F16", "shape": [3], "data_offsets": [0, 4]}}).encode()
    (small / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"abcd")
    assert_fails(small, out, CheckpointError, "model.safetensors", "damaged header")


def test_index_with_a_missing_shard(sharded, out):
    (sharded / "model-00002-of-00002.safetensors").unlink()
    assert_fails(sharded, out, CheckpointError, INDEX, "`model-00002-of-00002.safetensors`", "missing")


def test_index_with_a_tensor_in_the_wrong_shard(sharded, out):
    index = json.loads((sharded / INDEX).read_text())
    was = index["weight_map"][Q_PROJ]
    other = next(shard for shard in index["weight_map"].values() if shard != was)
    index["weight_map"][Q_PROJ] = other
    (sharded / INDEX).write_text(json.dumps(index))
    assert_fails(sharded, out, CheckpointError, f"`{Q_PROJ}`", was, other)


def test_index_with_a_tensor_that_no_shard_has(sharded, out):
    index = json.loads((sharded / INDEX).read_text())
    index["weight_map"]["ghost"] = "model-00001-of-00002.safetensors"
    (sharded / INDEX).write_text(json.dumps(index))
    assert_fails(sharded, out, CheckpointError, "`ghost`", "model-00001-of-00002.safetensors", "no shard")


def test_shard_with_a_tensor_that_the_index_does_not_list(sharded, out):
    index = json.loads((sharded / INDEX).read_text())
    was = index["weight_map"].pop(Q_PROJ)
    (sharded / INDEX).write_text(json.dumps(index))
    assert_fails(sharded, out, CheckpointError, f"`{Q_PROJ}`", was, "does not list it")


def test_index_pointing_outside_the_folder(sharded, out):
    index = json.loads((sharded / INDEX).read_text())
    index["weight_map"][Q_PROJ] = "../model.safetensors"
    (sharded / INDEX).write_text(json.dumps(index))
    assert_fails(sharded, out, CheckpointError, "`../model.safetensors`", "same folder")


@pytest.mark.parametrize(
    "content",
    ["{", "{}", "[]", '{"weight_map": 3}', '{"weight_map": {"a": 1}}', "[" * 10_000, "9" * 5_000],
    ids=lambda content: content[:24],
)
def test_damaged_index(sharded, out, content):
    (sharded / INDEX).write_text(content)
    assert_fails(sharded, out, CheckpointError, INDEX, "expected an object")


def test_sharded_and_single_checkpoints_give_the_same_files(small, sharded, small_spec, out):
    from nvembed_export.export import export

    for name, checkpoint in (("a", small), ("b", sharded)):
        export(checkpoint, out.parent / name, ExportOptions("fp32", name="same"))
    for file in ("model.onnx", "model.onnx.data", "golden.json", "nvembed.json"):
        assert (out.parent / "a" / file).read_bytes() == (out.parent / "b" / file).read_bytes()


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_weights_arrive_unchanged(small, out, tensors, dtype):
    """fp32 represents every value of the three dtypes, so the stored bits come back."""
    import onnx
    from onnx import numpy_helper

    from nvembed_export.export import export

    write_weights(small, tensors, dtype)
    export(small, out, ExportOptions("fp32", golden=False))
    model = onnx.load(out / "model.onnx")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found = stored[Q_PROJ].T
    if dtype == "BF16":
        assert np.array_equal(found.view(np.uint32), tensors[Q_PROJ].view(np.uint32) & 0xFFFF0000)
    else:
        assert np.array_equal(found, tensors[Q_PROJ].astype("f2" if dtype == "F16" else "f4").astype("f4"))
