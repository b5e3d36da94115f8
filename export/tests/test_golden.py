"""golden.json: an independent reference that torch and the exported graph agree with."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import questions
import tolerances
from packing import tokenize
from running import Model, cosines
from seeded_checkpoint import CASES

import nvembed_export.golden
from nvembed_export.checkpoint import Checkpoint
from nvembed_export.config import load_config
from nvembed_export.export import ExportOptions, export
from nvembed_export.golden_texts import GOLDEN_TEXTS, QUESTIONS


@pytest.fixture(scope="module")
def folder(mini, tmp_path_factory):
    target = tmp_path_factory.mktemp("golden") / "mini-fp32"
    export(mini, target, ExportOptions(precision="fp32"))
    return target


@pytest.fixture(scope="module")
def rows(folder):
    return json.loads((folder / "golden.json").read_text())["rows"]


def vectors(rows) -> np.ndarray:
    return np.array([row["embedding"] for row in rows])


def test_golden_equals_torch_in_float64(mini, rows, torch_says, measured):
    question = questions.mini(GOLDEN_TEXTS)
    reference = torch_says(question, mini, [(row["input_ids"], row["instruction_tokens"]) for row in rows])
    worst = np.abs(vectors(rows) - reference).max()
    measured(f"{'nv-embed-mini':18} golden against torch float64            {worst:.2e}")
    assert worst <= tolerances.GOLDEN_AGAINST_TORCH


@pytest.mark.parametrize("spec", CASES, ids=lambda spec: spec.name)
def test_its_formulas_equal_torch_on_random_models(tmp_path, spec, torch_says, measured):
    question = questions.RANDOM[spec.name]
    checkpoint = question.write(tmp_path / "checkpoint")
    rows, config = question.rows(checkpoint), load_config(checkpoint)
    found = nvembed_export.golden.reference_embeddings(Checkpoint.open(checkpoint, config), config, rows)
    reference = torch_says(question, checkpoint, rows)
    worst = np.abs(found - reference).max() / np.linalg.norm(reference, axis=-1).max()
    measured(f"{spec.name:18} golden against torch float64            {worst:.2e}")
    assert worst <= tolerances.GOLDEN_AGAINST_TORCH


def test_fp32_graph_reaches_golden(folder, rows, measured):
    found = Model(folder)([(row["input_ids"], row["instruction_tokens"]) for row in rows])
    worst = np.abs(found - vectors(rows)).max()
    measured(f"{'nv-embed-mini':18} fp32 graph against golden               {worst:.2e}")
    assert worst <= tolerances.fp32(layers=4)


def test_fp16_graph_agrees_with_golden(mini, rows, tmp_path, measured):
    export(mini, tmp_path / "fp16", ExportOptions(golden=False))
    found = Model(tmp_path / "fp16")([(row["input_ids"], row["instruction_tokens"]) for row in rows])
    least = cosines(found, vectors(rows)).min()
    measured(f"{'nv-embed-mini':18} fp16 graph against golden, least cosine {least:.7f}")
    assert least >= tolerances.FP16_COSINE


def test_ids_and_instruction_lengths_follow_the_prompt_rules(mini, rows):
    expected = tokenize(mini / "tokenizer.json", GOLDEN_TEXTS)
    assert [(row["input_ids"], row["instruction_tokens"]) for row in rows] == expected
    assert rows[0]["instruction"] == QUESTIONS
    assert rows[0]["instruction_tokens"] == 18  # `<s>` through `:`, the model card's instruction
    assert rows[4]["input_ids"] == [1, 2]  # the empty text


def test_numbers_round_trip_to_float32(rows):
    for row in rows:
        assert all(float(str(np.float32(value))) == value for value in row["embedding"])


def test_rows_without_tokens_to_pool_are_omitted(mini, tmp_path):
    export(mini, tmp_path / "short", ExportOptions(precision="fp32", max_length=12))
    rows = json.loads((tmp_path / "short" / "golden.json").read_text())["rows"]
    assert all(row["instruction_tokens"] < len(row["input_ids"]) <= 12 for row in rows)
    assert len(rows) == 6  # without the two questions, whose instruction has 18 tokens
    found = Model(tmp_path / "short")([(row["input_ids"], row["instruction_tokens"]) for row in rows])
    assert np.abs(found - vectors(rows)).max() <= tolerances.fp32(layers=4)


def test_golden_shares_no_code_with_the_graph():
    tree = ast.parse(Path(nvembed_export.golden.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in imported if name.startswith("nvembed_export")} == {
        "nvembed_export.checkpoint",
        "nvembed_export.config",
        "nvembed_export.golden_texts",
    }
