"""Selects the tokens of a batch that a graph computes, and takes the mean over the pooled ones.

Letters: B batch, S sequence, D hidden size, W any width, T real tokens in the batch, P pooled tokens in the batch.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from nvembed_export.graph import GraphBuilder
from nvembed_export.precision import Precision

PADDED = dict.fromkeys(("input_ids", "attention_mask", "pool_mask"), ["batch", "sequence"])


class EveryPosition:
    """All positions including padding: shapes depend only on input shapes, as CUDA graphs and TensorRT require."""

    INPUTS = PADDED

    def __init__(self, graph: GraphBuilder, precision: Precision, input_ids, attention_mask, pool_mask):
        self.precision, self.attention_mask, self._pool_mask = precision, attention_mask, pool_mask
        self.ids = input_ids  # int64 [B, S]
        self.positions = running_count(graph, attention_mask, axis=1)  # int64 [B, S]

    def lengths(self, graph: GraphBuilder) -> ir.Value:
        """Real tokens per row, int64 [B]."""
        return graph.op("ReduceSum", self.attention_mask, graph.constant([1], np.int64), keepdims=0)

    def rotary(self, graph: GraphBuilder, cos: ir.Value, sin: ir.Value) -> list[ir.Value]:
        """Inputs of RotaryEmbedding: the tables, [max_length, d/2] each, and each token's row in them, [B, S]."""
        return [cos, sin, self.positions]

    def to_rows(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        """Tokens in the shape that attention needs, [B, S, W]: unchanged."""
        return x

    def from_rows(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        """Inverse of `to_rows`: unchanged."""
        return x

    def pooled(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        """Tokens computed after the last attention: every position, because the mean ignores those not pooled."""
        return x

    def mean(self, graph: GraphBuilder) -> PoolMean:
        return PoolMean(graph, self.precision, self._pool_mask)


class RealTokens:
    """Packs the real tokens of all rows into a single row [1, T]; after the last attention only pooled ones, [1, P].

    Nothing is computed for padding or, at the end, for tokens that are not pooled, and rows of all lengths share larger
    and therefore faster matrix products. Shapes depend on values, so this is for the CPU only.
    """

    INPUTS = PADDED

    def __init__(self, graph: GraphBuilder, precision: Precision, input_ids, attention_mask, pool_mask):
        self.precision, self.attention_mask, self._pool_mask = precision, attention_mask, pool_mask
        self._real = graph.op("Transpose", graph.op("NonZero", attention_mask))  # row and column of each, [T, 2]
        self.ids = self.from_rows(graph, input_ids)  # int64 [1, T]
        self.positions = self.from_rows(graph, running_count(graph, attention_mask, axis=1))  # int64 [1, T]
        self._tokens = packed_index(graph, attention_mask)  # padding's is of another token; attention masks it
        is_pooled = graph.op("GatherND", pool_mask, self._real)
        self._pooled = graph.op("Squeeze", graph.op("NonZero", is_pooled), graph.constant([0], np.int64))  # [P]

    def rotary(self, graph: GraphBuilder, cos: ir.Value, sin: ir.Value) -> list[ir.Value]:
        """cos and sin per token, [1, T, d/2]. Given whole tables, ONNX Runtime rejects more tokens than table rows."""
        return [graph.op("Gather", table, self.positions, axis=0) for table in (cos, sin)]

    def to_rows(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        """[1, T, W] -> [B, S, W]; padding gets arbitrary finite values."""
        return unpacked(graph, x, self._tokens)

    def from_rows(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        """[B, S, ...] -> [1, T, ...]"""
        return graph.op("Unsqueeze", graph.op("GatherND", x, self._real), graph.constant([0], np.int64))

    def pooled(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        """[1, T, W] -> [1, P, W]"""
        return graph.op("Gather", x, self._pooled, axis=1)

    def mean(self, graph: GraphBuilder) -> PooledTokensMean:
        return PooledTokensMean(graph, self.precision, self._pool_mask, self._row_of_pooled(graph))

    def _row_of_pooled(self, graph: GraphBuilder) -> ir.Value:
        rows = graph.op("Gather", self._real, graph.constant(0, np.int64), axis=1)
        return graph.op("Gather", rows, self._pooled, axis=0)


class PackedTokens:
    """The tokens of all rows in a single row [1, T], as the caller packed them; only attention sees padded rows [B, S].

    Every shape follows from the shapes of the inputs, as CUDA graphs require, so all T tokens are computed to the end.
    T may exceed the number of real tokens, B the number of rows. docs/guides/model-folder.md has the inputs' contract.
    """

    INPUTS = {
        "input_ids": ["tokens"],
        "position_ids": ["tokens"],
        "pool_mask": ["tokens"],
        "row_ids": ["tokens"],
        "token_of_position": ["batch", "sequence"],
        "position_of_token": ["tokens"],
        "row_lengths": ["batch"],
    }

    def __init__(
        self,
        graph: GraphBuilder,
        precision: Precision,
        input_ids,
        position_ids,
        pool_mask,
        row_ids,
        token_of_position,
        position_of_token,
        row_lengths,
    ):
        self.precision = precision
        first = graph.constant([0], np.int64)
        self.ids, self.positions = (graph.op("Unsqueeze", x, first) for x in (input_ids, position_ids))  # [1, T]
        self._pool_mask, self._row_ids, self._row_lengths = pool_mask, row_ids, row_lengths
        self._token_of_position, self._position_of_token = token_of_position, position_of_token

    def lengths(self, graph: GraphBuilder) -> ir.Value:
        """Real tokens per row, int64 [B]."""
        return self._row_lengths

    def rotary(self, graph: GraphBuilder, cos: ir.Value, sin: ir.Value) -> list[ir.Value]:
        """cos and sin per token, [1, T, d/2]. Given whole tables, ONNX Runtime rejects more tokens than table rows."""
        return [graph.op("Gather", table, self.positions, axis=0) for table in (cos, sin)]

    def to_rows(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        """[1, T, W] -> [B, S, W]; padding gets the values of some token."""
        return graph.op(
            "Gather", graph.op("Squeeze", x, graph.constant([0], np.int64)), self._token_of_position, axis=0
        )

    def from_rows(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        """[B, S, W] -> [1, T, W]"""
        x = graph.op("Gather", graph.op("Flatten", x, axis=2), self._position_of_token, axis=0)
        return graph.op("Unsqueeze", x, graph.constant([0], np.int64))

    def pooled(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        """Tokens computed after the last attention: all of them, because the number of pooled ones is not a shape."""
        return x

    def mean(self, graph: GraphBuilder) -> PackedTokensMean:
        return PackedTokensMean(graph, self.precision, self._pool_mask, self._row_ids, self._row_lengths)


class RealTokensForOpenVino(RealTokens):
    """The same, with a mean of the residual stream that is a sum and not a matrix product.

    In a bf16 model OpenVINO computes values in float32 that reach the output through sums alone. So the residual stream
    stays float32, and the small channels beside Mistral's outliers keep their digits.
    """

    def mean(self, graph: GraphBuilder) -> SummedMean:
        return SummedMean(graph, self.precision, self._pool_mask, self._row_of_pooled(graph))


def packed_index(graph: GraphBuilder, mask: ir.Value) -> ir.Value:
    """For an int64 mask [B, S], the number of each one among all ones, [B, S]; a zero gets the number of some one."""
    flat = graph.op("Reshape", mask, graph.constant([-1], np.int64))
    return graph.op("Reshape", running_count(graph, flat, axis=0), graph.op("Shape", mask))


def unpacked(graph: GraphBuilder, x: ir.Value, index: ir.Value) -> ir.Value:
    """[1, T, W] -> [B, S, W], of the tokens at the index [B, S]."""
    return graph.op("Gather", graph.op("Squeeze", x, graph.constant([0], np.int64)), index, axis=0)


def running_count(graph: GraphBuilder, mask: ir.Value, axis: int) -> ir.Value:
    """Number of ones before each one of an int64 mask, computed without a `Shape` operator.

    In a right-padded row this is a token's position; padding gets the position of the last real token, so it stays
    inside the rotary tables. Max keeps rows that break this contract inside them too.
    """
    running = graph.op("CumSum", mask, graph.constant(axis, np.int64))
    one, zero = graph.constant([1], np.int64), graph.constant([0], np.int64)
    return graph.op("Max", graph.op("Sub", running, one), zero)


class PoolMean:
    """The mean over the positions that `pool_mask` selects, wide."""

    def __init__(self, graph: GraphBuilder, precision: Precision, pool_mask: ir.Value):
        self.mask = graph.op("Cast", pool_mask, to=int(precision.wide))  # [B, S]
        self.count = graph.op("ReduceSum", self.mask, graph.constant([1], np.int64), keepdims=1)  # [B, 1]

    def of_hidden(self, graph: GraphBuilder, h: ir.Value) -> ir.Value:
        """[B, S, D] -> [B, D]. Uses a product and a sum, because CUDA may compute a MatMul in TF32, not fp32."""
        weights = graph.op("Unsqueeze", graph.op("Div", self.mask, self.count), graph.constant([2], np.int64))
        return graph.op("ReduceSum", graph.op("Mul", h, weights), graph.constant([1], np.int64), keepdims=0)

    def of_activations(self, graph: GraphBuilder, a: ir.Value) -> ir.Value:
        """[B, S, F] -> [B, F]. A MatMul, because it reads the widest tensor of the graph only once.

        The division comes last: zeros, ones and widened fp16 values are exact in TF32, 1/count is not.
        """
        rows = graph.op("Unsqueeze", self.mask, graph.constant([1], np.int64))
        total = graph.op("Squeeze", graph.op("MatMul", rows, a), graph.constant([1], np.int64))
        return graph.op("Div", total, self.count)


class PooledTokensMean:
    """The mean over pooled tokens packed into one row; `rows` [P] is the row that each came from."""

    def __init__(self, graph: GraphBuilder, precision: Precision, pool_mask: ir.Value, rows: ir.Value):
        mask = graph.op("Cast", pool_mask, to=int(precision.wide))
        self.count = graph.op("ReduceSum", mask, graph.constant([1], np.int64), keepdims=1)  # [B, 1]
        batch = graph.op("Shape", pool_mask, start=0, end=1)
        zero, one = graph.constant(0, np.int64), graph.constant(1, np.int64)
        numbers = graph.op("Range", zero, graph.op("Squeeze", batch), one)
        numbers = graph.op("Unsqueeze", numbers, graph.constant([1], np.int64))
        self.selection = graph.op("Cast", graph.op("Equal", rows, numbers), to=int(precision.wide))  # [B, P]

    def of_hidden(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        """[1, P, W] -> [B, W]"""
        total = graph.op("MatMul", self.selection, graph.op("Squeeze", x, graph.constant([0], np.int64)))
        return graph.op("Div", total, self.count)

    of_activations = of_hidden


class PackedTokensMean:
    """The mean over the tokens that `pool_mask` [T] selects, by their rows [T]; a row without any has mean 0.

    A product of zeros and ones, which are exact in TF32, with values that CUDA may round to TF32.
    """

    def __init__(self, graph: GraphBuilder, precision: Precision, pool_mask, row_ids, row_lengths):
        wide, one = int(precision.wide), graph.constant([1], np.int64)
        # The number of each row, [B, 1]: a running sum over ones, because a `Shape` operator would run on the CPU.
        ones = graph.op("Add", graph.op("Sub", row_lengths, row_lengths), one)
        numbers = graph.op("CumSum", ones, graph.constant(0, np.int64), exclusive=1)
        of_row = graph.op("Equal", row_ids, graph.op("Unsqueeze", numbers, one))
        selection = graph.op("Mul", graph.op("Cast", of_row, to=wide), graph.op("Cast", pool_mask, to=wide))
        self.selection = selection  # [B, T]
        count = graph.op("ReduceSum", selection, one, keepdims=1)
        self.count = graph.op("Max", count, precision.scalar(graph, 1.0))  # [B, 1]

    def of_hidden(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        """[1, T, W] -> [B, W]. The division comes last, because 1/count is not exact in TF32."""
        total = graph.op("MatMul", self.selection, graph.op("Squeeze", x, graph.constant([0], np.int64)))
        return graph.op("Div", total, self.count)

    of_activations = of_hidden


class SummedMean(PooledTokensMean):
    """The same, but `of_hidden` is a sum over the positions of each row, to which the tokens are unpacked."""

    def __init__(self, graph: GraphBuilder, precision: Precision, pool_mask: ir.Value, rows: ir.Value):
        super().__init__(graph, precision, pool_mask, rows)
        self.index = packed_index(graph, pool_mask)
        self.positions = PoolMean(graph, precision, pool_mask)

    def of_hidden(self, graph: GraphBuilder, x: ir.Value) -> ir.Value:
        """[1, P, D] -> [B, D]"""
        return self.positions.of_hidden(graph, unpacked(graph, x, self.index))
