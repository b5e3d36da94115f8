"""Write PyTorch's embeddings of the questions in export/tests/questions.py to embeddings.jsonl, beside this script.

    python tests/reference/embeddings.py             # write embeddings.jsonl
    python tests/reference/embeddings.py --check     # compute again and compare with embeddings.jsonl

The embeddings are computed in float64 from the original, unfused formulas: transformers' Mistral made bidirectional,
and NVIDIA's pooler. Each line has a question's name, its checkpoint's SHA-256 (export/tests/seeded_checkpoint.py) and
its rows: token ids, the number of instruction tokens, and the embedding with nine digits. Needs .venv-torch
(`make references`, `make test-torch`).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "export" / "tests"))

import numpy as np
import questions
import tolerances
import torch
import transformers
from committed import EMBEDDINGS, OtherQuestion, answer
from nvembed_export.golden_texts import GOLDEN_TEXTS
from packing import pack
from reference_torch import ReferenceModel
from seeded_checkpoint import digest

ALL = [
    *questions.RANDOM.values(),
    questions.MISTRAL,
    questions.SMALL_ROWS,
    questions.BEYOND_FP16,
    questions.mini(GOLDEN_TEXTS),
]


def described(question, checkpoint, rows, embeddings) -> dict:
    """The line of a question."""
    texts = [*question.texts, *[None] * (len(rows) - len(question.texts))]
    lines = []
    for text, (ids, skipped), embedding in zip(texts, rows, embeddings, strict=True):
        prompt = {} if text is None else {"instruction": text[0], "text": text[1]}
        numbers = [float(f"{value:.9g}") for value in embedding]
        lines.append(prompt | {"input_ids": ids, "instruction_tokens": skipped, "embedding": numbers})
    return {"name": question.name, "sha256": digest(checkpoint), "rows": lines}


def distance(found: np.ndarray, known: np.ndarray) -> float:
    """The largest difference in a number, relative to the length of its row."""
    return float((np.abs(found - known) / np.linalg.norm(known, axis=-1, keepdims=True)).max())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with what is committed, and write nothing")
    args = parser.parse_args()
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "numpy": np.__version__}
    lines, problems = [{"made_by": "tests/reference/embeddings.py", "versions": versions}], []
    for question in ALL:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = question.write(Path(folder) / question.name)
            rows = question.rows(checkpoint)
            embeddings = ReferenceModel(checkpoint).embed(*pack(rows))
            if not args.check:
                lines.append(described(question, checkpoint, rows, embeddings))
                continue
            try:
                moved = distance(embeddings, answer(question, checkpoint, rows))
            except OtherQuestion as error:
                problems.append(str(error))
                continue
        print(f"{question.name:18} {len(rows):2} rows, committed and computed differ by {moved:.1e}")
        if not moved <= tolerances.ANSWER_AGAIN:
            problems.append(f"{question.name}: {moved:.1e} is more than {tolerances.ANSWER_AGAIN:.0e}")
    if args.check:
        print("\n".join(problems), file=sys.stderr)
        return bool(problems)
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    EMBEDDINGS.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
