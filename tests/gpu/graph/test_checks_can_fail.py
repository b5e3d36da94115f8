"""The checks of this folder find faults: small graphs, each made with one fault."""

from __future__ import annotations

import hand_made
import pytest
import tensorrt_rtx_engine
from cuda_provider import probe, problems

ADA = 89
RUNS = [(32, [32]), (128, [128, 100])]
FLASH = "FLASH_ATTENTION"


@pytest.fixture
def faults(shim, tmp_path):
    """Form of a hand-made graph -> the problems that the CUDA check finds."""

    def find(form):
        path = hand_made.write(form, tmp_path / "model.onnx")
        return problems(path, probe(path, ADA, shim, RUNS), FLASH)

    return find


@pytest.fixture
def tensorrt_faults(tmp_path):
    """Form of a hand-made graph -> the problems that the TensorRT-RTX check finds."""

    def find(form):
        path = hand_made.write(form, tmp_path / "model.onnx")
        return tensorrt_rtx_engine.problems(path)

    return find


def test_attention_with_lengths_is_faultless_on_cuda(faults):
    assert faults("lengths") == []


def test_attention_with_a_mask_is_faultless_on_tensorrt_rtx(tensorrt_faults):
    assert tensorrt_faults("mask-tensor") == []


def test_lengths_are_found_to_be_ignored_by_tensorrt_rtx(tensorrt_faults):
    assert tensorrt_faults("lengths") == [
        "no layer reads lengths",
        "attentions have [3] inputs, expected 1 with 4: q, k, v and a mask",
    ]


@pytest.mark.parametrize("model", ["nv-embed-mini-any-fp16-fused"], indirect=True)
def test_the_target_any_is_found_to_lose_its_lengths_on_tensorrt_rtx(model):
    lost, masks = tensorrt_rtx_engine.problems(model.graph)
    assert lost == "no layer reads embedding_model/ReduceSum:0"
    assert masks.startswith("attentions have [3, 3, 3, 3] inputs, expected 4 with 4")


def test_primitive_attention_is_not_taken_for_attention_by_tensorrt_rtx(tensorrt_faults):
    assert tensorrt_faults("primitive") == []  # no attention node, so none may be lost


def test_shape_operator_is_found_on_the_cpu(faults):
    refused, on_cpu, *copies = faults("shape-operator")
    assert "fallback to CPU EP has been explicitly disabled" in refused
    assert on_cpu == "1 nodes on CPUExecutionProvider: Gather Gather/width"
    counted = "4 copies to the device and 4 back, for 3 inputs and 1 output"
    assert copies == [f"{shape}: {counted}" for shape in ("1x32", "2x128")]


def test_primitive_attention_is_found(faults):
    assert faults("primitive")[0] == "no attention operator: attention is composed of primitive operators"


def test_mask_tensor_is_found_to_lose_flash(faults):
    found = faults("mask-tensor")
    assert f"1x32: Attention/y runs on EFFICIENT_ATTENTION, not {FLASH}" in found
    assert "2x128: 0 launches of flash_fwd for 1 attention nodes" in found


def test_key_padding_mask_is_found_to_be_unfused(faults):
    found = faults("key-padding-mask")
    assert f"1x32: MultiHeadAttention/y runs on MATH, not {FLASH}" in found
    assert f"2x128: MultiHeadAttention/y runs on MATH, not {FLASH}" in found


def test_key_padding_mask_is_found_to_be_refused_by_tensorrt_rtx(tensorrt_faults):
    whole, reason, parts = tensorrt_faults("key-padding-mask")
    assert whole == "TensorRT-RTX does not support the whole model"
    assert "key_padding_mask input is not supported" in reason
    assert parts.startswith("2 subgraphs instead of one with all 10 nodes")


def test_run_that_fails_is_found(shim, tmp_path):
    path = hand_made.write("lengths", tmp_path / "model.onnx")
    found = problems(path, probe(path, ADA, shim, [(0, [0])]), FLASH)
    assert found != []


def test_missing_cuda_libraries_are_an_error_and_not_a_session_on_the_cpu(tmp_path):
    path = hand_made.write("lengths", tmp_path / "model.onnx")
    with pytest.raises(RuntimeError, match="the CUDA provider was not loaded"):
        probe(path, ADA, tmp_path, RUNS)
