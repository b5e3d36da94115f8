"""What transformers reads beside a tokenizer: added tokens and settings; and a comparison with Mistral's original."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from nvembed_export.errors import TokenizerError
from nvembed_export.files import is_there, read_json

SPACE = "\u2581"
SETTINGS, ADDED, SPECIAL = "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
SPECIAL_KEYS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
LEGACY_NORMALIZER = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Prepend", "prepend": SPACE},
        {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
    ],
}
# Texts in which tokenizers of the same vocabulary are known to differ: spaces at the ends and beside special tokens,
# ▁ itself, what is not in the vocabulary, an instruction.
PROBES = (
    "Hello world",
    " a",
    "  two spaces",
    "trailing  ",
    "a  b   c",
    "a\nb",
    "\n\nnew lines",
    "a\tb",
    "a\u2581b",
    "\u2581",
    " ",
    "   ",
    "x</s>",
    "x </s> y",
    "</s>y",
    "a</s>b</s>",
    "<s>a",
    "café naïve",
    "cafe\u0301",
    "日本語のテキスト",
    "\U0001f469\u200d\U0001f52c emoji",
    "1,000,000 3.14",
    "don't it's",
    "HELLO World",
    "ﬁ ½ ①",
    "\u00a0x\u00a0",
    "\u200bx",
    "def f(x):\n    return x",
    "Instruct: Given a question, retrieve passages that answer the question\nQuery: who wrote the odyssey?</s>",
    "Instruct: Retrieve duplicate questions\nQuery: ",
)


def check_settings(folder: Path, is_converted: bool) -> None:
    """Raise TokenizerError for settings that change the ids and are not followed.

    Some have an effect only on a tokenizer that was converted from SentencePiece.
    """
    path = folder / SETTINGS
    if not is_there(path, TokenizerError):
        return
    values = read_json(path, TokenizerError)
    expected = {"add_bos_token": (True,), "add_eos_token": (False,), "do_lower_case": (False,)}
    expected |= {"truncation_side": ("right",), "split_special_tokens": (False,)}
    if is_converted:
        expected |= {"add_prefix_space": (True,), "legacy": (True,)}
    for key, allowed in expected.items():
        value = values.get(key)
        if value is not None and value not in allowed:
            raise TokenizerError(
                f"{path}: `{key}` is {value!r}, supported: {allowed[0]!r}; the ids would be others. If the model was "
                "trained without it, remove the key"
            )


def add_side_tokens(folder: Path, values: dict[str, Any]) -> dict[str, int]:
    """Add to a tokenizer.json's values the tokens that transformers would add; returns them with their ids."""
    listed = values.setdefault("added_tokens", None) or []
    values["added_tokens"] = listed
    known = {token["content"]: token["id"] for token in listed}
    vocab = _vocabulary(values)
    added: dict[str, int] = {}
    for source, token, id in _side_tokens(folder):
        content = token["content"]
        if content in known:
            if id is not None and known[content] != id:
                raise TokenizerError(
                    f"{source}: token `{content}` has id {id}, but tokenizer.json has id {known[content]}"
                )
            continue
        if id is None:
            id = vocab.get(content, max([-1, *vocab.values(), *known.values()]) + 1)
        elif vocab.get(content, id) != id:
            raise TokenizerError(f"{source}: token `{content}` has id {id}, but the vocabulary has id {vocab[content]}")
        listed.append({"id": id, **token})
        known[content] = added[content] = id
    listed.sort(key=lambda token: token["id"])
    return added


def _vocabulary(values: dict[str, Any]) -> dict[str, int]:
    vocab = (values.get("model") or {}).get("vocab")
    return vocab if isinstance(vocab, dict) else {}


def _side_tokens(folder: Path) -> list[tuple[Path, dict[str, Any], int | None]]:
    """(file, token with its flags, its id if the file has one): those with ids first, as transformers adds them."""
    with_ids: list[tuple[Path, dict[str, Any], int | None]] = []
    special: list[tuple[Path, dict[str, Any], int | None]] = []
    for name in (SETTINGS, SPECIAL):
        path = folder / name
        if not is_there(path, TokenizerError):
            continue
        values = read_json(path, TokenizerError)
        for id, token in (values.get("added_tokens_decoder") or {}).items():
            with_ids.append((path, _token(path, token), int(id)))
        found = [values.get(key) for key in SPECIAL_KEYS]
        for key in ("additional_special_tokens", "extra_special_tokens"):
            more = values.get(key) or []
            found += list(more.values()) if isinstance(more, dict) else more
        special += [(path, _token(path, token, special=True), None) for token in found if token]
    path = folder / ADDED
    if is_there(path, TokenizerError):
        names = {token["content"] for _, token, _ in special}
        for content, id in read_json(path, TokenizerError).items():
            with_ids.append((path, _token(path, content, special=content in names), int(id)))
    return sorted(with_ids, key=lambda item: item[2] or 0) + special


def _token(path: Path, token: Any, special: bool = False) -> dict[str, Any]:
    """A token as tokenizer.json writes it. One given as a string has the flags that transformers gives it."""
    if isinstance(token, str):
        token = {"content": token}
    if not isinstance(token, dict) or not isinstance(token.get("content"), str) or not token["content"]:
        raise TokenizerError(f"{path}: a token is {token!r}, expected text or an object with `content`")
    special = bool(token.get("special", special))
    defaults = dict.fromkeys(FLAGS, False) | {"special": special, "normalized": not special}
    return {"content": token["content"], **{flag: bool(token.get(flag, defaults[flag])) for flag in FLAGS}}


def original_pipeline(values: dict[str, Any]) -> Tokenizer | None:
    """The same vocabulary with the steps of Mistral's original; None if these are the steps, or it is no BPE model."""
    if values.get("normalizer") == LEGACY_NORMALIZER and values.get("pre_tokenizer") is None:
        return None
    if (values.get("model") or {}).get("type") != "BPE":
        return None
    return Tokenizer.from_str(json.dumps(values | {"normalizer": LEGACY_NORMALIZER, "pre_tokenizer": None}))


def first_difference(tokenizer: Tokenizer, other: Tokenizer) -> str | None:
    """The first of PROBES that gets other ids, with both; None if all get the same."""
    for text in PROBES:
        mine, theirs = tokenizer.encode(text).ids, other.encode(text).ids
        if mine != theirs:
            return f"{text!r}: {mine[:8]} instead of {theirs[:8]}"
    return None
