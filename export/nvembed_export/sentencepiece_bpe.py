"""Converts a SentencePiece BPE model (tokenizer.model) to a Hugging Face tokenizer.json that gives the same ids.

SentencePiece stores scores, not merges: it joins the adjacent pair whose concatenation is the piece with the best
score. An equivalent list of merges contains every pair of pieces whose concatenation is a piece, ordered by the score
of that piece. Pairs that give the same piece are ordered by the ids of their parts, as in Mistral's own conversion.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2

from nvembed_export.errors import TokenizerError
from nvembed_export.files import read_bytes

SPACE = "\u2581"  # SentencePiece's visible stand-in for a space
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6  # piece types of the format
BPE = 2  # trainer_spec.model_type


def convert(path: Path, bos_token_id: int) -> dict[str, Any]:
    """The content of tokenizer.json for a SentencePiece model; it prepends the piece with id `bos_token_id`.

    Raises TokenizerError if the file is not a SentencePiece BPE model like Mistral's: with byte fallback, without text
    normalisation, and with a space prepended to the text.
    """
    model = _load(path)
    pieces = [piece.piece for piece in model.pieces]
    if bos_token_id >= len(pieces):
        raise TokenizerError(f"{path}: bos_token_id is {bos_token_id}, expected an id below {len(pieces)} (its pieces)")
    special = [id for id, piece in enumerate(model.pieces) if piece.type in (UNKNOWN, CONTROL)]
    bos = pieces[bos_token_id]
    begin = {"SpecialToken": {"id": bos, "type_id": 0}}
    begin_second = {"SpecialToken": {"id": bos, "type_id": 1}}
    first, second = ({"Sequence": {"id": name, "type_id": side}} for side, name in enumerate("AB"))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": id, "content": pieces[id], **flags} for id in special],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": SPACE},
                {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, first],
            "pair": [begin, first, begin_second, second],
            "special_tokens": {bos: {"id": bos, "ids": [bos_token_id], "tokens": [bos]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": pieces[special[0]],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {piece: id for id, piece in enumerate(pieces)},
            "merges": _merges(model),
        },
    }


def _load(path: Path):
    model = sentencepiece_model_pb2.ModelProto()
    try:
        model.ParseFromString(read_bytes(path, TokenizerError))
    except DecodeError as error:
        raise TokenizerError(f"{path}: not a sentencepiece model ({error})") from None
    normalizer, trainer = model.normalizer_spec, model.trainer_spec
    types = [piece.type for piece in model.pieces]
    facts = {
        "model type": (trainer.model_type, BPE),
        "byte_fallback": (trainer.byte_fallback, True),
        "normalizer": (normalizer.name, "identity"),
        "add_dummy_prefix": (normalizer.add_dummy_prefix, True),
        "remove_extra_whitespaces": (normalizer.remove_extra_whitespaces, False),
        "number of unknown pieces": (types.count(UNKNOWN), 1),
        "number of user-defined pieces": (types.count(USER_DEFINED), 0),
        "number of byte pieces": (types.count(BYTE), 256),
    }
    for what, (found, expected) in facts.items():
        if found != expected:
            raise TokenizerError(f"{path}: {what} is {found!r}, supported: {expected!r}")
    return model


def _merges(model) -> list[str]:
    """Every "left right" pair whose concatenation is a piece, best score first; ties are ordered by id."""
    ids = {piece.piece: id for id, piece in enumerate(model.pieces)}
    found = []
    for id, piece in enumerate(model.pieces):
        if piece.type != NORMAL:
            continue
        text = piece.piece
        splits = ((text[:cut], text[cut:]) for cut in range(1, len(text)))
        for left, right in splits:
            if left in ids and right in ids:
                found.append((-piece.score, id, ids[left], ids[right], f"{left} {right}"))
    return [merge for *_, merge in sorted(found)]
