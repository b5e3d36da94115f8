"""Names of the exported models, which tests/gpu/gpu.mk writes to build/gpu-graph."""

import pytest

FUSED_FP16 = [
    "nv-embed-mini-fp16-fused",
    pytest.param("7b-widths-fp16-fused", marks=pytest.mark.full_width),  # two layers, random weights
]
DIRECT_FP16 = ["nv-embed-mini-fp16-direct"]
FP32 = ["nv-embed-mini-fp32-fused", "nv-embed-mini-fp32-direct"]
ALL = [*FUSED_FP16, *DIRECT_FP16, *FP32]
