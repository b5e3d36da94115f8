"""LoRA adapters that PEFT wrote are merged as PEFT merges them; others are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors
from failing import assert_fails
from seeded_checkpoint import random_tensors, write_safetensors, write_weights

from nvembed_export.checkpoint import Checkpoint
from nvembed_export.config import load_config
from nvembed_export.errors import CheckpointError, ConfigError, TensorError, WeightValueError
from nvembed_export.export import ExportOptions, export

ADAPTERS = Path(__file__).resolve().parent / "peft"
DTYPES = {"plain": "F16", "patterns": "BF16", "dora": "F32"}
WEIGHTS = "adapter_model.safetensors"
Q_PROJ = "base_model.model.embedding_model.layers.0.self_attn.q_proj"


def rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    """As PyTorch rounds, to the nearest, ties to even."""
    if dtype != "BF16":
        return array.astype({"F16": np.float16, "F32": np.float32}[dtype])
    bits = array.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)


def merged_by_peft(name: str) -> dict[str, np.ndarray]:
    found = {}
    with safetensors.safe_open(ADAPTERS / name / "merged.safetensors", "numpy") as file:
        for key in file.keys():  # noqa: SIM118
            if DTYPES[name] == "BF16":  # numpy has no bfloat16, so the file's bytes are read
                break
            found[key] = file.get_tensor(key)
    if found:
        return found
    data = (ADAPTERS / name / "merged.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    for key, entry in header.items():
        first, last = entry["data_offsets"]
        bits = np.frombuffer(data[8 + length + first : 8 + length + last], "<u2").astype("<u4") << 16
        found[key] = bits.view("<f4").reshape(entry["shape"])
    return found


@pytest.fixture
def base(small, small_spec):
    """The small model in the dtype that the adapter's base had; rewritten by `base_of`."""

    def write(name: str):
        tensors = {key: rounded(array, DTYPES[name]) for key, array in random_tensors(small_spec).items()}
        write_weights(small, {key: array.astype(np.float32) for key, array in tensors.items()}, DTYPES[name])
        return small, tensors

    return write


@pytest.mark.parametrize("name", DTYPES)
def test_the_weights_are_those_that_peft_merges(base, name, measured):
    checkpoint, before = base(name)
    expected = merged_by_peft(name)
    found = Checkpoint.open(checkpoint, load_config(checkpoint), ADAPTERS / name)
    unit = {"F16": 2.0**-10, "BF16": 2.0**-7, "F32": 2.0**-23}[DTYPES[name]]
    different = total = 0
    for key, array in before.items():
        mine, theirs = found.rows(key).astype(np.float64), expected.get(key, array).astype(np.float64)
        # One unit in the last place of the sum; its parts are up to 4 and are rounded in float32.
        assert (np.abs(mine - theirs) <= unit * np.abs(theirs) + 4 * 2.0**-22).all(), key
        if key in expected:
            different, total = different + int((mine != theirs).sum()), total + mine.size
            blocks = np.concatenate(list(found.row_blocks(key, 1 << 11)))
            # A product of fewer rows may add in another order.
            assert np.abs(blocks.astype(np.float64) - mine).max() <= unit * np.abs(mine).max()
    measured(f"adapter {name}: {different} of {total} merged values are another neighbour than PEFT's")
    assert different <= total * (0.002 if DTYPES[name] != "F32" else 0.6)


def test_an_export_with_an_adapter_is_that_of_the_merged_weights_and_named_so(base, out, small_spec):
    checkpoint, before = base("plain")
    export(checkpoint, out, ExportOptions("fp32", adapter=ADAPTERS / "plain"))
    found = json.loads((out / "nvembed.json").read_text())["model"]["name"]
    assert found == "checkpoint+plain"
    merged = Checkpoint.open(checkpoint, load_config(checkpoint), ADAPTERS / "plain")
    write_weights(checkpoint, {key: merged.rows(key).astype(np.float32) for key in before}, "F16")
    export(checkpoint, out.parent / "merged", ExportOptions("fp32"))
    for file in ("model.onnx", "model.onnx.data", "golden.json"):
        assert (out / file).read_bytes() == (out.parent / "merged" / file).read_bytes()


def test_what_was_merged_is_said(base):
    checkpoint, _ = base("patterns")
    found = Checkpoint.open(checkpoint, load_config(checkpoint), ADAPTERS / "patterns")
    assert found.notes == [f"merged the adapter {ADAPTERS / 'patterns'} into 7 weights and 2 whole tensors"]


@pytest.fixture
def adapter(tmp_path):
    """A copy of the plain adapter that a test may change."""
    folder = tmp_path / "adapter"
    shutil.copytree(ADAPTERS / "plain", folder)
    return folder


def change(folder, **values) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def tensors_of(folder) -> dict[str, np.ndarray]:
    with safetensors.safe_open(folder / WEIGHTS, "numpy") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def fails(small, out, adapter, error, *fragments):
    return assert_fails(small, out, error, *fragments, options=ExportOptions("fp32", adapter=adapter))


@pytest.mark.parametrize(
    ("values", "fragments"),
    [
        ({"peft_type": "IA3"}, ["`peft_type` is 'IA3'", "merge_and_unload"]),
        ({"bias": "all"}, ["`bias` is 'all'"]),
        ({"init_lora_weights": "pissa"}, ["`init_lora_weights` is 'pissa'", "changes the base model's weights"]),
        ({"layer_replication": [[0, 1]]}, ["`layer_replication`", "unknown"]),
        ({"r": 0}, ["`r`", "positive"]),
        ({"r": 8}, ["has shape [4, 48]", "expected [8, 48]", "r is 8"]),
        ({"lora_alpha": None}, ["`lora_alpha`", "positive"]),
        ({"alpha_pattern": {"(": 3}}, ["pattern `(`"]),
        ({"use_dora": True}, ["expected ['lora_A', 'lora_B', 'lora_magnitude_vector']"]),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_configuration_that_is_not_merged(small, out, adapter, values, fragments):
    change(adapter, **values)
    error = TensorError if fragments[0].startswith(("has", "expected")) else ConfigError
    fails(small, out, adapter, error, *fragments)


def test_tensors_that_do_not_fit(small, out, adapter):
    whole = tensors_of(adapter)
    a = f"{Q_PROJ}.lora_A.weight"
    for tensors, fragments in (
        ({k: v for k, v in whole.items() if k != a}, ["['lora_B']", "q_proj", "incomplete"]),
        (whole | {"base_model.model.other.lora_A.weight": whole[a]}, ["other.lora_A", "belongs to no weight"]),
        (whole | {f"{Q_PROJ}.bias": whole[a]}, ["q_proj.bias", "belongs to no weight"]),
        (whole | {f"{Q_PROJ}.weight": whole[a]}, ["q_proj.weight", "[4, 32]", "[32, 32]"]),
        (whole | {a: whole[a][:, :5]}, ["[4, 5]", "[4, 32]"]),
        ({}, ["no tensors"]),
    ):
        write_safetensors(adapter / WEIGHTS, tensors, "F32")
        fails(small, out, adapter, TensorError, *fragments)


def test_names_below_the_backbone_or_with_the_adapters_name_are_found(small, adapter):
    """PEFT on the backbone alone, and a state dict that was saved without PEFT's own function."""
    whole = tensors_of(adapter)
    config = load_config(small)
    expected = Checkpoint.open(small, config, adapter).rows("embedding_model.layers.0.self_attn.q_proj.weight")
    for rename in (
        lambda name: name.replace("embedding_model.", ""),
        lambda name: name.replace(".weight", ".default.weight"),
        lambda name: name.replace("base_model.model.", "base_model.model.0.auto_model."),
        lambda name: name.removeprefix("base_model.model."),
    ):
        write_safetensors(adapter / WEIGHTS, {rename(key): array for key, array in whole.items()}, "F32")
        found = Checkpoint.open(small, config, adapter).rows("embedding_model.layers.0.self_attn.q_proj.weight")
        assert np.array_equal(found, expected)


def test_a_sum_beyond_the_dtype_is_an_error(small, out, adapter):
    change(adapter, lora_alpha=1e7)
    fails(small, out, adapter, WeightValueError, "adapter merged", "range of its dtype F16")


def test_no_adapter_where_one_was_named(small, out, tmp_path, adapter):
    fails(small, out, tmp_path / "nowhere", ConfigError, "adapter_config.json", "no such file")
    (adapter / WEIGHTS).unlink()
    fails(small, out, adapter, CheckpointError, "no weights of an adapter", WEIGHTS, "adapter_model.bin")
