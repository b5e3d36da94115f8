"""TensorRT-RTX builds one engine from the whole exported graph. No engine is run, since that needs a GPU."""

from __future__ import annotations

import resource

import pytest
from exported import ALL, DIRECT_FP16, FP32, FUSED_FP16
from tensorrt_rtx_engine import build, optimization_profile, problems

ADA, BLACKWELL = "SM89", "SM120"
TENSORRT_DTYPES = {"int64": "INT64", "float16": "HALF", "float32": "FLOAT"}


@pytest.mark.parametrize("model", ALL, indirect=True)
def test_all_nodes_are_one_supported_subgraph(model):
    assert problems(model.graph, model.node_count()) == []


@pytest.mark.parametrize("compute_capability", [ADA, BLACKWELL])
@pytest.mark.parametrize("model", [*FUSED_FP16, *DIRECT_FP16], indirect=True)
def test_fp16_engine_is_built_with_every_weight_for_a_range_of_shapes(model, compute_capability, measured):
    check_engine(model, build(model.graph, profile(model), compute_capability), compute_capability, measured)


@pytest.mark.parametrize("model", FP32, indirect=True)
def test_fp32_engine_is_built_only_if_attention_may_be_unfused(model, measured):
    """TensorRT-RTX has no fp32 kernel for `Attention`, with or without a mask."""
    with pytest.raises(RuntimeError, match="Attention operation was not supported by a dedicated kernel"):
        build(model.graph, profile(model), ADA)
    check_engine(model, build(model.graph, profile(model), ADA, unfused_attention=True), ADA, measured)


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
