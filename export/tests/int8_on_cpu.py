"""Runs products of 8-bit integers on processors whose own instructions overflow.

Before VNNI, x86 adds two 8-bit products in 16 bits and saturates, so the runtime refuses w8a8 models there. The graph
can still be tested with the same sums in float64, which represents every one of them exactly.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from nvembed_export.distance import products_are_exact

__all__ = ["products_are_exact", "runnable"]

PRODUCT = "MatMulIntegerToFloat"


def runnable(model: onnx.ModelProto) -> onnx.ModelProto:
    """Change `model` (weights not loaded): every product of 8-bit integers becomes basic operators."""
    nodes = []
    for node in model.graph.node:
        nodes += _written_out(node) if node.op_type == PRODUCT else [node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _written_out(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """codes, weight, scale, scales, zero -> (codes - zero) @ weight, exactly; then times the scales, in float32."""
    codes, weight, scale, scales, zero = node.input
    made = []

    def op(kind, *inputs, **attributes):
        name = f"{node.name}/{len(made)}"
        made.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    codes, weight, zero = (op("Cast", value, to=TensorProto.DOUBLE) for value in (codes, weight, zero))
    sums = op("Cast", op("MatMul", op("Sub", codes, zero), weight), to=TensorProto.FLOAT)
    op("Mul", sums, op("Mul", scale, scales))
    made[-1].output[0] = node.output[0]
    return made
