"""A target changes which operators a graph has, not what it computes: each against any, on ragged batches."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import questions
import tolerances
from failing import assert_fails
from onnx import TensorProto, shape_inference
from running import Model, cosines
from seeded_checkpoint import CASES

from nvembed_export.errors import UsageError
from nvembed_export.export import ExportOptions, export

SPECS = {spec.name: spec for spec in CASES if spec.name in ("groups-of-4", "explicit-head-dim", "eight-layers")}
TENSORRT_INT4 = {"precision": "int4", "activations": "fp16", "block_size": 128}
FORMS = [
    ("tensorrt", {"precision": "fp16"}),
    ("tensorrt", {"precision": "fp16", "pooler": "direct"}),
    ("tensorrt", {"precision": "bf16"}),
    ("tensorrt", TENSORRT_INT4),
]


def described(options: dict) -> str:
    return "-".join(map(str, options.values()))


@pytest.fixture(scope="module", params=SPECS.values(), ids=SPECS)
def checkpoint(request, tmp_path_factory):
    """A random checkpoint, its rows, and a function that exports and opens it, once for each set of options."""
    folder, question = tmp_path_factory.mktemp(request.param.name), questions.RANDOM[request.param.name]
    source, opened = question.write(folder / "checkpoint"), {}

    def model(**options) -> Model:
        key = described(options)
        if key not in opened:
            export(source, folder / key, ExportOptions(**options, golden=False))
            opened[key] = Model(folder / key)
        return opened[key]

    return SimpleNamespace(spec=request.param, rows=question.rows(source), model=model)


@pytest.mark.parametrize(
    ("target", "options"), FORMS, ids=lambda value: value if isinstance(value, str) else described(value)
)
def test_a_target_computes_what_the_target_any_computes(checkpoint, target, options, measured):
    model, rows = checkpoint.model(target=target, **options), checkpoint.rows
    expected = checkpoint.model(target="any", **options)(rows)
    alone = np.concatenate([model([row]) for row in rows])
    padded = model(rows, width=max(len(ids) for ids, _ in rows) + 17)
    worst = 1 - min(cosines(found, expected).min() for found in (model(rows), padded, alone))
    measured(f"{checkpoint.spec.name:18} {described(options)} for {target} against any, 1 - cosine {worst:.1e}")
    assert worst <= tolerances.BETWEEN_TARGETS[options["precision"]]


def test_tensorrt_gets_a_mask_and_no_lengths(tmp_path, small):
    """TensorRT's parser drops row lengths without an error, see docs/lab/gpu-graph.md."""
    for options in ({"precision": "fp16"}, {"precision": "bf16"}, {"precision": "int4"}):
        folder = tmp_path / options["precision"]
        export(small, folder, ExportOptions(target="tensorrt", golden=False, **options))
        assert json.loads((folder / "nvembed.json").read_text())["graph"]["target"] == "tensorrt"
        onnx.checker.check_model(str(folder / "model.onnx"), full_check=True)
        model = shape_inference.infer_shapes(onnx.load(folder / "model.onnx", load_external_data=False))
        shapes = {value.name: value.type.tensor_type for value in model.graph.value_info}
        attention = [node for node in model.graph.node if node.op_type == "Attention"]
        assert attention != []
        for node in attention:
            assert len(node.input) == 4
            mask = shapes[node.input[3]]
            assert mask.elem_type == TensorProto.BOOL
            dims = [dim.dim_param or dim.dim_value for dim in mask.shape.dim]
            assert dims == ["batch", 1, "sequence", "sequence"]
        assert "Shape" not in {node.op_type for node in model.graph.node}


def test_int4_for_tensorrt_has_fp16_activations_and_blocks_of_128_unless_told_otherwise(small, out):
    export(small, out, ExportOptions(precision="int4", target="tensorrt", golden=False))
    facts = json.loads((out / "nvembed.json").read_text())["quantization"]
    assert (facts["activations"], facts["block_size"]) == ("float16", 128)


@pytest.mark.parametrize(
    ("target", "options", "reason"),
    [
        (
            "tensorrt",
            {"precision": "fp32"},
            "needs --precision fp16, bf16 or int4, got --precision fp32: TensorRT has no",
        ),
        ("tensorrt", {"precision": "int8"}, "got --precision int8: TensorRT's parser takes 4-bit codes only"),
        ("tensorrt", {"precision": "w8a8"}, "--precision w8a8 needs --target cpu, got --target tensorrt"),
        ("tensorrt", {"precision": "int4", "activations": "fp32"}, "needs --activations fp16, got --activations fp32"),
        ("tensorrt", {"precision": "int4", "block_size": 16}, "needs --block-size 128, 64 or 32, got --block-size 16"),
        ("openvino", {"precision": "fp16"}, "needs --precision fp32 or bf16, got --precision fp16"),
        ("openvino", {"precision": "w8a8"}, "--precision w8a8 needs --target cpu, got --target openvino"),
        ("any", {"precision": "w8a8"}, "--precision w8a8 needs --target cpu, got --target any"),
    ],
    ids=lambda value: described(value) if isinstance(value, dict) else "",
)
def test_what_a_target_has_not_got_is_refused(small, out, target, options, reason):
    assert_fails(small, out, UsageError, reason, options=ExportOptions(target=target, **options))
