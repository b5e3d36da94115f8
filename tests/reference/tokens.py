"""Write the ids and masks that NVIDIA's code computes for thousands of texts, using transformers' tokenizer.

    python tests/reference/tokens.py             # write tokens.jsonl.xz beside this script
    python tests/reference/tokens.py --check     # compute again; every id must equal the committed one

Each line is one padded batch: {"max_length", "rows": [[instruction, text, ids, instruction tokens], ...]}.
`for_rust.py` expands it to the ids and masks that the runtime's tests expect. This script also checks the committed
tokenizer against SentencePiece, the tokenizer that Mistral was trained with. Needs .venv-torch (`make references`).
"""

from __future__ import annotations

import argparse
import json
import lzma
import random
import sys
import unicodedata
from importlib import resources
from itertools import zip_longest
from pathlib import Path

import sentencepiece
from transformers import PreTrainedTokenizerFast

TOKENS = Path(__file__).with_suffix(".jsonl.xz")
TOKENIZER = Path(__file__).parents[2] / "models" / "nv-embed-mini" / "tokenizer.json"
INSTRUCTIONS = [
    "Instruct: Given a question, retrieve passages that answer the question\nQuery: ",
    "Instruct: Retrieve semantically similar text.\nQuery: ",
    "Represent this: ",
    "no trailing space",
    "  two  spaces  ",
    "日本語の指示: ",
    "ends in a tab\t",
    "x",
    " ",
    "</s> inside ",
]
SCRIPTS = {
    "Latin": "ÀÉîõüßøłžğ",
    "Greek": "αβγΔΩλπ",
    "Cyrillic": "привет мир ЁЖ",
    "Armenian": "Բարեւ",
    "Hebrew": "שלום עולם",
    "Arabic": "مرحبا بالعالم",
    "Devanagari": "नमस्ते दुनिया",
    "Bengali": "ওহে বিশ্ব",
    "Tamil": "வணக்கம்",
    "Thai": "สวัสดีชาวโลก",
    "Georgian": "გამარჯობა",
    "Ethiopic": "ሰላም ልዑል",
    "Khmer": "សួស្តី",
    "Hangul": "안녕 세상",
    "Hiragana": "こんにちは",
    "Katakana": "カタカナ",
    "Han": "你好世界漢字",
    "Cherokee": "ᎣᏏᏲ",
    "Gothic": "𐌰𐌱𐌲",
    "Math": "𝕳𝖊𝖑𝖑𝖔∑∫√",
    "Braille": "⠓⠑⠇",
    "Tibetan": "བོད་སྐད",
}
WHITESPACE = [
    *" \t\n\r\v\f",
    *"\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2003\u2009\u200a\u2028\u2029\u202f\u205f\u3000",
    *"\u200b\u200c\u200d\u2060\ufeff\u2581",
]
EMOJI = ["😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇫🇷", "❤️", "☃", "🫠", "1️⃣"]
SPECIALS = ["</s>", "<s>", "<unk>", "<", "</", "</s", "s>", "<pad>", "<0x41>", "[INST]", "▁", "<s", "< /s>"]
WORDS = """the quick brown fox jumps over a lazy dog while naïve café owners e-mail résumés to O'Brien & sons (est.
    1987) for $3.14 or 2,718 units; http://example.org/?q=a&b=c#d def f(x): return x**2 # comment {"key": [1, null]}
    ...!?""".split()


def texts(rng: random.Random) -> list[str]:
    """At least 2,000 texts: each kind alone, and all kinds mixed."""
    made = ["", *WHITESPACE, *EMOJI, *SPECIALS, *SCRIPTS.values(), *WORDS]
    made += [chr(code) for code in [*range(0x80), *range(0xA0, 0x180, 3), *range(0x2000, 0x2070, 2)]]
    made += [a + b for a in SPECIALS for b in [*SPECIALS, " ", "a", " a", "\n", "é"]]
    made += [
        f"{before}{special}{after}"
        for special in SPECIALS[:6]
        for before in ("a", " ", "")
        for after in ("b", " ", "  b")
    ]
    made += [space * count for space in WHITESPACE for count in (2, 3, 4, 7, 16, 33)]
    made += [f"a{space}b{space}{space}c{space}" for space in WHITESPACE]
    made += ["a" * count for count in (2, 15, 16, 17, 100, 1000)] + ["ab " * 500, "\n" * 50, "=" * 77, "-" * 99]
    made += [unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD") for text in SCRIPTS.values()]
    everything = [*WORDS, *EMOJI, *SCRIPTS.values(), *WHITESPACE, *SPECIALS]
    made += [
        "".join(rng.choice(everything) + rng.choice(["", " ", " "]) for _ in range(rng.randint(1, 40)))
        for _ in range(900)
    ]
    made += [" ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 120))) for _ in range(300)]
    pool = [
        *range(0x20, 0x250),
        *range(0x370, 0x600),
        *range(0x900, 0xA00),
        *range(0x4E00, 0x5200),
        *range(0x1F600, 0x1F680),
    ]
    made += ["".join(chr(rng.choice(pool)) for _ in range(rng.randint(1, 80))) for _ in range(500)]
    made += ["".join(map(chr, rng.choices(range(0x20), k=rng.randint(1, 20)))) for _ in range(50)]
    return made


def long_texts(rng: random.Random) -> list[str]:
    """Texts far longer than any row."""
    return [
        " ".join(rng.choice(WORDS) for _ in range(60_000)),
        "".join(rng.choice("".join(SCRIPTS.values())) for _ in range(60_000)),
        "".join(rng.choice(["ab", " ", "  ", "</s>", "<", "x"]) for _ in range(60_000)),
        "".join(rng.choice("ACGT") for _ in range(60_000)),
        "a" * 60_000,
        " " * 60_000,
        "\n\n" * 30_000,
    ]


def check_sentencepiece(tokenizer: PreTrainedTokenizerFast, strings: list[str]) -> None:
    """Exit unless the tokenizers agree on all texts without special tokens, which SentencePiece does not parse."""
    model = resources.files("mistral_common") / "data" / "tokenizer.model.v1"
    original = sentencepiece.SentencePieceProcessor(model_file=str(model))
    compared = 0
    for text in strings:
        if any(special in text for special in ("<s>", "</s>", "<unk>", "\0")):
            continue
        compared += 1
        found, wanted = tokenizer(text, add_special_tokens=False)["input_ids"], original.encode(text)
        if found != wanted:
            sys.exit(f"tokenizer.json and SentencePiece differ on {text[:40]!r}: {found[:9]} and {wanted[:9]}")
    print(f"{compared} texts: tokenizer.json and SentencePiece agree", file=sys.stderr)


def batch(tokenizer: PreTrainedTokenizerFast, rows: list[tuple[str, str]], max_length: int) -> dict:
    """Like NVIDIA's `encode`: `</s>` after each text, padding on the right, instruction tokens not pooled."""
    strings = [instruction + text + tokenizer.eos_token for instruction, text in rows]
    encoded = tokenizer(strings, max_length=max_length, truncation=True, padding=True)
    lines = []
    for (instruction, text), ids, mask in zip(rows, encoded["input_ids"], encoded["attention_mask"], strict=True):
        length = sum(mask)
        if mask != [1] * length + [0] * (len(ids) - length) or set(ids[length:]) - {tokenizer.pad_token_id}:
            sys.exit(f"{text[:40]!r} is not padded on the right with {tokenizer.pad_token!r}")
        skipped = len(tokenizer.tokenize(instruction)) if instruction else 0
        lines.append([instruction, text, ids[:length], min(skipped, length)])
    return {"max_length": max_length, "rows": lines}


def batches() -> list[dict]:
    """All batches."""
    rng = random.Random(20240527)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(TOKENIZER), bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    tokenizer.padding_side = "right"
    short, long = texts(rng), long_texts(rng)
    check_sentencepiece(tokenizer, short)
    made = []
    for instructions, max_length in (([""], 4096), (INSTRUCTIONS, 4096), (["", *INSTRUCTIONS], 64)):
        rows = [(rng.choice(instructions), text) for text in short]
        rng.shuffle(rows)
        groups = [rows[start : start + 16] for start in range(0, len(rows), 16)]
        groups += [[(rng.choice(instructions), text)] for text in long]
        made += [batch(tokenizer, group, max_length) for group in groups]
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with what is committed, and write nothing")
    args = parser.parse_args()
    made = [json.dumps(line, separators=(",", ":")) for line in batches()]
    if not args.check:
        with lzma.open(TOKENS, "wt", preset=9 | lzma.PRESET_EXTREME) as file:
            file.writelines(f"{line}\n" for line in made)
        print(f"{len(made)} batches in {TOKENS.name}, {TOKENS.stat().st_size:,} bytes")
        return 0
    with lzma.open(TOKENS, "rt") as file:
        committed = file.read().splitlines()
    differing = [index for index, pair in enumerate(zip_longest(made, committed)) if pair[0] != pair[1]]
    print(f"{len(made)} batches computed, {len(committed)} committed, {len(differing)} differ")
    if differing:
        print(f"the first is number {differing[0]}", file=sys.stderr)
    return bool(differing)


if __name__ == "__main__":
    sys.exit(main())
