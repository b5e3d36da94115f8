"""A tokenizer that breaks the prompt rules is rejected; the message names both values."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest
from failing import assert_fails
from seeded_checkpoint import small_tokenizer
from sentencepiece import sentencepiece_model_pb2

from nvembed_export.errors import TokenizerError


@pytest.fixture
def values():
    return small_tokenizer()


def rewrite(checkpoint, values):
    (checkpoint / "tokenizer.json").write_text(json.dumps(values))


def test_no_tokenizer(small, out):
    (small / "tokenizer.json").unlink()
    assert_fails(small, out, TokenizerError, "no tokenizer found", "tokenizer.json", "tokenizer.model")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff", b'{"model": {"type": "None"}}'])
def test_damaged_tokenizer_json(small, out, content):
    (small / "tokenizer.json").write_bytes(content)
    assert_fails(small, out, TokenizerError, "tokenizer.json", "not a tokenizer")


def test_largest_id_outside_the_embedding_table(small, out, values):
    values["model"]["vocab"]["far"] = 384
    rewrite(small, values)
    assert_fails(small, out, TokenizerError, "largest id is 384 (`far`)", "vocab_size (384)")


def test_added_token_outside_the_embedding_table(small, out, values):
    values["model"]["vocab"] |= {f"filler{id}": id for id in range(len(values["model"]["vocab"]), 384)}
    values["added_tokens"].append(values["added_tokens"][0] | {"id": 384, "content": "<pad>"})
    rewrite(small, values)
    assert_fails(small, out, TokenizerError, "largest id is 384 (`<pad>`)", "vocab_size (384)")


@pytest.mark.parametrize(("position", "token"), [(1, "<s>"), (2, "</s>")])
def test_special_token_is_absent(small, out, values, position, token):
    del values["added_tokens"][position]
    rewrite(small, values)
    assert_fails(small, out, TokenizerError, f"`{token}` is missing", f"expected id {position}")


def test_special_token_is_not_special(small, out, values):
    values["added_tokens"][2]["special"] = False
    rewrite(small, values)
    assert_fails(small, out, TokenizerError, "`</s>` is missing", "expected id 2")


def test_special_token_has_another_id(small, out):
    config = json.loads((small / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 7
    (small / "config.json").write_text(json.dumps(config))
    assert_fails(small, out, TokenizerError, "`</s>` has id 2", "expected id 7 (eos_token_id)")


def test_post_processor_adds_nothing(small, out, values):
    values["post_processor"] = None
    rewrite(small, values)
    assert_fails(small, out, TokenizerError, "post-processor returns", "expected [1, ", "`<s>` first")


def test_post_processor_also_appends_an_end_token(small, out, values):
    template = values["post_processor"]
    template["single"].append({"SpecialToken": {"id": "</s>", "type_id": 0}})
    template["special_tokens"]["</s>"] = {"id": "</s>", "ids": [2], "tokens": ["</s>"]}
    rewrite(small, values)
    assert_fails(small, out, TokenizerError, "post-processor returns", ", 2, 2]", "expected [1, ")


@pytest.fixture
def sentencepiece_model(small):
    """Replaces tokenizer.json with Mistral's tokenizer.model; returns a function that changes and saves the latter."""
    (small / "tokenizer.json").unlink()
    model = sentencepiece_model_pb2.ModelProto()
    source = Path(str(resources.files("mistral_common") / "data" / "tokenizer.model.v1"))
    model.ParseFromString(source.read_bytes())

    def save(change):
        change(model)
        (small / "tokenizer.model").write_bytes(model.SerializeToString())

    return save


def test_sentencepiece_model_larger_than_the_vocabulary(small, out, sentencepiece_model):
    sentencepiece_model(lambda model: None)
    assert_fails(small, out, TokenizerError, "tokenizer.model", "largest id is 31999", "vocab_size (384)")


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        (lambda m: setattr(m.trainer_spec, "model_type", 1), ["model type is 1", "supported: 2"]),
        (lambda m: setattr(m.trainer_spec, "byte_fallback", False), ["byte_fallback is False", "supported: True"]),
        (lambda m: setattr(m.normalizer_spec, "name", "nmt_nfkc"), ["normalizer is 'nmt_nfkc'", "'identity'"]),
        (lambda m: setattr(m.normalizer_spec, "add_dummy_prefix", False), ["add_dummy_prefix is False", "True"]),
        (lambda m: setattr(m.normalizer_spec, "remove_extra_whitespaces", True), ["remove_extra_whitespaces is True"]),
        (lambda m: setattr(m.pieces[400], "type", 4), ["user-defined pieces is 1", "supported: 0"]),
        (lambda m: setattr(m.pieces[3], "type", 1), ["byte pieces is 255", "supported: 256"]),
    ],
)
def test_sentencepiece_model_of_another_kind(small, out, sentencepiece_model, change, fragments):
    sentencepiece_model(change)
    assert_fails(small, out, TokenizerError, "tokenizer.model", *fragments)


def test_damaged_sentencepiece_model(small, out):
    (small / "tokenizer.json").unlink()
    (small / "tokenizer.model").write_bytes(b"\x0a\xff\xff\xff")
    assert_fails(small, out, TokenizerError, "tokenizer.model", "not a sentencepiece model")


@pytest.mark.parametrize(
    ("values", "fragments"),
    [
        ({"add_eos_token": True}, ["`add_eos_token` is True", "False"]),
        ({"add_bos_token": False}, ["`add_bos_token` is False"]),
        ({"do_lower_case": True}, ["`do_lower_case` is True"]),
        ({"truncation_side": "left"}, ["`truncation_side` is 'left'", "'right'"]),
        ({"added_tokens_decoder": {"7": {"content": "</s>"}}}, ["`</s>` has id 7", "has id 2"]),
        ({"added_tokens_decoder": {"7": {"content": "th"}}}, ["`th` has id 7", "vocabulary has id"]),
        ({"added_tokens_decoder": {"380": {"content": "<far>"}}}, ["`<far>` gets id", "expected id 380"]),
        ({"added_tokens_decoder": {"300": {}}}, ["a token is {}"]),
        ({"pad_token": {"content": ""}}, ["a token is {'content': ''}"]),
    ],
    ids=lambda value: str(value)[:50],
)
def test_settings_beside_the_tokenizer_that_change_ids(small, out, values, fragments):
    (small / "tokenizer_config.json").write_text(json.dumps(values))
    assert_fails(small, out, TokenizerError, *fragments)


@pytest.mark.parametrize("values", [{"legacy": False}, {"add_prefix_space": False}])
def test_settings_that_matter_for_a_converted_tokenizer_only(small, out, values, sentencepiece_model):
    (small / "tokenizer_config.json").write_text(json.dumps(values))
    sentencepiece_model(lambda model: None)
    assert_fails(small, out, TokenizerError, f"`{next(iter(values))}` is False")
