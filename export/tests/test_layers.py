"""--layers N exports the first layers of a checkpoint, which is still checked as a whole, under a name that says so."""

from __future__ import annotations

import json

import pytest
from failing import assert_fails
from seeded_checkpoint import BACKBONE, Spec, config_values, random_tensors, write_checkpoint, write_weights

from nvembed_export.cli import main
from nvembed_export.errors import TensorError, UsageError
from nvembed_export.export import ExportOptions, export

TWO = ExportOptions(precision="fp32", layers=2)


@pytest.fixture
def spec(small_spec) -> Spec:
    return small_spec.but(layers=4, shards=2)


@pytest.fixture
def deep(tmp_path, spec):
    return write_checkpoint(tmp_path / "deep", spec)


def manifest(folder) -> dict:
    return json.loads((folder / "nvembed.json").read_text())


def test_it_equals_the_export_of_a_shallower_checkpoint(tmp_path, deep, spec, out):
    shallow, other = tmp_path / "shallow", tmp_path / "other"
    write_checkpoint(shallow, spec.but(layers=2, shards=1))
    later = [f"{BACKBONE}.layers.{index}." for index in (2, 3)]
    tensors = random_tensors(spec)
    kept = {name: array for name, array in tensors.items() if not name.startswith(tuple(later))}
    write_weights(shallow, kept, spec.dtype)
    export(deep, out, TWO)
    export(shallow, other, ExportOptions(precision="fp32"))
    for file in ("model.onnx", "model.onnx.data", "tokenizer.json", "golden.json"):
        assert (out / file).read_bytes() == (other / file).read_bytes()
    assert manifest(out)["architecture"] == manifest(other)["architecture"]
    assert manifest(out)["architecture"]["num_hidden_layers"] == 2


@pytest.mark.parametrize(("option", "name"), [([], "deep"), (["--name", "NV-Embed-v1"], "NV-Embed-v1")])
def test_the_name_says_that_layers_are_missing(deep, out, capsys, option, name):
    assert main([str(deep), str(out), "--layers", "2", *option]) == 0
    assert manifest(out)["model"]["name"] == f"{name}-first-2-of-4-layers"
    assert "only the first layers" in capsys.readouterr().err


def test_all_layers_are_the_whole_model(deep, out, capsys):
    assert main([str(deep), str(out), "--layers", "4"]) == 0
    assert manifest(out)["model"]["name"] == "deep"
    assert "only the first layers" not in capsys.readouterr().err


@pytest.mark.parametrize("layers", [0, -1, 5])
def test_numbers_out_of_range_are_rejected(deep, out, layers):
    options = ExportOptions(layers=layers)
    assert_fails(deep, out, UsageError, f"--layers is {layers}", "1 to 4 (num_hidden_layers)", options=options)


def test_tensors_beyond_the_layers_are_still_checked(tmp_path, spec, out):
    broken = write_checkpoint(tmp_path / "broken", spec)
    last = f"{BACKBONE}.layers.3.mlp.up_proj.weight"
    for change, fragment in (
        (lambda tensors: tensors.pop(last), f"missing tensors: `{last}`"),
        (lambda tensors: tensors.update({f"{BACKBONE}.layers.4.stray": tensors[last]}), "unexpected tensors"),
        (lambda tensors: tensors.update({last: tensors[last][:-1]}), "has shape"),
    ):
        tensors = random_tensors(spec)
        change(tensors)
        write_weights(broken, tensors, spec.dtype, spec.shards)
        assert_fails(broken, out, TensorError, fragment, options=TWO)


def test_the_checkpoint_must_still_match_its_own_configuration(deep, spec, out):
    (deep / "config.json").write_text(json.dumps(config_values(spec.but(layers=2))))
    assert_fails(deep, out, TensorError, "unexpected tensors", options=ExportOptions(layers=1))
