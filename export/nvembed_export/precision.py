"""The one place that decides in which dtype, or quantised form, each weight is stored and each product is taken.

A precision has two dtypes: `wide` for the residual stream, the statistics and weights of norms, the pooler's softmax,
the mean and the length, and `narrow` for projections and attention. NVIDIA runs the model under autocast, which makes
the same division: a residual stream in fp16 would be a different model, since Mistral's has outliers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from nvembed_export.errors import UsageError
from nvembed_export.graph import MICROSOFT, GraphBuilder
from nvembed_export.quantization import ChannelQuantization, ChannelWeight, Quantization, QuantizedWeight
from nvembed_export.weights import Weight, round_to

# Step and code of zero of 8-bit activations between -1 and 1, and between 0 and 1; a token of zeros keeps them.
SIGNED, UNSIGNED, SMALLEST_TOKEN = (1 / 127, 128), (1 / 255, 0), 1e-30


@dataclass(frozen=True)
class Precision:
    """How a graph computes, and the dtype of its output."""

    name: str
    narrow: ir.DataType
    output: ir.DataType
    wide: ir.DataType = ir.DataType.FLOAT
    table: ir.DataType | None = None  # of the embedding table, where it is not narrow
    quantization: Quantization | ChannelQuantization | None = None  # of projections
    checkpoint_layout: bool = False  # projections stay [out, in]

    def narrowed(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        """A wide value in the narrow dtype; no node when the two are the same."""
        return self._cast(graph, x, self.wide, self.narrow)

    def widened(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        """A narrow value in the wide dtype; no node when the two are the same."""
        return self._cast(graph, x, self.narrow, self.wide)

    def finished(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        """A wide value in the dtype of the output; no node when the two are the same."""
        return self._cast(graph, x, self.wide, self.output)

    def _cast(self, graph: GraphBuilder, x: ir.Value, found: ir.DataType, wanted: ir.DataType) -> ir.Value:
        return x if found == wanted else graph.op("Cast", x, to=int(wanted))

    def embedding(self, graph: GraphBuilder, table: Weight, ids: ir.Value) -> ir.Value:
        """Rows of a table [V, D] by ids [B, S] -> wide [B, S, D]."""
        dtype = self.table or self.narrow
        rows = graph.op("Gather", self._store(graph, table, dtype), ids, axis=0)
        return self._cast(graph, rows, dtype, self.wide)

    def linear(self, graph: GraphBuilder, x: ir.Value, weight: Weight, weights_of_mean: bool = False) -> ir.Value:
        """x Wᵀ for a weight [out, in] in checkpoint layout: narrow [..., in] -> narrow [..., out].

        `weights_of_mean`: x is known to lie between 0 and 1, which saves a quantised x its sign.

        Stored as [in, out], which is what MatMul wants: transposing here costs the runtime nothing. Quantised weights
        keep [out, in], since blocks lie along the sum.
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
        """x Wᵀ by a product of 8-bit integers: codes of x with a scale a token, codes of W with a scale an output.

        ONNX Runtime's fast product knows one scale for all of x. So tokens are first divided by their largest
        magnitude, which their results are multiplied with again; then the scale is a constant, and a row does not
        depend on the others of its batch.
        """
        scale, zero = graph.constant(step, np.float32), graph.constant(middle, np.uint8)
        codes, largest = graph.once(("8-bit tokens", x), lambda: self._tokens(graph, x, scale, zero))
        channels, (out, width) = ChannelWeight(weight), weight.shape
        w = graph.weight(f"{weight.name}.codes", ir.DataType.INT8, (width, out), channels.codes)
        scales = graph.weight(f"{weight.name}.scales", ir.DataType.FLOAT, (out,), channels.scales)
        y = graph.op("MatMulIntegerToFloat", codes, w, scale, scales, zero, domain=MICROSOFT)
        y.type = ir.TensorType(self.narrow)  # which shape inference cannot know
        return graph.op("Mul", y, largest)

    def _tokens(self, graph: GraphBuilder, x: ir.Value, scale: ir.Value, zero: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Codes uint8 [..., D] of x [..., D] over each token's largest magnitude, and those magnitudes [..., 1]."""
        largest = graph.op("ReduceMax", graph.op("Abs", x), graph.constant([-1], np.int64), keepdims=1)
        largest = graph.op("Max", largest, self.scalar(graph, SMALLEST_TOKEN, wide=False))
        return graph.op("QuantizeLinear", graph.op("Div", x, largest), scale, zero), largest

    def narrow_weight(self, graph: GraphBuilder, weight: Weight) -> ir.Value:
        """Rotary tables and the biases of projections."""
        return self._store(graph, weight, self.narrow)

    def wide_weight(self, graph: GraphBuilder, weight: Weight) -> ir.Value:
        """Norm weights, and biases added to wide values."""
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
    # Embeddings are finished in float32 and stay so: bfloat16 would drop half of their digits, numpy's files have no
    # such dtype, and a row is small.
    "bf16": Precision("bf16", ir.DataType.BFLOAT16, output=ir.DataType.FLOAT),
}
# Products of int8 codes (accuracy level 4) are what makes them fast on CPUs; see docs/guides/precision.md for the figures.
_QUANTIZATIONS = {
    "int8": Quantization(bits=8, block_size=32, symmetric=True, accuracy_level=4),
    "int4": Quantization(bits=4, block_size=32, symmetric=True, accuracy_level=4),
}
W8A8 = "w8a8"  # weights 8 bits, activations 8 bits
PRECISIONS = [*_FLOATS, *_QUANTIZATIONS, W8A8]
ACTIVATIONS = ["fp32", "fp16"]


def make_precision(
    name: str,
    activations: str | None = None,
    block_size: int | None = None,
    symmetric: bool | None = None,
    accuracy_level: int | None = None,
) -> Precision:
    """The precision of a name; None takes its default. All but the name belong to int8 and int4.

    Raises UsageError for a value that ONNX Runtime does not take, and for an option the precision does not have.
    """
    given = {"block_size": block_size, "symmetric": symmetric, "accuracy_level": accuracy_level}
    given = {key: value for key, value in given.items() if value is not None}
    if name in _FLOATS or name == W8A8:
        options = ["activations"] * (activations is not None) + list(given)
        if options:
            raise UsageError(f"--{options[0].replace('_', '-')} is for int8 and int4, found it with {name}")
        if name == W8A8:
            fp32 = _FLOATS["fp32"]
            return replace(fp32, name=name, table=ir.DataType.FLOAT16, quantization=ChannelQuantization())
        return _FLOATS[name]
    base = _FLOATS[activations or "fp32"]
    # A table is looked up, not multiplied: fp16 holds what checkpoints hold, exactly where they are fp16 themselves.
    return replace(base, name=name, table=ir.DataType.FLOAT16, quantization=replace(_QUANTIZATIONS[name], **given))


def for_openvino(precision: Precision) -> Precision:
    """The precision as graphs for OpenVINO have it: float32 on the outside, bf16 where OpenVINO is told so.

    onnxruntime-openvino 1.24 takes no bfloat16 tensors. OpenVINO itself rounds what goes into products, from the mapped
    file and once, if the weights are float32 and [out, in]; float16 it would first copy as float32.

    Raises UsageError for a precision that OpenVINO is not used with.
    """
    if precision.name not in ("fp32", "bf16"):
        raise UsageError(f"--target openvino needs --precision fp32 or bf16, found {precision.name}")
    return replace(_FLOATS["fp32"], name=precision.name, checkpoint_layout=True)
