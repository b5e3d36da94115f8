"""tokenizer.model is converted to a tokenizer.json with the same ids; a tokenizer.json is copied unchanged."""

from __future__ import annotations

import json
import random
import shutil
from importlib import resources
from pathlib import Path

import pytest
import sentencepiece
import side_files
from seeded_checkpoint import SPACE, small_tokenizer
from tokenizers import Tokenizer

from nvembed_export.config import load_config
from nvembed_export.errors import TokenizerError
from nvembed_export.export import ExportOptions, export
from nvembed_export.sentencepiece_bpe import convert
from nvembed_export.tokenizer import load_tokenizer

# Ranges of letters, marks and symbols that exercise pieces, byte fallback and combined characters.
RANGES = [(0x20, 0x250), (0x370, 0x600), (0x900, 0xA00), (0x2000, 0x2100), (0x3040, 0x30FF), (0x4E00, 0x5200)]
RANGES += [(0xAC00, 0xAE00), (0x1F600, 0x1F680)]
HARD = [
    *("", " ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", " a", "a ", "  a  b  ", "a\u2581b", "\u2581", "Hello  world"),
    *("\u00a0x\u00a0", "cafe\u0301 caf\u00e9", "\u0301\u0301", "\x00", "a\x00b", "\x7f\x1b[0m", "\ufeffBOM", "\u200b"),
    *("\U0001f469\u200d\U0001f52c", "\u202eRTL", "\U0001d573\U00020814", "\ufb01 \u00bd", "&amp;", "1,000,000 3.14"),
    *("a" * 700, " " * 200, "ab " * 300, "\n" * 40, "...!!!???---___", "def f(x):\n\treturn x  # y\n", '{"a": [1]}'),
]


@pytest.fixture(scope="module")
def spm() -> Path:
    """The SentencePiece model of Mistral-7B-v0.1, as mistral-common ships it."""
    return Path(str(resources.files("mistral_common") / "data" / "tokenizer.model.v1"))


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = random.Random(0)
    characters = [chr(code) for first, last in RANGES for code in range(first, last)]
    words = """the of and to in instruct query retrieve passages that answer question given wrestling Michigan
        radiology technology don't it's e.g. http://example.org/?q=a&b=c#d snake_case CamelCase 42 3.14159""".split()
    made = []
    for _ in range(2500):
        made.append(
            "".join(rng.choice(characters if rng.random() < 0.7 else " \n\t") for _ in range(rng.randint(1, 50)))
        )
        spaces = (" ", " ", " ", "  ", "\n", ", ")
        made.append("".join(rng.choice(words) + rng.choice(spaces) for _ in range(rng.randint(1, 25))))
    return HARD + made


@pytest.fixture(scope="module")
def converted(spm) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(convert(spm, 1)))


def test_converted_ids_equal_mistrals_tokenizer_json(converted, mini, texts):
    original = Tokenizer.from_file(str(mini / "tokenizer.json"))
    with_special = [*texts, "x</s>", "</s>", "a</s>b", "<s>a", "<unk>", "q: </s> </s>"]
    for special in (True, False):
        a = converted.encode_batch(with_special, add_special_tokens=special)
        b = original.encode_batch(with_special, add_special_tokens=special)
        assert [encoding.ids for encoding in a] == [encoding.ids for encoding in b]


def test_converted_ids_equal_sentencepiece(converted, spm, texts):
    processor = sentencepiece.SentencePieceProcessor(model_file=str(spm))
    found = [encoding.ids for encoding in converted.encode_batch(texts, add_special_tokens=False)]
    differing = [text for text, a, b in zip(texts, found, processor.encode(texts), strict=True) if a != b]
    assert differing == []


def test_converted_file_equals_mistrals_in_every_field(spm, mini):
    assert convert(spm, 1) == json.loads((mini / "tokenizer.json").read_text())


def test_checkpoint_with_only_tokenizer_model_gets_a_converted_tokenizer_json(tmp_path, spm, mini):
    shutil.copy(mini / "config.json", tmp_path)
    shutil.copy(spm, tmp_path / "tokenizer.model")
    found = load_tokenizer(tmp_path, load_config(tmp_path).text)
    assert found.content == (mini / "tokenizer.json").read_bytes()


def test_tokenizer_json_is_copied_byte_for_byte(mini):
    assert load_tokenizer(mini, load_config(mini).text).content == (mini / "tokenizer.json").read_bytes()


def test_truncation_and_padding_in_the_file_are_removed(small):
    values = small_tokenizer()
    tokenizer = Tokenizer.from_str(json.dumps(values))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=4)
    tokenizer.save(str(small / "tokenizer.json"))
    found = load_tokenizer(small, load_config(small).text)
    assert json.loads(found.content)["truncation"] is None
    assert json.loads(found.content)["padding"] is None
    assert len(found.tokenizer.encode("a b c d e f").ids) > 4


ANSWERS = json.loads(side_files.ANSWERS.read_text())


def small_with(folder, mini, name, spm, vocab) -> Path:
    """A folder with a case's tokenizer and a configuration with so many rows in the embedding table."""
    side_files.write_tokenizer(folder, name, spm)
    config = json.loads((mini / "config.json").read_text())
    config["text_config"]["vocab_size"] = vocab
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("name", side_files.CASES)
def test_tokens_of_the_files_beside_it_are_those_of_transformers(tmp_path, mini, spm, name):
    folder = small_with(tmp_path / name, mini, name, spm, ANSWERS[name]["size"])
    found = load_tokenizer(folder, load_config(folder).text)
    tokenizer = Tokenizer.from_str(found.content.decode())
    assert [tokenizer.encode(text).ids for text in side_files.TEXTS] == ANSWERS[name]["ids"]
    assert tokenizer.get_vocab_size() == ANSWERS[name]["size"]


def test_added_tokens_without_a_row_in_the_table_are_refused(tmp_path, mini, spm):
    folder = small_with(tmp_path / "few", mini, "model-added-tokens", spm, 32000)
    with pytest.raises(TokenizerError, match=r"largest id is 32001 \(`<query>`\)"):
        load_tokenizer(folder, load_config(folder).text)


def test_rows_without_an_id_are_told_unless_the_table_is_padded(tmp_path, mini, spm):
    for vocab, told in ((32003, True), (32064, False), (32000, False), (33000, True)):
        folder = small_with(tmp_path / str(vocab), mini, "plain", spm, vocab)
        notes = load_tokenizer(folder, load_config(folder).text).notes
        assert any(f"{vocab - 32000} rows more" in note for note in notes) is told


def test_the_form_of_newer_transformers_is_compared_with_the_original(tmp_path, mini, spm):
    folder = small_with(tmp_path / "new", mini, "plain", spm, 32000)
    values = json.loads((folder / "tokenizer.json").read_text())
    values["normalizer"] = None
    values["pre_tokenizer"] = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": False}
    (folder / "tokenizer.json").write_text(json.dumps(values))
    notes = load_tokenizer(folder, load_config(folder).text).notes
    assert len(notes) == 1
    assert "other ids than Mistral's original" in notes[0]
    assert "--tokenizer" in notes[0]
    shutil.copy(mini / "tokenizer.json", folder)
    assert load_tokenizer(folder, load_config(folder).text).notes == ()


def test_a_tokenizer_json_that_differs_from_the_sentencepiece_model_is_told(tmp_path, mini, spm):
    folder = small_with(tmp_path / "two", mini, "plain", spm, 32000)
    shutil.copy(spm, folder / "sentencepiece.bpe.model")
    assert load_tokenizer(folder, load_config(folder).text).notes == ()
    values = json.loads((folder / "tokenizer.json").read_text())
    del values["model"]["merges"][:2000]
    (folder / "tokenizer.json").write_text(json.dumps(values))
    notes = load_tokenizer(folder, load_config(folder).text).notes
    assert len(notes) == 1
    assert "tokenizer.json and sentencepiece.bpe.model give different ids" in notes[0]


def test_another_folders_tokenizer_can_be_taken(small, out, tmp_path):
    (tmp_path / "t").mkdir()
    (small / "tokenizer.json").rename(tmp_path / "t" / "tokenizer.json")
    export(small, out, ExportOptions("fp32", golden=False, tokenizer=tmp_path / "t"))
    assert (out / "tokenizer.json").read_bytes() == (tmp_path / "t" / "tokenizer.json").read_bytes()


def test_paddlenlps_name_of_the_sentencepiece_model(tmp_path, mini, spm):
    shutil.copy(mini / "config.json", tmp_path)
    shutil.copy(spm, tmp_path / "sentencepiece.bpe.model")
    assert load_tokenizer(tmp_path, load_config(tmp_path).text).content == (mini / "tokenizer.json").read_bytes()
