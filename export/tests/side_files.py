"""Tokenizers with files beside them, as fine-tunes have them; and what transformers makes of them.

`python export/tests/side_files.py` writes side_files.json. It needs transformers 4 (`pip install transformers==4.57.6
sentencepiece protobuf`), whose tokenizers NVIDIA's code was written for, and Mistral's SentencePiece model, which
mistral-common has. Imports nothing of the exporter.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ANSWERS = Path(__file__).resolve().with_suffix(".json")
FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
CONFIG = {
    "tokenizer_class": "LlamaTokenizer",
    "add_bos_token": True,
    "add_eos_token": False,
    "legacy": True,
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
}
OLD = {"0": "<unk>", "1": "<s>", "2": "</s>"}
DECODER = {id: FLAGS | {"content": token, "special": True} for id, token in OLD.items()}
NEW = {
    "32000": FLAGS | {"content": "<doc>"},
    "32001": FLAGS | {"content": "<query>", "lstrip": True, "rstrip": True},
    "32002": FLAGS | {"content": "[X]", "special": True},
    "32003": FLAGS | {"content": "molybdenum", "normalized": True},
    "32004": FLAGS | {"content": "xyzzy", "single_word": True},
}
ADDED = {"added_tokens.json": {"<doc>": 32000, "<query>": 32001}}
# name -> (the tokenizer's file, other files); the tokens' table is as long as the largest id says.
CASES = {
    "plain": ("tokenizer.json", {}),
    "added-tokens": ("tokenizer.json", {"tokenizer_config.json": CONFIG, **ADDED}),
    "decoder": ("tokenizer.json", {"tokenizer_config.json": CONFIG | {"added_tokens_decoder": DECODER | NEW}}),
    "special-map": (
        "tokenizer.json",
        {
            "tokenizer_config.json": CONFIG,
            "special_tokens_map.json": {"additional_special_tokens": ["<a>", "<b>"], "pad_token": "[PAD]"},
        },
    ),
    "model-added-tokens": ("tokenizer.model", {"tokenizer_config.json": CONFIG, **ADDED}),
    "model-decoder": ("tokenizer.model", {"tokenizer_config.json": CONFIG | {"added_tokens_decoder": DECODER | NEW}}),
    "model-added-special": (
        "tokenizer.model",
        {
            "tokenizer_config.json": CONFIG,
            "special_tokens_map.json": {"additional_special_tokens": ["<query>"]},
            **ADDED,
        },
    ),
}
TEXTS = [
    "<doc> hello <query> y",
    "a<doc>b",
    "a <query>  b",
    "[X]x [X] x",
    "the metal molybdenum, Molybdenum",
    " molybdenum",
    "xyzzy axyzzy xyzzy",
    "<a>x<b> y [PAD]",
    "</s> x</s>",
    "plain text",
    "  <doc>  ",
]


def write_tokenizer(folder: Path, name: str, sentencepiece: Path) -> None:
    """Put a case's files into a folder."""
    file, others = CASES[name]
    folder.mkdir(parents=True, exist_ok=True)
    source = sentencepiece if file == "tokenizer.model" else ROOT / "models" / "nv-embed-mini" / "tokenizer.json"
    shutil.copy(source, folder / file)
    for other, values in others.items():
        (folder / other).write_text(json.dumps(values))


def main(sentencepiece: Path) -> None:
    import tempfile

    import transformers

    answers = {"transformers": transformers.__version__}
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            write_tokenizer(Path(folder), name, sentencepiece)
            tokenizer = transformers.LlamaTokenizerFast.from_pretrained(folder)
            answers[name] = {"size": len(tokenizer), "ids": [tokenizer(text)["input_ids"] for text in TEXTS]}
    ANSWERS.write_text(json.dumps(answers) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
