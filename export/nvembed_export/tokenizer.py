"""tokenizer.json for the model folder: copied or converted from SentencePiece, and validated against the config.

The files beside it that transformers reads are read too: tokens added by a fine-tune, and settings that change ids.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from nvembed_export.config import TextConfig
from nvembed_export.errors import TokenizerError
from nvembed_export.files import is_there, read_bytes
from nvembed_export.sentencepiece_bpe import convert
from nvembed_export.tokenizer_settings import add_side_tokens, check_settings, first_difference, original_pipeline

BOS, EOS = "<s>", "</s>"
SENTENCEPIECE_FILES = ("tokenizer.model", "sentencepiece.bpe.model")  # Hugging Face's name, PaddleNLP's
PADDED_ROWS = 128  # embedding tables are often padded to a multiple of up to this many rows


@dataclass(frozen=True)
class TokenizerFile:
    """The bytes of tokenizer.json as they will be written, the tokenizer loaded from them, and notes for the user."""

    content: bytes
    tokenizer: Tokenizer
    notes: tuple[str, ...] = ()


def load_tokenizer(checkpoint_dir: Path, config: TextConfig) -> TokenizerFile:
    """Load and validate the tokenizer in a folder.

    Raises TokenizerError if there is none, it cannot be read, an id is outside the embedding table, `<s>` and `</s>`
    are not special tokens with the config's ids, or it adds anything but a leading `<s>` to a text.
    """
    path = checkpoint_dir / "tokenizer.json"
    has_json = is_there(path, TokenizerError)
    spm = next((p for name in SENTENCEPIECE_FILES if is_there(p := checkpoint_dir / name, TokenizerError)), None)
    if has_json:
        content = read_bytes(path, TokenizerError)
    elif spm is not None:
        path, content = spm, _dump(convert(spm, config.bos_token_id))
    else:
        names = " or ".join(("tokenizer.json", *SENTENCEPIECE_FILES))
        raise TokenizerError(f"{checkpoint_dir}: no tokenizer found, expected {names}")
    check_settings(checkpoint_dir, is_converted=not has_json)
    try:
        values = json.loads(content)
        added = add_side_tokens(checkpoint_dir, values)
        if added or values.get("truncation") is not None or values.get("padding") is not None:
            # Settings saved from earlier use. They would silently override the runtime, which decides both itself.
            values |= {"truncation": None, "padding": None}
            content = _dump(values)
        tokenizer = Tokenizer.from_str(content.decode("utf-8"))
    except TokenizerError:
        raise
    except Exception as error:  # the tokenizers library raises plain Exception
        raise TokenizerError(f"{path}: not a tokenizer of the tokenizers library ({error})") from None
    for token, id in added.items():
        if tokenizer.token_to_id(token) != id:
            raise TokenizerError(
                f"{checkpoint_dir}: token `{token}` gets id {tokenizer.token_to_id(token)}, expected id {id}; save the "
                "tokenizer again with transformers, as tokenizer.json"
            )
    largest = _check_ids(tokenizer, config, path)
    _check_special_tokens(values, config, path)
    _check_template(tokenizer, config, path)
    notes = (
        [f"added {len(added)} tokens of the files beside {path.name}: {', '.join(list(added)[:5])}"] if added else []
    )
    notes += _compare(values, tokenizer, spm if has_json else None, config)
    spare = config.vocab_size - largest - 1
    if spare and (config.vocab_size % 8 or spare >= PADDED_ROWS):
        notes.append(
            f"the embedding table has {spare} rows more than the tokenizer has ids; if tokens were added in training, "
            "the file that lists them is missing (tokenizer.json, added_tokens.json or tokenizer_config.json)"
        )
    return TokenizerFile(content, tokenizer, tuple(notes))


def _compare(values: dict[str, Any], tokenizer: Tokenizer, spm: Path | None, config: TextConfig) -> list[str]:
    """Notes on texts to which Mistral's own tokenizer, of which NV-Embed's is a copy, gives other ids."""
    notes = []
    advice = "for the original's ids name the folder with its files by --tokenizer"
    if (original := original_pipeline(values)) is not None and (found := first_difference(tokenizer, original)):
        notes.append(
            "tokenizer.json, probably saved by newer transformers, gives other ids than Mistral's original for some "
            f"texts, such as {found}; {advice}"
        )
    if spm is not None and not notes:
        other = Tokenizer.from_str(_dump(convert(spm, config.bos_token_id)).decode("utf-8"))
        if found := first_difference(tokenizer, other):
            notes.append(f"tokenizer.json and {spm.name} give different ids, such as {found}; tokenizer.json is taken")
    return notes


def _check_ids(tokenizer: Tokenizer, config: TextConfig, path: Path) -> int:
    """The largest id, which must be a row of the embedding table."""
    token, largest = max(
        tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1], default=("", -1)
    )
    if largest >= config.vocab_size:
        raise TokenizerError(
            f"{path}: largest id is {largest} (`{token}`), expected ids below vocab_size ({config.vocab_size})"
        )
    return largest


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


def _dump(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, ensure_ascii=False, indent=2)).encode("utf-8")
