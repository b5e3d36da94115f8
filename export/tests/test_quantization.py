"""Quantised weights: how ONNX Runtime reads them, their distance to the weights, and options that are rejected."""

from __future__ import annotations

from dataclasses import replace

import int8_on_cpu
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import tolerances
from onnx import helper, numpy_helper

from nvembed_export.errors import UsageError, WeightValueError
from nvembed_export.graph import GraphBuilder
from nvembed_export.precision import SIGNED, UNSIGNED, make_precision
from nvembed_export.quantization import (
    ChannelWeight,
    Quantization,
    QuantizedWeight,
    dequantize,
    pack,
    quantize_rows,
)
from nvembed_export.weights import Weight

CASES = [(bits, block, symmetric) for bits in (4, 8) for block in (16, 32, 128) for symmetric in (True, False)]
WIDTHS = [32, 256, 70, 33, 5]  # whole blocks, an odd number of blocks, rows that end inside a block


def weights(width: int, count: int = 24) -> np.ndarray:
    """Random rows: one with an outlier, one all zero, one positive, one constant."""
    rows = np.random.default_rng(width).standard_normal((count, width)).astype(np.float32)
    rows[0, 0], rows[1], rows[2], rows[3] = 40, 0, np.abs(rows[2]), -0.25
    return rows


def runtime_matrix(q: Quantization, rows: np.ndarray, dtype=np.float32) -> np.ndarray:
    """The weight [N, K] as MatMulNBits reads it from the packed arrays: its product with the identity."""
    packed = QuantizedWeight(Weight.from_array("w", lambda: rows, rows.shape), q, np.dtype(dtype))
    parts = ["codes", "scales"] + ([] if q.symmetric else ["zeros"])
    initializers = [numpy_helper.from_array(packed.array(part)(), part) for part in parts]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    facts = {"K": rows.shape[1], "N": rows.shape[0], "bits": q.bits, "block_size": q.block_size}
    node = helper.make_node("MatMulNBits", ["x", *parts], ["y"], domain="com.microsoft", accuracy_level=1, **facts)
    x, y = (helper.make_tensor_value_info(name, kind, [None, None]) for name in "xy")
    graph = helper.make_graph([node], "one", [x], [y], initializers)
    imports = [helper.make_opsetid("", 24), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=12)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.eye(rows.shape[1], dtype=dtype)})[0].T


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("bits", "block", "symmetric"), CASES)
def test_onnx_runtime_reads_the_weight_that_was_packed(bits, block, symmetric, width):
    """Each sum has one term, so only the product of code and scale is rounded."""
    q, rows = Quantization(bits, block, symmetric, 1), weights(width)
    expected = dequantize(*quantize_rows(rows, q, np.dtype(np.float32)), q, width)
    np.testing.assert_allclose(runtime_matrix(q, rows), expected, rtol=tolerances.ONE_PRODUCT, atol=0)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("bits", "block", "symmetric"), CASES)
def test_a_code_is_at_most_half_a_step_away(bits, block, symmetric, width):
    q, rows = Quantization(bits, block, symmetric, 0), weights(width)
    codes, scales, zeros = quantize_rows(rows, q, np.dtype(np.float32))
    error = np.abs(dequantize(codes, scales, zeros, q, width) - rows)
    step = np.repeat(np.abs(scales), block, axis=1)[:, :width]
    # One sign has one code less, and a zero point shifts the ends of the range: clipping adds up to half a step there.
    assert (error <= step * (1 + 1e-5)).all()
    assert (error <= step * (0.5 + 1e-5)).mean() > 0.9
    assert not error[1].any()


def test_codes_do_not_depend_on_how_rows_are_read(tmp_path):
    """As a whole, or in uneven blocks as the checkpoint yields them."""
    rows, q = weights(70), Quantization(4, 32, False, 4)
    whole = QuantizedWeight(Weight.from_array("w", lambda: rows, rows.shape), q, np.dtype(np.float32))
    parts = Weight("w", rows.shape, lambda: iter([rows[:5], rows[5:6], rows[6:]]))
    parts = QuantizedWeight(parts, q, np.dtype(np.float32))
    for part in ("codes", "scales", "zeros"):
        a, b = whole.array(part)(), parts.array(part)()
        assert a.shape == whole.shapes[part]
        assert np.array_equal(a, b)


def test_two_codes_share_a_byte_with_the_low_half_first():
    assert pack(np.array([[1, 2, 3, 15, 7]], np.uint8), 4).tolist() == [[0x21, 0xF3, 0x07]]
    assert pack(np.array([[1, 200]], np.uint8), 8).tolist() == [[1, 200]]


def test_codes_are_computed_from_the_rounded_fp16_scales():
    q, rows = Quantization(8, 32, True, 0), weights(64) * np.float32(1e-3)
    codes, scales, zeros = quantize_rows(rows, q, np.dtype(np.float16))
    error = np.abs(dequantize(codes, scales, zeros, q, 64) - rows)
    step = np.repeat(np.abs(scales.astype(np.float64)), 32, axis=1)
    assert scales.dtype == np.float16
    # Codes reach 128, so a relative error of 2^-11 in a scale moves the largest by 1/16 of a step.
    assert (error <= step * 1.1).all()
    found = runtime_matrix(q, rows, np.float16)
    np.testing.assert_allclose(found, dequantize(codes, scales, zeros, q, 64), rtol=2**-10, atol=1e-7)


def test_a_scale_beyond_fp16_is_rejected_by_name():
    rows = np.full((2, 32), 1e7, np.float32)
    packed = QuantizedWeight(
        Weight.from_array("up_proj", lambda: rows, rows.shape), Quantization(4, 32, True, 0), np.dtype(np.float16)
    )
    with pytest.raises(WeightValueError, match="tensor `up_proj`: a scale exceeds the range of float16; export with"):
        packed.array("codes")()


def test_codes_of_a_channel_are_rounded_to_nearest():
    rows = weights(70)
    channels = ChannelWeight(Weight("w", rows.shape, lambda: iter([rows[:5], rows[5:6], rows[6:]])))
    codes, scales = channels.codes(), channels.scales()
    assert codes.dtype == np.int8
    assert codes.shape == (70, 24)
    error = np.abs(codes.T * scales[:, None].astype(np.float64) - rows)
    assert (error <= scales[:, None] * (0.5 + 1e-4)).all()
    assert (np.abs(codes).max(axis=0) == np.where(rows.any(axis=1), 127, 0)).all()


def int8_linear(folder, rows: np.ndarray, weights_of_mean: bool, large: tuple[int, ...] = ()):
    """The exporter's 8-bit product with the weight `rows` [out, in], as a function of x [B, S, in]."""
    graph = GraphBuilder("linear")
    precision = replace(make_precision("w8a8"), large_channels=lambda name: large)
    x = ir.Value(name="x", shape=ir.Shape(["b", "s", rows.shape[1]]), type=ir.TensorType(ir.DataType.FLOAT))
    y = precision.linear(graph, x, Weight.from_array("w", lambda: rows, rows.shape), weights_of_mean)
    y.name, y.shape, y.type = "y", ir.Shape(["b", "s", len(rows)]), ir.TensorType(ir.DataType.FLOAT)
    model = onnx.ModelProto.FromString(graph.model([x], [y]).SerializeToString())
    model = model if int8_on_cpu.products_are_exact() else int8_on_cpu.runnable(model)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    graph.data.write(folder / "model.onnx.data", lambda _: None)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})[0]


def tokens(weights_of_mean: bool) -> np.ndarray:
    """Tokens [2, 5, 70] of very different magnitudes, one of them all zero."""
    x = np.random.default_rng(3).standard_normal((2, 5, 70)).astype(np.float32)
    x *= np.float32(10) ** np.arange(-4, 6).reshape(2, 5, 1)
    x[0, 3] = 0
    return np.abs(x) / np.maximum(np.abs(x).max(-1, keepdims=True), 1) if weights_of_mean else x


@pytest.mark.parametrize("weights_of_mean", [False, True])
def test_an_8_bit_product_is_the_product_of_its_codes(tmp_path, weights_of_mean):
    """Integer products are exact, so only the scales are rounded."""
    rows, x = weights(70), tokens(weights_of_mean)
    step, _ = UNSIGNED if weights_of_mean else SIGNED
    largest = np.maximum(np.abs(x).max(-1, keepdims=True), np.float32(1e-30))
    codes = np.rint((x / largest) / np.float32(step)).astype(np.float64)
    assert (np.abs(codes).max(-1)[x.any(-1)] == (255 if weights_of_mean else 127)).all()
    channels = ChannelWeight(Weight.from_array("w", lambda: rows, rows.shape))
    expected = (
        (codes @ channels.codes().astype(np.float64)) * channels.scales() * np.float64(np.float32(step)) * largest
    )
    found = int8_linear(tmp_path, rows, weights_of_mean)(x)
    np.testing.assert_allclose(found, expected, rtol=tolerances.SCALES_OF_A_PRODUCT, atol=0)


def test_a_token_of_an_8_bit_product_does_not_depend_on_the_others(tmp_path):
    run, x = int8_linear(tmp_path, weights(70), False), tokens(False)
    alone = np.concatenate([run(x[:1, token : token + 1]) for token in range(5)], axis=1)
    assert np.array_equal(run(x)[:1], alone)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("int8", {"block_size": 48}, "--block-size is 48, expected one of 16, 32, 64, 128, 256"),
        ("int4", {"block_size": 0}, "--block-size is 0"),
        ("int4", {"accuracy_level": 5}, "--accuracy-level is 5, expected 0 to 4"),
        ("fp16", {"block_size": 32}, "--block-size applies only to --precision int8 and int4, got --precision fp16"),
        ("bf16", {"activations": "fp32"}, "--activations applies only to .*, got --precision bf16"),
        ("fp32", {"symmetric": False}, "--symmetric applies only to --precision int8 and int4"),
        ("w8a8", {"block_size": 32}, "--block-size applies only to .*, got --precision w8a8"),
    ],
)
def test_options_that_do_not_apply_are_rejected(name, options, message):
    with pytest.raises(UsageError, match=message):
        make_precision(name, **options)
