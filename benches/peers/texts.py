"""The texts that all peers embed: texts of exact lengths for timing, awkward ones to check the embeddings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

FAQ = Path(__file__).parents[2] / "tests" / "eval" / "faq.jsonl"
QUERY = "Instruct: Given a question, retrieve passages that answer the question\nQuery: "

# A batch of rows of different lengths, with and without instructions, which wrong implementations fail on.
AWKWARD = [
    (QUERY, "who wrote the odyssey?"),
    ("", "The Odyssey is attributed to Homer, a poet of ancient Greece."),
    ("Instruct: Find the opposite\nQuery: ", "cold"),
    ("", "naïve café, 日本語のテキスト"),
    ("", ""),
    (QUERY, "a passage that is a good deal longer than the others, " * 5),
]


@dataclass(frozen=True)
class Cell:
    """The passages of one call, `rows` of them with `length` tokens each."""

    rows: int
    length: int
    prompts: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        return f"{self.rows}x{self.length}"


def cells(shapes: list[tuple[int, int]], tokenizer_json: Path) -> list[Cell]:
    """A cell for each (rows, tokens). `<s>` and `</s>` are counted."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    records = [json.loads(line) for line in FAQ.read_text("utf-8").splitlines()]
    words = [word for record in records for word in record["passage"].split()]

    def count(text: str) -> int:
        return len(tokenizer.encode(f"{text}</s>").ids)

    def text(start: int, length: int) -> str:
        """Words of the evaluation set from `start` on, skipping words that would exceed `length` tokens."""
        found = ""
        for word in words[start:] + words[:start]:
            longer = f"{found} {word}" if found else word
            tokens = count(longer)
            if tokens <= length:
                found = longer
            if tokens == length:
                return found
        raise ValueError(f"cannot make a text of {length} tokens from {FAQ.name}, only one of {count(found)}")

    result, start = [], 0
    for rows, length in shapes:
        prompts = []
        for _ in range(rows):
            prompts.append(("", text(start % len(words), length)))
            start += 997  # any number coprime to the number of words
        result.append(Cell(rows, length, tuple(prompts)))
    return result
