"""Quantised weights, either blockwise for ONNX Runtime's com.microsoft MatMulNBits or with one scale per output.

Blockwise: each row of a weight [N, K] is split into blocks of `block_size` columns. A block has a scale and, if
asymmetric, a zero point: w ≈ (code - zero) · scale. If K is not a multiple of the block size, the last block is padded
with the zero point. Format: github.com/microsoft/onnxruntime, docs/ContribOperators.md, MatMulNBits.

    codes   uint8 [N, ⌈K/block⌉, block·bits/8]    two 4-bit codes per byte, low half first
    scales  float [N, ⌈K/block⌉]                  dtype of the activations
    zeros   uint8 [N, ⌈⌈K/block⌉ · bits/8⌉]       packed like the codes; absent if symmetric, where zero is 2^(bits-1)

Per output channel: w ≈ code · scale, codes int8 [K, N] from -127 to 127, scales float32 [N].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nvembed_export.errors import UsageError, WeightValueError
from nvembed_export.weights import Weight, copy_transposed

BLOCK_SIZES = (16, 32, 64, 128, 256)  # supported by ONNX Runtime 1.32
ACCURACY_LEVELS = (0, 1, 2, 3, 4)  # lowest precision allowed for products: the kernel's choice, fp32, fp16, bf16, int8


@dataclass(frozen=True)
class ChannelQuantization:
    """8-bit weights with one scale per output channel; activations are 8-bit with one scale per token.

    Has the fields of Quantization for the manifest; those that do not apply are None.
    """

    bits: int = 8
    block_size: None = None
    symmetric: bool = True
    accuracy_level: None = None


@dataclass(frozen=True)
class Quantization:
    """How weights are stored blockwise, and the lowest precision allowed for their products."""

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
        """The code of 0.0 if blocks have no zero point."""
        return 1 << (self.bits - 1)

    @property
    def largest(self) -> int:
        """The largest code."""
        return (1 << self.bits) - 1

    def blocks(self, width: int) -> int:
        """Number of blocks in a row of `width` columns, including a padded last block."""
        return -(-width // self.block_size)

    def packed_bytes(self, codes: int) -> int:
        """Number of bytes that `codes` consecutive codes take."""
        return -(-codes * self.bits // 8)


def quantize_rows(
    rows: np.ndarray, quantization: Quantization, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Unpacked codes uint8 [N, blocks, block], scales [N, blocks] in `dtype`, and zeros uint8 [N, blocks] or None.

    Codes are computed from the scale after it was rounded to `dtype`. A symmetric scale gets the sign that maps the
    entry of largest magnitude to code 0, which has no opposite, so that all codes are used (as in llama.cpp's Q4_0).
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
    with np.errstate(over="ignore"):  # QuantizedWeight rejects infinite scales and names the tensor
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
    """uint8 codes [..., n] -> uint8 [..., ⌈n·bits/8⌉]; an odd number of 4-bit codes is padded with 0."""
    if bits == 8:
        return codes
    if codes.shape[-1] % 2:
        codes = np.concatenate([codes, np.zeros_like(codes[..., :1])], axis=-1)
    pairs = np.ascontiguousarray(codes).view("<u2")  # one pass over pairs is faster than two passes over halves
    return (pairs | pairs >> 4).astype(np.uint8)


def dequantize(
    codes: np.ndarray, scales: np.ndarray, zeros: np.ndarray | None, quantization: Quantization, width: int
) -> np.ndarray:
    """The weight, float64 [N, width], that unpacked codes, scales and zeros represent."""
    zero = quantization.middle if zeros is None else zeros[..., None]
    values = (codes.astype(np.float64) - zero) * scales[..., None].astype(np.float64)
    return values.reshape(len(codes), -1)[:, :width]


class ChannelWeight:
    """A weight [out, in] as codes int8 [in, out] and scales float32 [out], computed in one pass over its rows.

    Call `codes` first: only the scales and the large inputs' weights are kept, so calling it again repeats the pass.
    The codes of `large` inputs are 0, and their weights are `large()`, float32 [L, out].
    """

    LARGEST = 127

    def __init__(self, weight: Weight, large: tuple[int, ...] = ()):
        self.weight, self.inputs = weight, list(large)
        self._scales: np.ndarray | None = None
        self._large: np.ndarray | None = None

    def codes(self) -> np.ndarray:
        """Codes, rounded to nearest; the largest magnitude of each row maps to ±127. An all-zero row has scale 0.

        Raises WeightValueError if a value exceeds the range of float32.
        """
        out, width = self.weight.shape
        codes, scales, row = np.empty((width, out), np.int8), np.empty(out, np.float32), 0
        large = np.empty((len(self.inputs), out), np.float32)
        for block in self.weight.row_blocks():
            rows = slice(row, row + len(block))
            x = block.astype(np.float32)
            if self.inputs:
                large[:, rows] = x[:, self.inputs].T
                x[:, self.inputs] = 0
            found = np.abs(x).max(axis=1) / np.float32(self.LARGEST)
            if not np.isfinite(found).all():
                raise WeightValueError(f"tensor `{self.weight.name}`: a value exceeds the range of float32")
            x *= np.divide(1, found, out=np.zeros_like(found), where=found != 0)[:, None]
            copy_transposed(codes, row, np.rint(x, out=x).astype(np.int8))
            scales[rows], row = found, rows.stop
        if row != out:
            raise AssertionError(f"{self.weight.name}: blocks cover {row} of {out} rows")
        self._scales, self._large = scales, large
        return codes

    def scales(self) -> np.ndarray:
        """Scales, float32 [out], one per column of the codes."""
        if self._scales is None:
            self.codes()
        return self._scales

    def large(self) -> np.ndarray:
        """The weights of the large inputs, float32 [L, out]."""
        if self._large is None:
            self.codes()
        return self._large


class QuantizedWeight:
    """A weight [N, K] as codes, scales and zeros, computed in one pass over its rows when the first of them is needed.

    Each array is released when it is returned, so the codes do not stay in memory.
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
        """A function that returns `codes`, `scales` or `zeros`, to be called once per part.

        It raises WeightValueError if a scale exceeds the range of the dtype.
        """

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
            hint = "; export with --activations fp32" if self.dtype == np.float16 else ""
            raise WeightValueError(f"tensor `{self.weight.name}`: a scale exceeds the range of {self.dtype}{hint}")
        self._made = {"codes": codes, "scales": scales} | ({} if q.symmetric else {"zeros": zeros})
