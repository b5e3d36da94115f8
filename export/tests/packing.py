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


def pack_tokens(rows, width: int | None = None, more_tokens: int = 0, more_rows: int = 0) -> dict[str, np.ndarray]:
    """The inputs of a graph for CUDA, int64: T tokens of all rows and [B, S] places, padded with tokens and rows.

    Written from docs/guides/model-folder.md: padding has id EOS_ID and is 0 elsewhere; a row of padding has length 1.
    """
    lengths = [len(ids) for ids, _ in rows]
    width, real = width or max(lengths), sum(lengths)
    per_token = {name: np.zeros(real + more_tokens, np.int64) for name in ("position_ids", "pool_mask", "row_ids")}
    input_ids = np.full(real + more_tokens, EOS_ID, np.int64)
    position_of_token = np.zeros_like(input_ids)
    token_of_position = np.zeros((len(rows) + more_rows, width), np.int64)
    start = 0
    for row, (ids, skipped) in enumerate(rows):
        tokens, columns = slice(start, start + len(ids)), np.arange(len(ids))
        input_ids[tokens], per_token["position_ids"][tokens], per_token["row_ids"][tokens] = ids, columns, row
        per_token["pool_mask"][tokens] = columns >= skipped
        token_of_position[row, : len(ids)] = start + columns
        position_of_token[tokens] = row * width + columns
        start += len(ids)
    places = {"token_of_position": token_of_position, "position_of_token": position_of_token}
    row_lengths = np.array(lengths + [1] * more_rows, np.int64)
    return {"input_ids": input_ids, **per_token, **places, "row_lengths": row_lengths}
