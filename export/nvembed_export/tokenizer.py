"""tokenizer.json for the model folder: copied or converted from tokenizer.model, and validated against the config."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from nvembed_export.config import TextConfig
from nvembed_export.errors import TokenizerError
from nvembed_export.sentencepiece_bpe import convert

BOS, EOS = "<s>", "</s>"
SENTENCEPIECE_FILES = ("tokenizer.model", "sentencepiece.bpe.model")  # Hugging Face's name, PaddleNLP's


@dataclass(frozen=True)
class TokenizerFile:
    """The bytes of tokenizer.json as they will be written, and the tokenizer loaded from them."""

    content: bytes
    tokenizer: Tokenizer


def load_tokenizer(checkpoint_dir: Path, config: TextConfig) -> TokenizerFile:
    """Load and validate the checkpoint's tokenizer.

    Raises TokenizerError if there is none, it cannot be read, an id is outside the embedding table, `<s>` and `</s>`
    are not special tokens with the config's ids, or it adds anything but a leading `<s>` to a text.
    """
    path = checkpoint_dir / "tokenizer.json"
    spm = next((checkpoint_dir / name for name in SENTENCEPIECE_FILES if (checkpoint_dir / name).exists()), None)
    if path.exists():
        content = _read(path)
    elif spm is not None:
        path, content = spm, _dump(convert(spm, config.bos_token_id))
    else:
        names = " or ".join(("tokenizer.json", *SENTENCEPIECE_FILES))
        raise TokenizerError(f"{checkpoint_dir}: no tokenizer found, expected {names}")
    try:
        values = json.loads(content)
        if values.get("truncation") is not None or values.get("padding") is not None:
            # Settings saved from earlier use. They would silently override the runtime, which decides both itself.
            values |= {"truncation": None, "padding": None}
            content = _dump(values)
        tokenizer = Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # the tokenizers library raises plain Exception
        raise TokenizerError(f"{path}: not a tokenizer of the tokenizers library ({error})") from None
    _check_ids(tokenizer, config, path)
    _check_special_tokens(values, config, path)
    _check_template(tokenizer, config, path)
    return TokenizerFile(content, tokenizer)


def _check_ids(tokenizer: Tokenizer, config: TextConfig, path: Path) -> None:
    token, largest = max(
        tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1], default=("", -1)
    )
    if largest >= config.vocab_size:
        raise TokenizerError(
            f"{path}: largest id is {largest} (`{token}`), expected ids below vocab_size ({config.vocab_size})"
        )


def _check_special_tokens(values: dict[str, Any], config: TextConfig, path: Path) -> None:
    special = {token["content"]: token["id"] for token in values.get("added_tokens") or [] if token.get("special")}
    for content, key, id in ((BOS, "bos_token_id", config.bos_token_id), (EOS, "eos_token_id", config.eos_token_id)):
        if special.get(content) != id:
            found = f"has id {special[content]}" if content in special else "is missing"
            raise TokenizerError(f"{path}: special token `{content}` {found}, expected id {id} ({key})")


def _check_template(tokenizer: Tokenizer, config: TextConfig, path: Path) -> None:
    """A text must become `<s>` and its tokens and nothing else, because the runtime appends `</s>` to the text."""
    text = f"a{EOS}"
    bare, whole = (tokenizer.encode(text, add_special_tokens=special).ids for special in (False, True))
    if whole != [config.bos_token_id, *bare]:
        raise TokenizerError(
            f"{path}: post-processor returns {whole}, expected {[config.bos_token_id, *bare]} (`{BOS}` first)"
        )
    if not bare or bare[-1] != config.eos_token_id or len(bare) < 2:
        raise TokenizerError(
            f"{path}: `{text}` becomes {bare}, expected at least two ids, the last one {config.eos_token_id}"
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read: {error.strerror}") from None


def _dump(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, ensure_ascii=False, indent=2)).encode("utf-8")
