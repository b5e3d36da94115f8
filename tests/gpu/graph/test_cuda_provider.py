"""The CUDA provider of the onnxruntime-gpu wheel runs the whole exported graph, with its fastest attention kernel.

These tests run on the shim, which computes nothing: they say nothing about results, speed or a real device.
"""

from __future__ import annotations

import pytest
from cuda_provider import RUNS, probe, problems
from exported import DIRECT_FP16, FP32, FUSED_FP16, PACKED, PACKED_WIDE

AMPERE_AND_LATER = [80, 89, 90, 120]
TURING, ADA = 75, 89


@pytest.mark.parametrize("compute_capability", AMPERE_AND_LATER)
@pytest.mark.parametrize("model", FUSED_FP16, indirect=True)
def test_fp16_graph_is_all_on_cuda_and_attends_with_flash(model, compute_capability, shim):
    report = probe(model.graph, compute_capability, shim)
    assert problems(model.graph, report, "FLASH_ATTENTION") == []
    assert len(report.runs) == len(RUNS)


@pytest.mark.parametrize("model", FUSED_FP16, indirect=True)
def test_turing_has_no_flash_and_attends_with_the_memory_efficient_kernel(model, shim):
    assert problems(model.graph, probe(model.graph, TURING, shim), "EFFICIENT_ATTENTION") == []


@pytest.mark.parametrize("compute_capability", [TURING, *AMPERE_AND_LATER])
@pytest.mark.parametrize("model", FP32, indirect=True)
def test_fp32_graph_is_all_on_cuda_but_attends_unfused(model, compute_capability, shim):
    """ONNX Runtime has no fused fp32 kernel for grouped-query attention: memory grows with the square of the width."""
    report = probe(model.graph, compute_capability, shim)
    assert problems(model.graph, report, "MATH", extra_copies="direct" in model.folder.name) == []


@pytest.mark.parametrize("model", DIRECT_FP16, indirect=True)
def test_direct_pooler_is_all_on_cuda_but_copies_pointers_in_every_run(model, shim):
    """Keys and values are broadcast over the batch. cuBLAS takes such products as pointer tables, built on the host."""
    report = probe(model.graph, ADA, shim)
    assert problems(model.graph, report, "FLASH_ATTENTION", extra_copies=True) == []
    assert problems(model.graph, report, "FLASH_ATTENTION") != []


@pytest.mark.parametrize("model", PACKED + PACKED_WIDE, indirect=True)
def test_packed_graph_is_all_on_cuda_attends_with_flash_and_multiplies_in_16_bits(model, shim):
    report = probe(model.graph, ADA, shim)
    assert problems(model.graph, report, "FLASH_ATTENTION") == []
    names = {name.lower() for run in report.runs for name in run.launches}
    # QuickGelu is what ONNX Runtime makes of Mul and Sigmoid: SiLU in half precision.
    assert not [name for name in names if "quickgelu" in name]
    assert not [name for name in names if "sgemm" in name or "dequantize" in name and "<float" in name]
    assert not [node for nodes in report.nodes.values() for node in nodes if "QuickGelu" in node or "Memcpy" in node]


@pytest.mark.parametrize("model", PACKED[:1] + FUSED_FP16[:1], indirect=True)
def test_no_operator_needs_cudnn(model, shim, tmp_path):
    without = tmp_path / "shim"
    without.mkdir()
    for library in shim.iterdir():
        if "cudnn" not in library.name:
            (without / library.name).symlink_to(library)
    assert problems(model.graph, probe(model.graph, ADA, without), "FLASH_ATTENTION") == []
