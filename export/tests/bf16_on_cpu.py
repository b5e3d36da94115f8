"""Running a bf16 graph where bf16 kernels are missing, as in ONNX Runtime's CPU provider.

Each node that the provider lacks computes in fp32, between casts of its bf16 inputs and outputs: exact products, sums
in fp32 and one rounding to bf16 at the end, which is what tensor cores do. Weights and every value between two nodes
are bf16, as in the graph itself. What a fused attention kernel rounds inside of itself is not covered.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper, shape_inference

MOVES = {"Cast", "Gather", "Reshape", "Split", "Squeeze", "Transpose", "Unsqueeze"}  # run on the CPU in any dtype


def runnable(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` (weights not loaded) with fp32 arithmetic between bf16 values; inputs, outputs and weights stay."""
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
