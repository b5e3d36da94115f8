"""Runs a bf16 graph without bf16 kernels, which ONNX Runtime's CPU provider lacks.

Each node without such a kernel computes in fp32, between casts of its bf16 inputs and outputs: exact products, fp32
sums and one rounding to bf16 at the end, as in tensor cores. Weights and every value between two nodes are bf16, as in
the graph itself. Rounding inside a fused attention kernel is not emulated.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper, shape_inference

MOVES = {"Cast", "Gather", "Reshape", "Split", "Squeeze", "Transpose", "Unsqueeze"}  # run on the CPU in any dtype


def runnable(model: onnx.ModelProto) -> onnx.ModelProto:
    """Change `model` (weights not loaded) to fp32 arithmetic between bf16 values; inputs, outputs and weights stay."""
    model = shape_inference.infer_shapes(model, strict_mode=True)
    graph = model.graph
    dtype = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    dtype |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type in MOVES:
            nodes.append(node)
            continue
        after = []
        for index, name in enumerate(node.input):
            if dtype.get(name) == TensorProto.BFLOAT16:
                node.input[index] = wide = f"{node.name}/in{index}"
                nodes.append(helper.make_node("Cast", [name], [wide], name=f"{wide}/Cast", to=TensorProto.FLOAT))
        for index, name in enumerate(node.output):
            if dtype.get(name) == TensorProto.BFLOAT16:
                node.output[index] = wide = f"{node.name}/out{index}"
                after.append(helper.make_node("Cast", [wide], [name], name=f"{wide}/Cast", to=TensorProto.BFLOAT16))
        nodes += [node, *after]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return model
