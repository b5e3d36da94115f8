"""Texts to ids and masks as on the model card, with the Hugging Face tokenizer. Imports nothing from the exporter."""

from __future__ import annotations

import numpy as np
from tokenizers import Tokenizer

EOS, EOS_ID = "</s>", 2


def open_tokenizer(tokenizer_json, max_length: int = 4096) -> Tokenizer:
    """A tokenizer that truncates on the right and does not pad."""
    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer


def encode(tokenizer: Tokenizer, rows) -> list[tuple[list[int], int]]:
    """(instruction, text) -> (`<s>` ids `</s>`, number of instruction tokens); truncation may remove `</s>`."""
    result = []
    for instruction, text in rows:
        ids = tokenizer.encode(f"{instruction}{text}{EOS}").ids
        result.append((ids, len(tokenizer.encode(instruction, add_special_tokens=False).ids) if instruction else 0))
    return result


def tokenize(tokenizer_json, rows, max_length: int = 4096) -> list[tuple[list[int], int]]:
    """Like `encode`, but opens the tokenizer."""
    return encode(open_tokenizer(tokenizer_json, max_length), rows)


def pack(rows, width: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ids, number of leading ids not pooled) -> input_ids, attention_mask, pool_mask, int64 [B, S], right-padded."""
    width = width or max(len(ids) for ids, _ in rows)
    input_ids = np.full((len(rows), width), EOS_ID, np.int64)
    attention_mask, pool_mask = np.zeros_like(input_ids), np.zeros_like(input_ids)
    for row, (ids, skipped) in enumerate(rows):
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
        pool_mask[row, skipped : len(ids)] = 1
    return input_ids, attention_mask, pool_mask
