"""Decides the dtype or quantised form in which each weight is stored and each product is computed.

A precision has two dtypes: `wide` for the residual stream, the statistics and weights of norms, the pooler's softmax,
the mean and the normalisation, and `narrow` for projections and attention. NVIDIA runs the model under autocast, which
splits it the same way: Mistral's residual stream has outliers, so keeping it in fp16 would change the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from nvembed_export.errors import UsageError
from nvembed_export.graph import MICROSOFT, GraphBuilder
from nvembed_export.quantization import ChannelQuantization, ChannelWeight, Quantization, QuantizedWeight
from nvembed_export.weights import Weight, round_to

# Scale and zero point of 8-bit activations in [-1, 1] and in [0, 1], and the smallest divisor for a token, so that an
# all-zero token is not divided by 0.
SIGNED, UNSIGNED, SMALLEST_TOKEN = (1 / 127, 128), (1 / 255, 0), 1e-30


@dataclass(frozen=True)
class Precision:
    """The dtypes in which a graph stores weights, computes, and returns embeddings."""

    name: str
    narrow: ir.DataType
    output: ir.DataType
    wide: ir.DataType = ir.DataType.FLOAT
    table: ir.DataType | None = None  # dtype of the embedding table; None: narrow
    quantization: Quantization | ChannelQuantization | None = None  # of the projections
    checkpoint_layout: bool = False  # store projections as [out, in]
    large_channels: Callable[[str], tuple[int, ...]] = lambda name: ()  # inputs of a weight that 8 bits do not hold

    def narrowed(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        """Cast a wide value to the narrow dtype; adds no node if they are the same."""
        return self._cast(graph, x, self.wide, self.narrow)

    def widened(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        """Cast a narrow value to the wide dtype; adds no node if they are the same."""
        return self._cast(graph, x, self.narrow, self.wide)

    def finished(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        """Cast a wide value to the output dtype; adds no node if they are the same."""
        return self._cast(graph, x, self.wide, self.output)

    def _cast(self, graph: GraphBuilder, x: ir.Value, found: ir.DataType, wanted: ir.DataType) -> ir.Value:
        return x if found == wanted else graph.op("Cast", x, to=int(wanted))

    def embedding(self, graph: GraphBuilder, table: Weight, ids: ir.Value) -> ir.Value:
        """Look up ids [B, S] in a table [V, D] -> wide [B, S, D]."""
        dtype = self.table or self.narrow
        rows = graph.op("Gather", self._store(graph, table, dtype), ids, axis=0)
        return self._cast(graph, rows, dtype, self.wide)

    def linear(self, graph: GraphBuilder, x: ir.Value, weight: Weight, weights_of_mean: bool = False) -> ir.Value:
        """x Wᵀ for a weight given as [out, in]: narrow [..., in] -> narrow [..., out].

        `weights_of_mean`: x lies in [0, 1], so that w8a8 can quantise it without a sign.

        The weight is stored as MatMul needs it, [in, out], so that nothing is transposed at run time. Blockwise
        quantised weights stay [out, in], because their blocks lie along the input dimension.
        """
        if isinstance(self.quantization, ChannelQuantization):
            return self._int8_linear(graph, x, weight, *(UNSIGNED if weights_of_mean else SIGNED))
        if self.quantization is not None:
            return self._quantized_linear(graph, x, weight, self.quantization)
        if self.checkpoint_layout:
            return graph.op("MatMul", x, graph.op("Transpose", self._store(graph, weight, self.narrow), perm=[1, 0]))
        return graph.op("MatMul", x, self._store(graph, weight, self.narrow, transposed=True))

    def _quantized_linear(self, graph: GraphBuilder, x: ir.Value, weight: Weight, q: Quantization) -> ir.Value:
        packed, (out, width) = QuantizedWeight(weight, q, self.narrow.numpy()), weight.shape
        parts = [("codes", ir.DataType.UINT8), ("scales", self.narrow)]
        parts += [] if q.symmetric else [("zeros", ir.DataType.UINT8)]
        stored = [
            graph.weight(f"{weight.name}.{part}", dtype, packed.shapes[part], packed.array(part))
            for part, dtype in parts
        ]
        facts = {"K": width, "N": out, "bits": q.bits, "block_size": q.block_size, "accuracy_level": q.accuracy_level}
        y = graph.op("MatMulNBits", x, *stored, domain=MICROSOFT, **facts)
        y.type = ir.TensorType(self.narrow)  # which shape inference cannot know
        return y

    def _int8_linear(self, graph: GraphBuilder, x: ir.Value, weight: Weight, step: float, middle: int) -> ir.Value:
        """x Wᵀ as a product of 8-bit integers: x has one scale per token, W one scale per output.

        ONNX Runtime's fast product supports a single scale for all of x. So each token is divided by its largest
        magnitude before the product and multiplied by it afterwards. The scale is then a constant, and a row does not
        depend on the other rows of its batch. Large channels have a product of their own, in float32.
        """
        large = self.large_channels(weight.name)
        scale, zero = graph.constant(step, np.float32), graph.constant(middle, np.uint8)
        small, rest = x, None
        if large:
            small, rest = graph.once(("large channels", x, large), lambda: self._apart(graph, x, weight, large))
        codes, largest = graph.once(("8-bit tokens", small), lambda: self._tokens(graph, small, scale, zero))
        channels, (out, width) = ChannelWeight(weight, large), weight.shape
        w = graph.weight(f"{weight.name}.codes", ir.DataType.INT8, (width, out), channels.codes)
        scales = graph.weight(f"{weight.name}.scales", ir.DataType.FLOAT, (out,), channels.scales)
        y = graph.op("MatMulIntegerToFloat", codes, w, scale, scales, zero, domain=MICROSOFT)
        y.type = ir.TensorType(self.narrow)  # which shape inference cannot know
        y = graph.op("Mul", y, largest)
        if not large:
            return y
        w = graph.weight(f"{weight.name}.large", ir.DataType.FLOAT, (len(large), out), channels.large)
        return graph.op("Add", y, graph.op("MatMul", rest, w))

    def _apart(
        self, graph: GraphBuilder, x: ir.Value, weight: Weight, large: tuple[int, ...]
    ) -> tuple[ir.Value, ir.Value]:
        """x [..., D] with zeros in the large channels, and these alone, [..., L]."""
        flags = np.ones(weight.shape[1], np.float32)
        flags[list(large)] = 0
        is_small = self.wide_weight(graph, Weight.from_array(f"{weight.name}.small", lambda: flags, flags.shape))
        return graph.op("Mul", x, is_small), graph.op("Gather", x, graph.constant(list(large), np.int64), axis=-1)

    def _tokens(self, graph: GraphBuilder, x: ir.Value, scale: ir.Value, zero: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Codes, uint8 [..., D], of x [..., D] divided by each token's largest magnitude; the magnitudes, [..., 1]."""
        largest = graph.op("ReduceMax", graph.op("Abs", x), graph.constant([-1], np.int64), keepdims=1)
        largest = graph.op("Max", largest, self.scalar(graph, SMALLEST_TOKEN, wide=False))
        return graph.op("QuantizeLinear", graph.op("Div", x, largest), scale, zero), largest

    def narrow_weight(self, graph: GraphBuilder, weight: Weight) -> ir.Value:
        """A weight in the narrow dtype: rotary tables, biases of projections."""
        return self._store(graph, weight, self.narrow)

    def wide_weight(self, graph: GraphBuilder, weight: Weight) -> ir.Value:
        """A weight in the wide dtype: norm weights, biases added to wide values."""
        return self._store(graph, weight, self.wide)

    def _store(self, graph: GraphBuilder, weight: Weight, dtype: ir.DataType, transposed: bool = False) -> ir.Value:
        shape = weight.shape[::-1] if transposed else weight.shape
        return graph.weight(weight.name, dtype, shape, lambda: weight.array(dtype.numpy(), transposed))

    def scalar(self, graph: GraphBuilder, value: float, wide: bool = True) -> ir.Value:
        dtype = (self.wide if wide else self.narrow).numpy()
        return graph.constant(float(round_to(np.asarray([value]), dtype, "constant")[0]), dtype.type)


_FLOATS = {
    "fp32": Precision("fp32", ir.DataType.FLOAT, output=ir.DataType.FLOAT),
    "fp16": Precision("fp16", ir.DataType.FLOAT16, output=ir.DataType.FLOAT16),
    # The last steps are in float32, and so is the output: bfloat16 would lose half of the digits, .npy files do not
    # support it, and an embedding is small.
    "bf16": Precision("bf16", ir.DataType.BFLOAT16, output=ir.DataType.FLOAT),
}
# Accuracy level 4, products of int8 codes, is what makes them fast on CPUs; docs/guides/precision.md has the figures.
_QUANTIZATIONS = {
    "int8": Quantization(bits=8, block_size=32, symmetric=True, accuracy_level=4),
    "int4": Quantization(bits=4, block_size=32, symmetric=True, accuracy_level=4),
}
BLOCKWISE = tuple(_QUANTIZATIONS)
W8A8 = "w8a8"  # 8-bit weights, 8-bit activations
PRECISIONS = [*_FLOATS, *_QUANTIZATIONS, W8A8]
ACTIVATIONS = ["fp32", "fp16"]


def make_precision(
    name: str,
    activations: str | None = None,
    block_size: int | None = None,
    symmetric: bool | None = None,
    accuracy_level: int | None = None,
) -> Precision:
    """The precision with this name. The other options apply only to int8 and int4; None takes the default.

    Raises UsageError for a value that ONNX Runtime does not support and for an option the precision does not have.
    """
    given = {"block_size": block_size, "symmetric": symmetric, "accuracy_level": accuracy_level}
    given = {key: value for key, value in given.items() if value is not None}
    if name in _FLOATS or name == W8A8:
        options = ["activations"] * (activations is not None) + list(given)
        if options:
            option = options[0].replace("_", "-")
            raise UsageError(f"--{option} applies only to --precision int8 and int4, got --precision {name}")
        if name == W8A8:
            fp32 = _FLOATS["fp32"]
            return replace(fp32, name=name, table=ir.DataType.FLOAT16, quantization=ChannelQuantization())
        return _FLOATS[name]
    base = _FLOATS[activations or "fp32"]
    # The embedding table is looked up, not multiplied, so it is stored as fp16, which is exact for fp16 checkpoints.
    return replace(base, name=name, table=ir.DataType.FLOAT16, quantization=replace(_QUANTIZATIONS[name], **given))


def for_openvino(precision: Precision) -> Precision:
    """The form of fp32 or bf16 in graphs for OpenVINO: all tensors are float32; OpenVINO computes in bf16 if asked to.

    onnxruntime-openvino 1.24 does not support bfloat16 tensors. OpenVINO itself rounds the inputs of products; for
    weights that are float32 and [out, in] it does so once, from the mapped file. It would first copy float16 weights
    to float32.
    """
    return replace(_FLOATS["fp32"], name=precision.name, checkpoint_layout=True)
