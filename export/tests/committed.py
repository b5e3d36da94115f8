"""PyTorch's committed answers to questions.py, from tests/reference/embeddings.jsonl."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
from questions import Question
from seeded_checkpoint import digest

ROOT = Path(__file__).resolve().parents[2]
EMBEDDINGS = ROOT / "tests" / "reference" / "embeddings.jsonl"


class OtherQuestion(Exception):
    """There is no committed answer for this checkpoint and these rows."""


@cache
def answers(file: Path = EMBEDDINGS) -> dict[str, dict]:
    """Question's name -> the checkpoint's digest, and rows of ids and embeddings."""
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return {line["name"]: line for line in lines if "name" in line}


def answer(question: Question, checkpoint: Path, rows) -> np.ndarray:
    """Embeddings, float64 [rows, D]. Raises OtherQuestion unless PyTorch embedded these rows with this checkpoint."""
    found = answers().get(question.name)
    if found is None:
        raise OtherQuestion(_advice(question, "has no answer"))
    if found["sha256"] != digest(checkpoint):
        raise OtherQuestion(_advice(question, f"was answered for another checkpoint, sha256 {found['sha256']}"))
    if [(row["input_ids"], row["instruction_tokens"]) for row in found["rows"]] != list(rows):
        raise OtherQuestion(_advice(question, "was answered for other token ids"))
    return np.array([row["embedding"] for row in found["rows"]])


def _advice(question: Question, what: str) -> str:
    return f"{question.name} {what} in {EMBEDDINGS.name}; if the change is intended, run `make references`"
