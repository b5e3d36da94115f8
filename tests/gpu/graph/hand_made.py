"""Small graphs with NV-Embed's inputs and output: one attention layer, in forms that providers run well or badly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser

HIDDEN, HEADS, VOCABULARY, POSITIONS = 128, 4, 16, 512

FORMS = {
    # What the exporter writes for CUDA.
    "lengths": f"""
        lengths = ReduceSum <keepdims = 0> (attention_mask, one)
        y = Attention <q_num_heads = {HEADS}, kv_num_heads = {HEADS}> (q, k, v, , , , lengths)
    """,
    "shape-operator": f"""
        shape = Shape (input_ids)
        width = Gather (shape, scalar_one)
        positions = Range (scalar_zero, width, scalar_one)
        moved = Gather (position_table, positions)
        shifted = Add (q, moved)
        lengths = ReduceSum <keepdims = 0> (attention_mask, one)
        y = Attention <q_num_heads = {HEADS}, kv_num_heads = {HEADS}> (shifted, k, v, , , , lengths)
    """,
    "mask-tensor": f"""
        real = Cast <to = 9> (attention_mask)
        keys = Unsqueeze (real, one_two)
        queries = Unsqueeze (real, one_three)
        mask = And (keys, queries)
        y = Attention <q_num_heads = {HEADS}, kv_num_heads = {HEADS}> (q, k, v, mask)
    """,
    "primitive": """
        q_4d = Reshape (q, by_head)
        k_4d = Reshape (k, by_head)
        v_4d = Reshape (v, by_head)
        q_heads = Transpose <perm = [0, 2, 1, 3]> (q_4d)
        k_heads = Transpose <perm = [0, 2, 3, 1]> (k_4d)
        v_heads = Transpose <perm = [0, 2, 1, 3]> (v_4d)
        all_scores = MatMul (q_heads, k_heads)
        real = Cast <to = 9> (attention_mask)
        keys = Unsqueeze (real, one_two)
        scores = Where (keys, all_scores, least)
        weights = Softmax <axis = -1> (scores)
        y_heads = MatMul (weights, v_heads)
        y_4d = Transpose <perm = [0, 2, 1, 3]> (y_heads)
        y = Reshape (y_4d, together)
    """,
    "key-padding-mask": f"""
        mask = Cast <to = 6> (attention_mask)
        y = com.microsoft.MultiHeadAttention <num_heads = {HEADS}> (q, k, v, , mask)
    """,
}
GRAPH = """
    <ir_version: 12, opset_import: ["": 24, "com.microsoft": 1]>
    {name} (int64[batch, sequence] input_ids, int64[batch, sequence] attention_mask, int64[batch, sequence] pool_mask)
        => ({dtype}[batch, {hidden}] embeddings)
    {{
        x = Gather (table, input_ids)
        q = MatMul (x, query_weight)
        k = MatMul (x, key_weight)
        v = MatMul (x, value_weight)
        {attention}
        selected = Cast <to = {number}> (pool_mask)
        rows = Unsqueeze (selected, one)
        pooled = MatMul (rows, y)
        embeddings = Squeeze (pooled, one)
    }}
"""


def write(form: str, path: Path, dtype: str = "float16") -> Path:
    """Write the graph of that form and dtype (float16 or float), with its weights in the same file."""
    number = TensorProto.DataType.Value(dtype.upper())
    text = GRAPH.format(name=form.replace("-", "_"), hidden=HIDDEN, attention=FORMS[form], dtype=dtype, number=number)
    model = parser.parse_model(text)
    rng, kind = np.random.default_rng(0), helper.tensor_dtype_to_np_dtype(number)

    def random(*shape):
        return (rng.standard_normal(shape) / 8).astype(kind)

    values = {
        "table": random(VOCABULARY, HIDDEN),
        "position_table": random(POSITIONS, HIDDEN),
        "query_weight": random(HIDDEN, HIDDEN),
        "key_weight": random(HIDDEN, HIDDEN),
        "value_weight": random(HIDDEN, HIDDEN),
        "least": np.array(-60000, kind),
        "one": np.array([1]),
        "one_two": np.array([1, 2]),
        "one_three": np.array([1, 3]),
        "scalar_zero": np.array(0),
        "scalar_one": np.array(1),
        "by_head": np.array([0, 0, HEADS, HIDDEN // HEADS]),
        "together": np.array([0, 0, HIDDEN]),
    }
    used = {name for node in model.graph.node for name in node.input}
    for name, value in values.items():
        if name in used:
            model.graph.initializer.append(numpy_helper.from_array(value, name))
    for node in model.graph.node:
        node.name = f"{node.op_type}/{node.output[0]}"
    onnx.save(model, path)
    return path
