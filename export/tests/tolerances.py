"""Every numeric bound of these tests, with its reason.

Differences are between rows of unit length, so an absolute bound is one relative to the whole vector.
"""

import math


def fp32(layers: int) -> float:
    """Largest entry of |graph - float64 reference| for the fp32 graph.

    fp32 rounds to 6e-8; a layer is a chain of about a dozen roundings and a few products whose sums of thousands of
    terms lose a digit, hence 2e-6 to begin with. Layers add independent errors to the residual stream, which grows as
    the square root of their number. Never looser than 1e-5: a real mistake in a formula shows as 1e-3 and more.
    """
    return min(1e-5, 2e-6 * math.sqrt(layers))


# fp16 rounds to 5e-4. Errors of independent entries make a vector of about that relative length, and the cosine falls
# by half its square, 1e-7 a rounding; some hundreds of them in a row stay above this.
FP16_COSINE = 0.9999

# bf16 rounds 8 times as coarsely as fp16, and the cosine falls by the square of that, 64 times as far. Measured: 9e-6
# to 5.2e-4 over the random models with sums in fp32, growing with depth as fp16's does.
BF16_COSINE = 0.999

# Codes of 8 bits in blocks of 32 are half a percent of a weight's size away, and so are activations where products are
# of int8 codes (accuracy level 4): about 1e-4 of cosine a layer. Codes of 4 bits are 16 times as far away. Random
# weights lose more than trained ones. Measured over the random models: least cosine 0.9975 and 0.781, and 0.9930 with
# one scale a token and an output. These are guards against mistakes, which lose all of it; that the graph is exact but
# for the rounding is another test.
INT8_COSINE = 0.99
INT4_COSINE = 0.75
W8A8_COSINE = 0.98

# ONNX's reference runtime rounds inside of operators too: squares, exponentials, partial sums. Measured: up to 1.1e-3,
# over two draws of the random models.
BF16_COSINE_ROUNDING_ALL = 0.997

# The two poolers are the same function; the constants of the fused one are rounded once, from float64, where the direct
# one rounds each intermediate product. What is left is fp32 noise of one block, without any growth by depth.
FUSED_AGAINST_DIRECT = 1e-6

# Other rows of a batch change no value of a row, only how kernels cut their sums.
BATCH_INVARIANCE = 1e-6

# PyTorch's answers computed anew, on another processor or by another release. All is float64 except the rotary angles
# and the scales of norms, which transformers makes in float32: their last bits may differ. A quarter of the tightest
# bound that is applied to the answers. Measured: at most 1.4e-7 between PyTorch's code for AVX2 and its plain code.
ANSWER_AGAIN = 5e-7

# The two references both compute in float64, but transformers makes rotary angles and norms in float32.
GOLDEN_AGAINST_TORCH = 1e-6

# The fused constants against the unfused formulas, both in float64 from the same weights: rounding only.
FOLDING = 1e-12

# Share of additional checkpoint bytes that may show in the peak memory of the export: allocator noise, and the graph
# itself, whose nodes do grow with depth.
MEMORY_GROWTH = 0.10

# Four times the length: linear memory grows fourfold, memory of all scores sixteenfold; what is allocated once blurs
# both.
LINEAR_GROWTH = 6

# An 8-bit product is exact in integers; its three scales are multiplied in fp32.
SCALES_OF_A_PRODUCT = 1e-6

# A product with one term, code times scale in fp32: one rounding, and one more where the zero point is taken off.
ONE_PRODUCT = 3e-7
