"""A committed answer is given for the very question that PyTorch was asked, and for no other."""

from __future__ import annotations

import json
import lzma
from dataclasses import replace

import committed
import numpy as np
import pytest
import questions
from packing import encode, open_tokenizer
from seeded_checkpoint import write_checkpoint


def test_another_checkpoint_is_an_error(tmp_path):
    checkpoint = write_checkpoint(tmp_path, questions.SMALL.but(seed=1))
    with pytest.raises(committed.OtherQuestion, match="small was answered for another checkpoint.*make references"):
        committed.answer(questions.SMALL_ROWS, checkpoint, questions.SMALL_ROWS.ids)


def test_another_configuration_is_another_checkpoint(tmp_path):
    checkpoint = write_checkpoint(tmp_path, questions.SMALL.but(eps=1e-6))
    with pytest.raises(committed.OtherQuestion, match="another checkpoint"):
        committed.answer(questions.SMALL_ROWS, checkpoint, questions.SMALL_ROWS.ids)


def test_other_ids_are_an_error(tmp_path):
    checkpoint = questions.SMALL_ROWS.write(tmp_path)
    rows = list(questions.SMALL_ROWS.ids)
    assert committed.answer(questions.SMALL_ROWS, checkpoint, rows).shape == (len(rows), questions.SMALL.hidden)
    with pytest.raises(committed.OtherQuestion, match="other token ids"):
        committed.answer(questions.SMALL_ROWS, checkpoint, [(rows[0][0], 1), *rows[1:]])


def test_a_question_without_an_answer_is_an_error(tmp_path):
    with pytest.raises(committed.OtherQuestion, match="new has no answer"):
        committed.answer(replace(questions.SMALL_ROWS, name="new"), tmp_path, [])


def test_every_row_that_normalises_has_length_1():
    for name, answer in committed.answers().items():
        lengths = np.linalg.norm([row["embedding"] for row in answer["rows"]], axis=-1)
        assert name == "not-normalised" or np.abs(lengths - 1).max() < 1e-8


def test_these_tests_pack_texts_as_transformers_does(mini):
    """Ids, and how many are the instruction's, of thousands of texts."""
    tokenizers = {length: open_tokenizer(mini / "tokenizer.json", length) for length in (64, 4096)}
    count = 0
    with lzma.open(committed.ROOT / "tests" / "reference" / "tokens.jsonl.xz", "rt") as file:
        for batch in map(json.loads, file):
            rows = [(instruction, text) for instruction, text, *_ in batch["rows"]]
            found = [(ids, min(skipped, len(ids))) for ids, skipped in encode(tokenizers[batch["max_length"]], rows)]
            assert found == [(ids, skipped) for *_, ids, skipped in batch["rows"]]
            count += len(rows)
    assert count > 8000
