"""Names of the exported models, which tests/gpu/gpu.mk writes to build/gpu-graph."""

import pytest

FUSED_FP16 = [
    "nv-embed-mini-any-fp16-fused",
    pytest.param("7b-widths-any-fp16-fused", marks=pytest.mark.full_width),  # two layers, random weights
]
PACKED = [f"nv-embed-mini-cuda-{precision}-fused" for precision in ("fp16", "bf16", "int8", "int4")]
PACKED_WIDE = [pytest.param("7b-widths-cuda-fp16-fused", marks=pytest.mark.full_width)]
DIRECT_FP16 = ["nv-embed-mini-any-fp16-direct"]
FP32 = ["nv-embed-mini-any-fp32-fused", "nv-embed-mini-any-fp32-direct"]
TENSORRT = ["nv-embed-mini-tensorrt-fp16-fused", "nv-embed-mini-tensorrt-bf16-fused"]
TENSORRT_DIRECT = ["nv-embed-mini-tensorrt-fp16-direct"]
TENSORRT_WIDE = [pytest.param("7b-widths-tensorrt-fp16-fused", marks=pytest.mark.full_width)]
