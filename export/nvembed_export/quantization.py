"""Quantised weights: blockwise as ONNX Runtime's com.microsoft MatMulNBits reads them, or a scale for each output.

Blockwise: a row of a weight [N, K] is cut into blocks of `block_size` columns; each block has a scale, and for
asymmetric codes a zero point: w ≈ (code - zero) · scale. The last block is filled up with the zero point when K is no
multiple. Format: github.com/microsoft/onnxruntime, docs/ContribOperators.md, MatMulNBits.

    codes   uint8 [N, K/block, block·bits/8]    two 4-bit codes a byte, the low half first
    scales  float [N, K/block]                  the dtype of the activations
    zeros   uint8 [N, ⌈K/block · bits/8⌉]       packed as the codes are; absent when symmetric: 2^(bits-1)

A scale for each output channel: w ≈ code · scale, codes int8 [K, N] from -127 to 127, scales float32 [N].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nvembed_export.errors import UsageError, WeightValueError
from nvembed_export.weights import Weight, copy_transposed

BLOCK_SIZES = (16, 32, 64, 128, 256)  # what ONNX Runtime 1.32 takes
ACCURACY_LEVELS = (0, 1, 2, 3, 4)  # least accuracy of the product: none, fp32, fp16, bf16, int8


@dataclass(frozen=True)
class ChannelQuantization:
    """8-bit weights with a scale an output channel, multiplied with 8-bit activations with a scale a token.

    The fields are those of Quantization, as far as they mean something here.
    """

    bits: int = 8
    block_size: None = None
    symmetric: bool = True
    accuracy_level: None = None


@dataclass(frozen=True)
class Quantization:
    """How weights are stored, and how precisely they are multiplied at least."""

    bits: int
    block_size: int
    symmetric: bool
    accuracy_level: int

    def __post_init__(self) -> None:
        if self.block_size not in BLOCK_SIZES:
            raise UsageError(f"--block-size is {self.block_size}, expected one of {', '.join(map(str, BLOCK_SIZES))}")
        if self.accuracy_level not in ACCURACY_LEVELS:
            raise UsageError(f"--accuracy-level is {self.accuracy_level}, expected 0 to {ACCURACY_LEVELS[-1]}")

    @property
    def middle(self) -> int:
        """The code of zero when blocks have no zero point."""
        return 1 << (self.bits - 1)

    @property
    def largest(self) -> int:
        """The largest code."""
        return (1 << self.bits) - 1

    def blocks(self, width: int) -> int:
        """Blocks in a row of `width` columns, the last one perhaps filled up."""
        return -(-width // self.block_size)

    def packed_bytes(self, codes: int) -> int:
        """Bytes of a run of `codes` codes."""
        return -(-codes * self.bits // 8)


def quantize_rows(
    rows: np.ndarray, quantization: Quantization, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Codes uint8 [N, blocks, block] not yet packed, scales [N, blocks] in `dtype`, zeros uint8 [N, blocks] or None.

    Codes are chosen against the scale as it is stored. Symmetric scales are negative where that lets the entry of
    largest magnitude fall on the code that has no opposite, 0 (llama.cpp's Q4_0 does so): all codes are then used.
    """
    q = quantization
    count, width = rows.shape
    blocks = q.blocks(width)
    x = np.zeros((count, blocks * q.block_size), np.float32)
    x[:, :width] = rows
    starts = np.arange(0, x.size, q.block_size)
    high = np.maximum(np.maximum.reduceat(x.reshape(-1), starts), 0)
    low = np.minimum(np.minimum.reduceat(x.reshape(-1), starts), 0)
    x = x.reshape(-1, q.block_size)
    if q.symmetric:
        scales = np.where(high >= -low, high, low) / np.float32(-q.middle)
    else:
        scales = (high - low) / np.float32(q.largest)
    with np.errstate(over="ignore"):  # QuantizedWeight refuses what came out infinite, and says where
        scales = scales.astype(dtype)
    stored = scales.astype(np.float32)
    inverse = np.divide(1, stored, out=np.zeros_like(stored), where=stored != 0)
    if q.symmetric:
        zeros, offsets = None, np.float32(q.middle)
    else:
        offsets = np.clip(np.rint(-low * inverse), 0, q.largest)[:, None]
        zeros = offsets.astype(np.uint8).reshape(count, blocks)
    x *= inverse[:, None]
    x += offsets
    np.rint(x, out=x)
    np.clip(x, 0, q.largest, out=x)
    return x.astype(np.uint8).reshape(count, blocks, q.block_size), scales.reshape(count, blocks), zeros


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """uint8 codes [..., n] -> uint8 [..., ⌈n·bits/8⌉]; an odd number of 4-bit codes is filled up with a zero."""
    if bits == 8:
        return codes
    if codes.shape[-1] % 2:
        codes = np.concatenate([codes, np.zeros_like(codes[..., :1])], axis=-1)
    pairs = np.ascontiguousarray(codes).view("<u2")  # one pass over pairs is faster than two over halves
    return (pairs | pairs >> 4).astype(np.uint8)


def dequantize(
    codes: np.ndarray, scales: np.ndarray, zeros: np.ndarray | None, quantization: Quantization, width: int
) -> np.ndarray:
    """The float64 weight [N, width] that unpacked codes, scales and zeros stand for."""
    zero = quantization.middle if zeros is None else zeros[..., None]
    values = (codes.astype(np.float64) - zero) * scales[..., None].astype(np.float64)
    return values.reshape(len(codes), -1)[:, :width]


class ChannelWeight:
    """A weight [out, in] as codes int8 [in, out] and scales float32 [out], made in one pass over its rows.

    `codes` is asked for first, and once; the scales wait for their turn.
    """

    LARGEST = 127

    def __init__(self, weight: Weight):
        self.weight = weight
        self._scales: np.ndarray | None = None

    def codes(self) -> np.ndarray:
        """The nearest codes; each row's largest magnitude falls on ±127. A row of zeros has scale 0."""
        out, width = self.weight.shape
        codes, scales, row = np.empty((width, out), np.int8), np.empty(out, np.float32), 0
        for block in self.weight.row_blocks():
            rows = slice(row, row + len(block))
            x = block.astype(np.float32)
            found = np.abs(x).max(axis=1) / np.float32(self.LARGEST)
            if not np.isfinite(found).all():
                raise WeightValueError(f"tensor `{self.weight.name}`: found a value beyond the limit of float32")
            x *= np.divide(1, found, out=np.zeros_like(found), where=found != 0)[:, None]
            copy_transposed(codes, row, np.rint(x, out=x).astype(np.int8))
            scales[rows], row = found, rows.stop
        if row != out:
            raise AssertionError(f"{self.weight.name}: blocks cover {row} of {out} rows")
        self._scales = scales
        return codes

    def scales(self) -> np.ndarray:
        """One a column of the codes."""
        if self._scales is None:
            self.codes()
        return self._scales


class QuantizedWeight:
    """A weight in three arrays, made in one pass over its rows; what is asked for first triggers it.

    The codes are handed out once, and nothing but the small arrays waits for its turn.
    """

    def __init__(self, weight: Weight, quantization: Quantization, dtype: np.dtype):
        self.weight, self.quantization, self.dtype = weight, quantization, dtype
        q, (count, width) = quantization, weight.shape
        blocks = q.blocks(width)
        self.shapes = {
            "codes": (count, blocks, q.packed_bytes(q.block_size)),
            "scales": (count, blocks),
            "zeros": (count, q.packed_bytes(blocks)),
        }
        self._made: dict[str, np.ndarray] = {}

    def array(self, part: str) -> Callable[[], np.ndarray]:
        """A function that makes `codes`, `scales` or `zeros`."""

        def make() -> np.ndarray:
            if part not in self._made:
                self._make()
            return self._made.pop(part)

        return make

    def _make(self) -> None:
        q, row = self.quantization, 0
        codes = np.empty(self.shapes["codes"], np.uint8)
        scales = np.empty(self.shapes["scales"], self.dtype)
        zeros = np.empty(self.shapes["zeros"], np.uint8)
        for block in self.weight.row_blocks():
            rows = slice(row, row + len(block))
            found, scales[rows], zero = quantize_rows(block, q, self.dtype)
            codes[rows] = pack(found, q.bits)
            if zero is not None:
                zeros[rows] = pack(zero, q.bits)
            row += len(block)
        if row != self.weight.shape[0]:
            raise AssertionError(f"{self.weight.name}: blocks cover {row} of {self.weight.shape[0]} rows")
        if not np.isfinite(scales).all():
            raise WeightValueError(f"tensor `{self.weight.name}`: found a scale beyond the limit of {self.dtype}")
        self._made = {"codes": codes, "scales": scales} | ({} if q.symmetric else {"zeros": zeros})
