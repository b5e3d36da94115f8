"""Write the files that the runtime's tests read, from the committed answers of transformers and PyTorch.

    python tests/reference/for_rust.py OUT

OUT/tokens.jsonl has one padded batch per line: {"max_length", "rows": [[instruction, text], ...], "input_ids",
"attention_mask", "pool_mask"}. OUT/numerics/NAME, for each random model of the exporter's tests, has a model folder for
each of FORMS, and rows.json with texts, PyTorch's embeddings and the bounds that the runtime's tests apply. Checkpoints
are generated from their seeds; one that differs from the checkpoint PyTorch embedded with is an error. OUT/unmasked is
the mini model with its golden rows and attention to padding: what a provider computes that drops the row lengths.
"""

from __future__ import annotations

import json
import lzma
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "export" / "tests"))

import onnx
import questions
import tolerances
from committed import answer
from nvembed_export.export import ExportOptions, export
from packing import pack

ROOT = Path(__file__).parents[2]
TOKENS = Path(__file__).with_name("tokens.jsonl.xz")
FORMS = {
    "fp32": {"precision": "fp32"},
    "fp16": {"precision": "fp16"},
    "direct": {"precision": "fp32", "pooler": "direct"},
    "cpu": {"precision": "fp32", "target": "cpu"},
    "openvino": {"precision": "fp32", "target": "openvino"},
}


def write_tokens(out: Path) -> int:
    """Write tokens.jsonl from tokens.jsonl.xz, and return the number of rows."""
    count = 0
    with lzma.open(TOKENS, "rt") as file, out.open("w", encoding="utf-8") as lines:
        for line in file:
            batch = json.loads(line)
            arrays = pack([(ids, skipped) for *_, ids, skipped in batch["rows"]])
            names = ("input_ids", "attention_mask", "pool_mask")
            masks = {name: array.tolist() for name, array in zip(names, arrays, strict=True)}
            rows = [[instruction, text] for instruction, text, *_ in batch["rows"]]
            lines.write(json.dumps({"max_length": batch["max_length"], "rows": rows} | masks) + "\n")
            count += len(rows)
    return count


def write_model(question: questions.Question, out: Path) -> None:
    """Write one random model in every form, and PyTorch's embeddings."""
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = question.write(Path(scratch) / question.name)
        layers = json.loads((checkpoint / "config.json").read_text())["text_config"]["num_hidden_layers"]
        embeddings = answer(question, checkpoint, question.rows(checkpoint))[: len(question.texts)]
        for form, options in FORMS.items():
            export(checkpoint, out / form, ExportOptions(**options, golden=False))
    expected = {
        "rows": question.texts,
        "embeddings": embeddings.tolist(),
        "fp32_bound": tolerances.fp32(layers),
        "fp16_cosine": tolerances.FP16_COSINE,
        "fused_bound": tolerances.FUSED_AGAINST_DIRECT,
        "batch_bound": tolerances.BATCH_INVARIANCE,
    }
    (out / "rows.json").write_text(json.dumps(expected))


def write_unmasked(out: Path) -> None:
    """Write the mini model as a provider runs it that drops the last input of Attention, `nonpad_kv_seqlen`."""
    export(ROOT / "models/nv-embed-mini", out, ExportOptions(precision="fp32"))
    model = onnx.load(out / "model.onnx", load_external_data=False)
    for node in model.graph.node:
        if node.op_type == "Attention":
            del node.input[3:]
    onnx.save(model, out / "model.onnx")


def main() -> None:
    """Write everything again."""
    out = Path(sys.argv[1])
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    print(f"{write_tokens(out / 'tokens.jsonl')} rows of token ids", file=sys.stderr)
    for question in [*questions.RANDOM.values(), questions.MISTRAL]:
        write_model(question, out / "numerics" / question.name)
    print(f"{len(questions.RANDOM) + 1} random models exported", file=sys.stderr)
    write_unmasked(out / "unmasked")


if __name__ == "__main__":
    main()
