"""Token ids of thousands of random texts, for every form of tokenizer that the exporter takes, against the tokenizers
library on the same file. What those files are is tested against transformers and SentencePiece in export/tests."""

import json
import random
import sys
from importlib import resources
from pathlib import Path

import pytest
from conftest import ROOT
from nvembed import Embedder

sys.path.insert(0, str(ROOT / "export" / "tests"))

TEXTS = 3000
FORMS = [
    "plain",
    "added-tokens",
    "decoder",
    "special-map",
    "model-added-tokens",
    "model-decoder",
    "model-added-special",
    "metaspace",
]
PIECES = [
    *(" ", "  ", "    ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u3000", "\u2028", "\u0085", "\x00", "\x01", "\x7f"),
    *("▁", "▁▁", "<s>", "</s>", "<unk>", "</s", "s>", "<", ">", "<0x41>", "<0x0A>", "<doc>", "<query>", "[X]", "[PAD]"),
    *("<a>", "<b>", "xyzzy", "molybdenum", "Molybdenum", "the", "ing", "don't", "a" * 50, "1234567890", "!!!!", "..."),
    *("Instruct: ", "\nQuery: ", "https://x.y/z?a=b&c=d", '{"a": 1}', "\\n", "\\", "'", '"', "½", "ℵ", "ß", "İ", "ǅ"),
    *(
        "é",
        "e\u0301",
        "ﷺ",
        "ffi",
        "中文字",
        "日本語",
        "한국어",
        "ท\u0e33",
        "\u0f0b",
        "ا",
        "ש",
        "привет",
        "𝕳",
        "𓀀",
        "\ue000",
    ),
    *("\u200b", "\u200d", "\ufeff", "\u202e", "\ufffd", "\ufffe", "\U0010ffff", "😀", "👨‍👩‍👧", "🏳️‍🌈", "🇩🇪"),
]


def random_text(draw: random.Random) -> str:
    pieces = draw.choice([0, 1, 2, 3, 5, 10, 30, 100])
    return "".join(draw.choice(PIECES) for _ in range(pieces))


@pytest.fixture(scope="module", params=FORMS)
def form(request, tmp_path_factory):
    """A tiny model with this form of tokenizer, open, and the tokenizers library with the same file."""
    pytest.importorskip("mistral_common", reason="in the environment of `make test-python` only")
    import side_files
    from nvembed_export.config import load_config
    from nvembed_export.export import ExportOptions, export
    from nvembed_export.tokenizer import load_tokenizer
    from seeded_checkpoint import CASES, write_checkpoint
    from tokenizers import Tokenizer

    folder, name = tmp_path_factory.mktemp(request.param), request.param
    known = "plain" if name == "metaspace" else name
    mistral = Path(str(resources.files("mistral_common") / "data" / "tokenizer.model.v1"))
    size = json.loads(side_files.ANSWERS.read_text())[known]["size"]
    checkpoint = write_checkpoint(folder / "checkpoint", CASES[0].but(vocab=size, positions=512, layers=1))
    for file in ("tokenizer.json", "tokenizer.model"):
        (checkpoint / file).unlink(missing_ok=True)
    side_files.write_tokenizer(checkpoint, known, mistral)
    if name == "metaspace":
        path = checkpoint / "tokenizer.json"
        values = json.loads(path.read_text())
        values["normalizer"] = None
        values["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
        path.write_text(json.dumps(values))
    export(checkpoint, folder / "model", ExportOptions(precision="fp32", golden=False, max_length=512))
    content = load_tokenizer(checkpoint, load_config(checkpoint).text).content.decode()
    return Embedder(folder / "model"), Tokenizer.from_str(content)


@pytest.mark.parametrize(("max_length", "truncation"), [(512, "reference"), (20, "reference"), (20, "keep-eos")])
def test_ids_of_random_texts_are_those_of_the_tokenizers_library(form, max_length, truncation):
    model, library = form
    draw = random.Random(f"{max_length} {truncation}")
    texts, instructions, expected = [], [], []
    while len(texts) < TEXTS:
        text, instruction = random_text(draw), draw.choice(["", "", "Instruct: x\nQuery: ", random_text(draw)])
        ids = library.encode(instruction + text + "</s>").ids
        skipped = len(library.encode(instruction, add_special_tokens=False).ids) if instruction else 0
        is_cut, ids = len(ids) > max_length, ids[:max_length]
        if is_cut and truncation == "keep-eos":
            ids[-1] = 2
        if skipped >= len(ids):
            continue  # refused: no token is left to pool
        texts.append(text)
        instructions.append(instruction)
        expected.append((ids, skipped, is_cut))
    options = {"max_length": max_length, "truncation": truncation}
    found = model._model.tokenize(texts, instructions, options)
    different = [index for index in range(TEXTS) if found[index] != expected[index]]
    assert not different, (texts[different[0]], instructions[different[0]], found[different[0]], expected[different[0]])
