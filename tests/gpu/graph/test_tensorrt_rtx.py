"""TensorRT-RTX builds one engine from a graph of `--target tensorrt`. No engine is run, since that needs a GPU."""

from __future__ import annotations

import resource

import hand_made
import pytest
from exported import TENSORRT, TENSORRT_DIRECT, TENSORRT_WIDE
from tensorrt_rtx_engine import build, optimization_profile, problems

AMPERE, ADA, BLACKWELL = ["SM80", "SM86"], "SM89", "SM120"
TENSORRT_DTYPES = {"int64": "INT64", "float16": "HALF", "float32": "FLOAT"}


@pytest.mark.parametrize("model", [*TENSORRT, *TENSORRT_DIRECT, *TENSORRT_WIDE], indirect=True)
def test_all_nodes_are_one_supported_subgraph_of_which_nothing_is_ignored(model):
    assert problems(model.graph) == []


@pytest.mark.parametrize("compute_capability", [*AMPERE, ADA, BLACKWELL])
@pytest.mark.parametrize("model", TENSORRT, indirect=True)
def test_engine_is_built_with_every_weight_for_a_range_of_shapes(model, compute_capability, measured):
    check_engine(model, build(model.graph, profile(model), compute_capability), compute_capability, measured)


@pytest.mark.parametrize("model", [*TENSORRT_DIRECT, *TENSORRT_WIDE], indirect=True)
def test_engine_of_the_direct_pooler_and_of_the_7b_widths(model, measured):
    check_engine(model, build(model.graph, profile(model), ADA), ADA, measured)


def test_there_is_no_fp32_kernel_for_attention(tmp_path):
    """Which is why the exporter refuses fp32 for TensorRT."""
    shapes = optimization_profile(["input_ids", "attention_mask", "pool_mask"], hand_made.POSITIONS)
    assert build(hand_made.write("mask-tensor", tmp_path / "half.onnx"), shapes, ADA).size > 0
    with pytest.raises(RuntimeError, match="Attention operation was not supported by a dedicated kernel"):
        build(hand_made.write("mask-tensor", tmp_path / "single.onnx", "float"), shapes, ADA)


def profile(model):
    manifest = model.manifest
    return optimization_profile([entry["name"] for entry in manifest["graph"]["inputs"]], manifest["max_length"])


def check_engine(model, engine, compute_capability, measured):
    """Inputs and outputs match the manifest, and the engine is large enough to hold every weight."""
    graph = model.manifest["graph"]
    for tensors, entries in ((engine.inputs, graph["inputs"]), (engine.outputs, graph["outputs"])):
        assert tensors == {
            entry["name"]: (TENSORRT_DTYPES[entry["dtype"]], [-1 if isinstance(n, str) else n for n in entry["shape"]])
            for entry in entries
        }
    assert engine.size > 0.99 * graph["data_bytes"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    measured(
        f"{model.folder.name} {compute_capability}: engine of {engine.size / 1e6:.0f} MB "
        f"(weights {graph['data_bytes'] / 1e6:.0f}) in {engine.seconds:.1f} s, peak so far {peak:.1f} GiB"
    )


def test_profile_covers_one_token_to_32_rows_of_512_and_no_more_than_the_model_takes():
    names = ["input_ids", "attention_mask", "pool_mask"]
    assert optimization_profile(names, 4096) == dict.fromkeys(names, ((1, 1), (8, 128), (32, 512)))
    assert optimization_profile(names, 100)["pool_mask"] == ((1, 1), (8, 100), (32, 100))
