"""Checkpoints that PaddleNLP wrote: the same export as from NVIDIA's form, and PaddleNLP's own embeddings."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest
import tolerances
from failing import FP32, assert_fails
from of_paddle import CASES, NARROW, SHARDS, PaddleCase, values
from running import Model
from seeded_checkpoint import config_values, small_tokenizer, write_checkpoint, write_safetensors

from nvembed_export.checkpoint import Checkpoint
from nvembed_export.config import load_config
from nvembed_export.errors import CheckpointError, ConfigError, TensorError
from nvembed_export.export import ExportOptions, export

SINGLE, INDEX = "model_state.pdparams", "model_state.pdparams.index.json"


def copy_of(case: PaddleCase, folder):
    """A copy of the committed checkpoint, with a tokenizer."""
    shutil.copytree(case.folder, folder)
    (folder / "tokenizer.json").write_text(json.dumps(small_tokenizer(), ensure_ascii=False))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder


@pytest.fixture
def shards(tmp_path):
    return copy_of(SHARDS, tmp_path / "shards")


@pytest.fixture
def narrow(tmp_path):
    return copy_of(NARROW, tmp_path / "narrow")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_value_is_the_one_that_paddle_saved(tmp_path, case):
    folder = copy_of(case, tmp_path / "checkpoint")
    checkpoint = Checkpoint.open(folder, load_config(folder))
    for name, expected in values(case).items():
        assert np.array_equal(checkpoint.rows(name).astype(np.float32), expected), name
        blocks = np.concatenate(list(checkpoint.row_blocks(name, 1 << 12)))
        assert np.array_equal(blocks.astype(np.float32), expected), name


@pytest.mark.parametrize("options", [ExportOptions("fp16"), ExportOptions("fp32", target="cpu", pooler="direct")])
def test_the_export_is_the_same_as_that_of_the_same_weights_in_safetensors(shards, tmp_path, options):
    theirs = write_checkpoint(tmp_path / "theirs", SHARDS.spec)
    export(theirs, tmp_path / "a", options)
    export(shards, tmp_path / "b", options)
    for file in ("model.onnx", "model.onnx.data", "golden.json", "tokenizer.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
    a, b = (json.loads((tmp_path / name / "nvembed.json").read_text()) for name in "ab")
    assert a | {"model": None} == b | {"model": None}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_export_computes_what_paddlenlp_computes(tmp_path, case):
    export(copy_of(case, tmp_path / "checkpoint"), tmp_path / "model", FP32)
    rows = json.loads((case.folder / "embeddings.json").read_text())["rows"]
    found = Model(tmp_path / "model")([(row["input_ids"], row["instruction_tokens"]) for row in rows])
    expected = np.array([row["embedding"] for row in rows])
    assert np.abs(found - expected).max() <= tolerances.PADDLE


def paddle_tensors() -> dict[str, np.ndarray]:
    """The tensors of the shards by PaddleNLP's names, as Python's own unpickler reads them. The files are ours."""
    found = {}
    for file in sorted(SHARDS.folder.glob("*.pdparams")):
        found |= pickle.loads(file.read_bytes())
    return {name: value for name, value in found.items() if isinstance(value, np.ndarray)}


def rewrite(folder, tensors, protocol: int = 4) -> None:
    """Replace the shards by one file."""
    for file in [*folder.glob("*.pdparams"), folder / INDEX]:
        file.unlink(missing_ok=True)
    (folder / SINGLE).write_bytes(pickle.dumps(tensors, protocol=protocol))


def assert_same_values(folder):
    checkpoint = Checkpoint.open(folder, load_config(folder))
    for name, expected in values(SHARDS).items():
        assert np.array_equal(checkpoint.rows(name).astype(np.float32), expected), name


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("prefix", ["", "mistral.", "model."])
def test_other_ways_to_save_the_same_tensors(shards, protocol, prefix):
    """Protocols of numpy arrays; names of the backbone below an attribute."""
    tensors = {n if n.startswith("latent_model.") else prefix + n: array for n, array in paddle_tensors().items()}
    rewrite(shards, tensors, protocol)
    assert_same_values(shards)


def test_tensors_outside_a_state_dict_and_a_prefix_of_all_names(shards):
    """paddle.save of a dictionary that is no state dict writes pairs of a tensor's own name and its array."""
    rewrite(shards, {f"module.{name}": (f"tensor_{name}", array) for name, array in paddle_tensors().items()})
    assert_same_values(shards)


@pytest.mark.parametrize("file", [SINGLE, "model.safetensors"])
def test_the_way_round_is_seen_in_the_shapes_whatever_the_file(shards, file):
    tensors = paddle_tensors()
    if file == SINGLE:
        turned = {n: a.T.copy() if a.ndim == 2 and "embed_tokens" not in n else a for n, a in tensors.items()}
        rewrite(shards, turned)
    else:
        rewrite(shards, {})
        (shards / SINGLE).unlink()
        write_safetensors(shards / file, {name: array.astype(np.float32) for name, array in tensors.items()}, "F16")
    assert_same_values(shards)


def test_matrices_stored_both_ways_are_refused(shards, out):
    tensors = paddle_tensors()
    name = "latent_model.cross_attend_blocks_0_fn_to_kv.weight"
    rewrite(shards, tensors | {name: tensors[name].T.copy()})
    assert_fails(shards, out, TensorError, "to_kv.weight` is stored [out, in]", "[in, out]", "one way")


class Evil:
    """Pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def evil_functions():
    import builtins
    import os
    import subprocess

    yield from ((os.system, "touch {0}"), (builtins.eval, "open({0!r}, 'w')"), (builtins.exec, "open({0!r}, 'w')"))
    yield from ((subprocess.Popen, ["touch", "{0}"]), (builtins.getattr, str, "join"), (os.mkdir, "{0}"))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("function", evil_functions(), ids=lambda found: found[0].__name__)
def test_a_pickle_that_calls_a_function_is_refused_and_nothing_is_run(shards, out, tmp_path, function, protocol):
    trace = tmp_path / "trace"
    call, *arguments = function
    fill = lambda value: value.format(str(trace)) if isinstance(value, str) else value  # noqa: E731
    arguments = [[fill(part) for part in value] if isinstance(value, list) else fill(value) for value in arguments]
    rewrite(shards, {"a": Evil(call, *arguments)} | paddle_tensors(), protocol)
    assert_fails(shards, out, CheckpointError, SINGLE, f".{call.__name__}`", "may run code", "nothing was run")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("code", "fragment"),
    [
        (b"\x80\x02(S'a'\nios\nsystem\n.", "opcode"),  # INST
        (b"\x80\x02(cos\nsystem\nX\x01\x00\x00\x00ao.", "os.system"),  # OBJ
        (b"\x80\x02\x82\x01.", "opcode 0x82"),  # EXT1: a registered extension
        (b"\x80\x02cnumpy\nndarray\n)\x81.", "opcode 0x81"),  # NEWOBJ
        (b"\x80\x04\x8c\x05numpy\x8c\x09f2py.main\x93.", "numpy.f2py.main"),
        (b"\x80\x04\x8c\x02os\x8c\x06systemq\x00\x93.", "os.system"),
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncos\nsystem\n\x85R.", "os.system"),
        (b"\x80\x02X\x01\x00\x00\x00aQ.", "another file"),  # BINPERSID
        (b"\x80\x02]]a}s.", "damaged"),
        (b"\x80\x02}]K\x01s.", "not a string"),
        (b"\x80\x02t.", "no mark"),
        (b"\x80\x02h\x07.", "damaged"),
        (b"\x80\x02K\x01K\x02R.", "cannot be called"),
        (b"\x80\x02cnumpy\nndarray\n)R.", "cannot be called"),
        (b"\x80\x02K\x01}b.", "a state"),
        (b"\x80\x02X\xff\xff\xff\xffabc.", "the limit is 65536"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.", "truncated"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f.", "limit is 16"),
        (b"\x80\x02" + b"N" * (1 << 18) + b"NN.", "objects"),
        (b"\x80\x02}", "inside the pickle"),
        (b"", "inside the pickle"),
        (b"\x80\x02K\x01.", "holds no dictionary"),
        (b"\x80\x02}X\x01\x00\x00\x00aK\x01s.", "`a` is no array"),
        (b"\x80\x02}X\x01\x00\x00\x00a}s.", "`a` is a dictionary"),
        (b"\x80\x02}X\x01\x00\x00\x00acnumpy\ndtype\n)Rs.", "`a` is no array"),
    ],
    ids=lambda value: repr(value)[:30] if isinstance(value, bytes) else "",
)
def test_a_pickle_of_anything_else_is_refused(shards, out, code, fragment):
    rewrite(shards, {})
    (shards / SINGLE).write_bytes(code)
    assert_fails(shards, out, CheckpointError, SINGLE, fragment)


@pytest.mark.parametrize("keep", [1, 100, 5_000, -1])
def test_a_truncated_file_is_refused(narrow, out, keep):
    data = (narrow / SINGLE).read_bytes()
    (narrow / SINGLE).write_bytes(data[:keep])
    assert_fails(narrow, out, CheckpointError, SINGLE, "truncated or damaged")


def test_every_damaged_byte_is_an_error_or_a_file_that_can_be_read(narrow):
    """Whatever a changed byte does, reading ends with our error or with tensors, never with another exception."""
    config, data = load_config(narrow), (narrow / SINGLE).read_bytes()
    rng, refused = np.random.default_rng(0), 0
    structure = [at for at in range(len(data)) if at < 400 or at > len(data) - 3000]
    for at in rng.choice(structure, 300, replace=False):
        changed = bytearray(data)
        changed[at] ^= 1 << int(rng.integers(8))
        (narrow / SINGLE).write_bytes(changed)
        try:
            Checkpoint.open(narrow, config)
        except CheckpointError:
            refused += 1
    assert refused > 20


def test_arrays_that_cannot_be_read_are_refused_by_name(shards, out):
    tensors, name = paddle_tensors(), "norm.weight"
    kv = "latent_model.cross_attend_blocks_0_fn_to_kv.weight"
    for changed, fragments in (
        ({kv: np.asfortranarray(tensors[kv])}, ["column by column", "ascontiguousarray"]),
        ({name: tensors[name].astype("f8")}, ["dtype F64", "F16, BF16 or F32"]),
        ({name: tensors[name].astype(">f4")}, ["big-endian f4"]),
        ({"UnpackBigParamInfor@@": {}}, ["protocol=4"]),
        ({name: {"w": tensors[name]}}, [f"`{name}` is a dictionary", "state_dict()"]),
        ({"layers.0.self_attn.qkv_proj.weight": tensors[name]}, ["unexpected", "qkv_proj"]),
    ):
        rewrite(shards, tensors | changed)
        assert_fails(shards, out, CheckpointError if "@@" in str(changed) else error_of(fragments), *fragments)


def error_of(fragments):
    return TensorError if fragments[0] in ("dtype F64", "big-endian f4", "unexpected") else CheckpointError


def test_protocol_2_is_refused_with_the_remedy(shards, out):
    """There, arrays are text, and twice as long."""
    rewrite(shards, paddle_tensors(), 2)
    assert_fails(shards, out, CheckpointError, SINGLE, "protocol 4")


def test_a_shard_that_is_missing_or_of_another_index(shards, out):
    (shards / "model_state-00002-of-00002.pdparams").unlink()
    assert_fails(shards, out, CheckpointError, INDEX, "`model_state-00002-of-00002.pdparams`", "missing")


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        ({"num_key_value_heads": 3, "num_attention_heads": 3, "hidden_size": 48}, ["max_position_embeddings", "256"]),
        ({"num_key_value_heads": ...}, ["`num_key_value_heads`", "missing"]),
        ({"fuse_attention_qkv": True}, ["`fuse_attention_qkv`", "unknown"]),
        ({"model_type": "llama"}, ["`model_type`", '"llama"', '"mistral"']),
    ],
)
def test_a_flat_configuration_that_is_not_implemented(shards, out, change, fragments):
    config = json.loads((shards / "config.json").read_text()) | change
    config = {key: value for key, value in config.items() if value is not ...}
    (shards / "config.json").write_text(json.dumps(config))
    assert_fails(shards, out, ConfigError, *fragments)


def test_a_flat_configuration_of_a_model_without_a_pooler(tmp_path, out, small_spec):
    """A Mistral of Hugging Face has such a configuration too."""
    folder = write_checkpoint(tmp_path / "mistral", small_spec)
    (folder / "config.json").write_text(
        json.dumps(config_values(small_spec)["text_config"] | {"model_type": "mistral"})
    )
    assert_fails(folder, out, TensorError, "latent_attention_model")


def test_transposed_matrices_are_read_once_and_not_all_kept(shards):
    config = load_config(shards)
    checkpoint = Checkpoint.open(shards, config)
    names = [name for name, array in values(SHARDS).items() if array.ndim == 2 and "embed" not in name]
    kept = checkpoint._tensors[names[0]].kept
    made = []
    for name in names:
        tensor = checkpoint._tensors[name]
        tensor._read = lambda read=tensor._read, name=name: made.append(name) or read()
        list(checkpoint.row_blocks(name, 1 << 10))
        assert len(kept.arrays) <= 2
    assert made == names


def test_safetensors_beside_it_are_taken_and_the_user_is_told(small):
    shutil.copy(NARROW.folder / SINGLE, small)
    checkpoint = Checkpoint.open(small, load_config(small))
    assert checkpoint.notes == ["the weights are those of model.safetensors; model_state.pdparams is not read"]
