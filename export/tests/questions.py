"""The questions for PyTorch: random checkpoints, each generated from its seed, and rows of tokens.

Imports nothing from the exporter. The answers are committed, so that the tests need no PyTorch:
tests/reference/embeddings.py writes tests/reference/embeddings.jsonl, and `committed.py` reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from packing import tokenize
from seeded_checkpoint import BACKBONE, CASES, Spec, random_levels, random_tensors, write_checkpoint, write_weights

MINI = Path(__file__).resolve().parents[2] / "models" / "nv-embed-mini"
MISTRAL_TOKENIZER = MINI / "tokenizer.json"

QUERY = "Instruct: Given a question, retrieve passages that answer the question\nQuery: "
TEXTS = [
    ("", "the red rat"),
    (QUERY, "who is there?"),
    ("", ""),
    ("Instruct: tell it\nQuery: ", "a"),
    ("Instruct: another task, rather a longer one than that of the other row\nQuery: ", "a"),
    ("", "it is in the ear. " * 12),
    ("Find: ", "Ünï \U0001f600 日本語"),
    (QUERY, "the same text with two instructions"),
    ("Find: ", "the same text with two instructions"),
    ("", "literal </s> in <s> a text"),
]
LENGTHS = (1, 2, 40)  # of rows of random ids; the first third of each is not pooled

Row = tuple[list[int], int]  # token ids, number of leading ids that are not pooled


@dataclass(frozen=True)
class Question:
    """`write` fills the given folder and returns the checkpoint's folder, which may be a different one."""

    name: str
    write: Callable[[Path], Path]
    texts: tuple[tuple[str, str], ...] = ()
    ids: tuple[Row, ...] = ()

    def rows(self, checkpoint: Path) -> list[Row]:
        """The rows of the texts, then the rows given as ids."""
        return [*tokenize(checkpoint / "tokenizer.json", self.texts), *self.ids]


def random_ids(seed: int) -> tuple[Row, ...]:
    """A row of each of LENGTHS, ids of 3 to 299."""
    return tuple(
        ((3 + random_levels(seed, f"row of {length}", length) % 297).tolist(), length // 3) for length in LENGTHS
    )


def of_spec(spec: Spec, tokenizer: Path | None = None) -> Question:
    """TEXTS and random ids for a random model."""
    return Question(
        spec.name, lambda folder: write_checkpoint(folder, spec, tokenizer), tuple(TEXTS), random_ids(spec.seed)
    )


# The smallest model that has every part.
SMALL = Spec(name="small", hidden=32, layers=1, heads=4, kv_heads=2, intermediate=48, latents=5, cross_dim=8)
MAX_LENGTH = 20  # the small model is exported with it
_IDS = list(range(30, 30 + MAX_LENGTH))
EXACTLY_MAX_LENGTH: tuple[Row, ...] = ((_IDS, 0), (_IDS[:3], 0))
UNEVEN: tuple[Row, ...] = (([1, 5, 6, 7, 8, 9, 5, 2], 2), ([1, 9, 2], 0), ([1, 8, 8, 8, 8, 8, 2], 6))

BEYOND = Spec("beyond-fp16", 11, 64, 3, 4, 2, None, 96, 7, 2, 24, dtype="F32", outliers=65000.0)


def write_beyond(folder: Path) -> Path:
    """A model with one channel that starts near fp16's limit; each layer adds about 8 times the row to it."""
    checkpoint, tensors = write_checkpoint(folder, BEYOND), random_tensors(BEYOND)
    channel = int(np.abs(tensors[f"{BACKBONE}.embed_tokens.weight"]).mean(0).argmax())
    for layer in range(BEYOND.layers):
        tensors[f"{BACKBONE}.layers.{layer}.self_attn.v_proj.weight"][:, channel] = 4
        tensors[f"{BACKBONE}.layers.{layer}.self_attn.o_proj.weight"][channel] = 8
    write_weights(checkpoint, tensors, "F32")
    return checkpoint


def mini(texts) -> Question:
    """The trained model, which is in the repository."""
    return Question(MINI.name, lambda _: MINI, tuple(texts))


RANDOM = {spec.name: of_spec(spec) for spec in CASES}
MISTRAL = of_spec(Spec("mistral-tokenizer", 12, 128, 2, 8, 2, vocab=32000), MISTRAL_TOKENIZER)
SMALL_ROWS = Question(SMALL.name, lambda folder: write_checkpoint(folder, SMALL), ids=EXACTLY_MAX_LENGTH + UNEVEN)
BEYOND_FP16 = Question(BEYOND.name, write_beyond, tuple(TEXTS))
