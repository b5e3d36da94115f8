"""Random models exported in every form, and what PyTorch says their embeddings are.

Usage: python tests/reference/numerics.py OUT

For each of the exporter's test configurations, writes OUT/NAME/{fp32,fp16,direct,cpu}, four model folders, and
OUT/NAME/rows.json: texts, the float64 embeddings of the original, unfused formulas (transformers' Mistral made
bidirectional, NVIDIA's pooler), and the bounds that the runtime's tests apply.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "export" / "tests"))

import tolerances
from nvembed_export.export import ExportOptions, export
from reference_torch import reference_embeddings
from seeded_checkpoint import CASES, Spec, write_checkpoint

MISTRAL_TOKENIZER = Path(__file__).parents[2] / "models" / "nv-embed-mini" / "tokenizer.json"
FORMS = {
    "fp32": {"precision": "fp32"},
    "fp16": {"precision": "fp16"},
    "direct": {"precision": "fp32", "pooler": "direct"},
    "cpu": {"precision": "fp32", "target": "cpu"},
    "openvino": {"precision": "fp32", "target": "openvino"},
}
QUERY = "Instruct: Given a question, retrieve passages that answer the question\nQuery: "
ROWS = [
    ("", "the red rat"),
    (QUERY, "who is there?"),
    ("", ""),
    ("Instruct: tell it\nQuery: ", "a"),
    ("", "it is in the ear. " * 12),
    ("Find: ", "Ünï \U0001f600 日本語"),
    (QUERY, "the same text with two instructions"),
    ("Find: ", "the same text with two instructions"),
    ("", "literal </s> in <s> a text"),
]


def prepare(spec: Spec, out: Path, tokenizer: Path | None) -> None:
    """One configuration: checkpoint, exports, reference."""
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = write_checkpoint(Path(scratch) / spec.name, spec, tokenizer)
        for form, options in FORMS.items():
            export(checkpoint, out / form, ExportOptions(**options, golden=False))
        embeddings = reference_embeddings(checkpoint, ROWS)
    expected = {
        "rows": ROWS,
        "embeddings": embeddings.tolist(),
        "fp32_bound": tolerances.fp32(spec.layers),
        "fp16_cosine": tolerances.FP16_COSINE,
        "fused_bound": tolerances.FUSED_AGAINST_DIRECT,
        "batch_bound": tolerances.BATCH_INVARIANCE,
    }
    (out / "rows.json").write_text(json.dumps(expected))


def main() -> None:
    """Write everything anew."""
    out = Path(sys.argv[1])
    shutil.rmtree(out, ignore_errors=True)
    for spec in CASES:
        prepare(spec, out / spec.name, None)
        print(f"{spec.name}: exported, reference computed", file=sys.stderr)
    mistral = Spec("mistral-tokenizer", 12, 128, 2, 8, 2, vocab=32000)
    prepare(mistral, out / mistral.name, MISTRAL_TOKENIZER)


if __name__ == "__main__":
    main()
