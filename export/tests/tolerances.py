"""Every numeric bound of these tests, with its reason.

Differences are between rows of unit length, so absolute bounds are relative to the length of the vector.
"""

import math


def fp32(layers: int) -> float:
    """Largest entry of |graph - float64 reference| for the fp32 graph.

    fp32 rounds to 6e-8. A layer is a chain of about a dozen roundings and a few products whose sums of thousands of
    terms lose a digit, so one layer may differ by 2e-6. The errors of layers are independent, so they grow with the
    square root of the number of layers. Never above 1e-5: a mistake in a formula shows as 1e-3 or more.
    """
    return min(1e-5, 2e-6 * math.sqrt(layers))


# fp16 rounds to 5e-4. Independent errors of that size in all entries make an error vector of about that relative length
# and lower the cosine by half its square, 1e-7 per rounding. Several hundred roundings in sequence stay above this.
FP16_COSINE = 0.9999

# bf16 rounds 8 times as coarsely as fp16, which lowers the cosine 64 times as much. Measured: 9e-6 to 5.2e-4 over the
# random models with fp32 sums, growing with depth as for fp16.
BF16_COSINE = 0.999

# 8-bit codes in blocks of 32 differ from a weight by half a percent of its size, and so do activations in products of
# int8 codes (accuracy level 4): about 1e-4 of cosine per layer. 4-bit codes differ 16 times as much. Random weights
# lose more than trained ones. Measured least cosines over the random models: int8 0.9975, int4 0.781, and w8a8, with
# one scale per token and output, 0.9930. These bounds catch mistakes, which destroy the cosine entirely; another test
# checks that the graph is exact apart from rounding.
INT8_COSINE = 0.99
INT4_COSINE = 0.75
W8A8_COSINE = 0.98

# ONNX's reference runtime also rounds inside operators: squares, exponentials, partial sums. Measured: up to 1.1e-3,
# over two draws of the random models.
BF16_COSINE_ROUNDING_ALL = 0.997

# Both poolers are the same function. The fused one's constants are rounded once, from float64, while the direct one
# rounds each intermediate product. The difference is fp32 noise of a single block and does not grow with depth.
FUSED_AGAINST_DIRECT = 1e-6

# The other rows of a batch do not change a row, except for the order in which kernels add up sums.
BATCH_INVARIANCE = 1e-6

# PyTorch's answers computed again, on another processor or by another release. Everything is float64 except the rotary
# angles and the scales of norms, which transformers computes in float32: their last bits may differ. A quarter of the
# tightest bound that is applied to the answers. Measured: at most 1.4e-7 between PyTorch's AVX2 code and plain code.
ANSWER_AGAIN = 5e-7

# Both references compute in float64, except that transformers computes rotary angles and norms in float32.
GOLDEN_AGAINST_TORCH = 1e-6

# The fused constants against the unfused formulas, both in float64 from the same weights: rounding only.
FOLDING = 1e-12

# Share of additional checkpoint bytes that may appear in the exporter's peak memory: allocator noise and the nodes of
# the graph, whose number grows with depth.
MEMORY_GROWTH = 0.10

# At four times the length, linear memory grows fourfold and memory for all scores sixteenfold. One-off allocations blur
# both.
LINEAR_GROWTH = 6

# An 8-bit product is exact in integers; its three scales are multiplied in fp32.
SCALES_OF_A_PRODUCT = 1e-6

# A product with one term, code times scale in fp32: one rounding, and another if a zero point is subtracted.
ONE_PRODUCT = 3e-7

# 1 - cosine of the same products, in the same precision, by other operators: roundings that fall otherwise. A
# mistake in a mask shows as 1e-2.
BETWEEN_TARGETS = {"fp32": 1e-11, "fp16": 5e-6, "bf16": 3e-4, "int8": 1e-5, "int4": 1e-5}

# How many times as far from the float64 reference a target may be as the target any in the same precision.
OF_ANY = 2

# PaddleNLP's embeddings (float32) against ours (float32). Largest difference measured: 2.1e-7.
PADDLE = 1e-6
