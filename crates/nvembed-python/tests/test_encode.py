"""`encode` and its kin: the numbers of the program, and the arguments of sentence-transformers."""

import gc
import json
import pickle
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
from conftest import MODEL, TASK, TEXTS
from nvembed import DEFAULT_TASK, Embedder, ModelError, NvEmbedError, OptionError, ProviderError, TooLongError


@pytest.mark.parametrize("precision", ["float32", "float16", "ubinary"])
def test_bits_equal_those_of_the_program(model, program, tmp_path, precision):
    texts = [text for text in TEXTS if text]
    dtype = {"float32": "f32", "float16": "f16", "ubinary": "binary"}[precision]
    wanted = program(texts, tmp_path, "--dtype", dtype)
    found = model.encode_document(texts, precision=precision)
    assert found.dtype == wanted.dtype
    assert np.array_equal(found, wanted)
    wanted = program(texts, tmp_path, "--dtype", dtype, "--task", TASK)
    assert np.array_equal(model.encode_query(texts, precision=precision, task=TASK), wanted)


def test_the_four_ways_to_say_an_instruction_are_one(model):
    text = TEXTS[0]
    wanted = model.encode(text, prompt=f"Instruct: {DEFAULT_TASK}\nQuery: ")
    assert np.array_equal(model.encode_query(text), wanted)
    assert np.array_equal(model.encode(text, prompt_name="query"), wanted)
    assert np.array_equal(model.encode(text, task=DEFAULT_TASK), wanted)
    assert not np.array_equal(model.encode(text), wanted)
    with pytest.raises(OptionError, match="give one of them"):
        model.encode(text, prompt_name="query", task=TASK)
    with pytest.raises(OptionError, match="'passage'; there are 'query', 'document'"):
        model.encode(text, prompt_name="passage")


def test_rows_are_c_contiguous_writable_and_outlive_the_model():
    model = Embedder(MODEL, threads=1)
    rows = model.encode(TEXTS[:2])
    copy = rows.copy()
    del model
    gc.collect()
    assert rows.flags.c_contiguous
    assert rows.flags.writeable
    assert np.array_equal(rows, copy)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_one_string_is_one_row_and_no_texts_are_none(model):
    assert model.encode(TEXTS[0]).shape == (256,)
    assert model.encode([TEXTS[0]]).shape == (1, 256)
    assert model.encode([]).shape == (0, 256)
    assert model.encode(iter(TEXTS)).shape == (5, 256)
    rows = model.encode(TEXTS, convert_to_numpy=False)
    assert isinstance(rows, list)
    assert rows[0].shape == (256,)


def test_fewer_dimensions_have_length_one_again(model):
    whole, half = model.encode(TEXTS[1]), model.encode(TEXTS[1], truncate_dim=128)
    assert half.shape == (128,)
    assert np.allclose(half, whole[:128] / np.linalg.norm(whole[:128]), atol=1e-6)
    other = Embedder(MODEL, truncate_dim=128)
    assert np.array_equal(other.encode(TEXTS[1]), half)
    assert other.get_embedding_dimension() == 128


def test_binary_is_what_sentence_transformers_calls_so(model):
    whole = model.encode(TEXTS)
    wanted = np.packbits(whole > 0, axis=1)
    assert np.array_equal(model.encode(TEXTS, precision="ubinary"), wanted)
    found = model.encode(TEXTS, precision="binary")
    assert found.dtype == np.int8
    assert np.array_equal(found, (wanted.astype(int) - 128).astype(np.int8))


def test_the_progress_bar_changes_no_row(model, monkeypatch):
    monkeypatch.setattr("nvembed.embedder.WINDOW", 2)
    plain = model.encode(TEXTS)
    with_bar = model.encode(TEXTS, show_progress_bar=True)
    assert np.abs(plain - with_bar).max() <= 1e-6
    assert np.abs(model.encode(TEXTS, batch_size=1) - plain).max() <= 1e-6


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"normalize_embeddings": False}, "normalization"),
        ({"output_value": "token_embeddings"}, "'token_embeddings'"),
        ({"precision": "int8"}, "ranges of other embeddings"),
        ({"precision": "bf16"}, "'bf16'; there are"),
        ({"device": "cuda:0"}, "opened on cpu"),
        ({"batch_size": 0}, "0; give 1 or more"),
        ({"batch_size": 10**6}, "8192"),
        ({"truncate_dim": 257}, "257"),
        ({"pool": object()}, "`pool`"),
        ({"promt": "a"}, "`promt`"),
    ],
)
def test_what_cannot_be_honoured_raises(model, argument, message):
    with pytest.raises(OptionError, match=message) as raised:
        model.encode(TEXTS[0], **argument)
    assert isinstance(raised.value, ValueError)
    assert raised.value.code == OptionError.code > 0


def test_texts_that_are_no_texts_are_named(model):
    with pytest.raises(OptionError, match="text 1 is of type int"):
        model.encode(["a", 7])
    with pytest.raises(UnicodeEncodeError):
        model.encode(["\ud800"])


def test_long_texts_are_cut_or_refused(model):
    short = Embedder(MODEL, max_seq_length=8, truncation="error")
    assert short.max_seq_length == 8
    assert short.encode("a").shape == (256,)
    with pytest.raises(TooLongError):
        short.encode(TEXTS[4])
    assert model.tokenize(TEXTS[4])["input_ids"].shape[1] > 8


def test_errors_have_a_class_and_a_code_for_each_kind(model):
    with pytest.raises(ModelError, match="nvembed-export"):
        Embedder("/nowhere")
    with pytest.raises(ProviderError) as raised:
        Embedder(MODEL, provider="cuda")
    assert "nvembed[cuda]" in raised.value.__notes__[0]
    with pytest.raises(OptionError, match="no option `thread`; there are provider"):
        Embedder(MODEL, thread=1)
    with pytest.raises(TypeError):
        Embedder(MODEL, threads="many")
    codes = [cls.code for cls in NvEmbedError.__subclasses__() if cls.code]
    assert len(codes) == len(set(codes)) == 13


def test_masks_leave_out_the_instruction(model):
    tokens = model.tokenize(["who?", "who wrote the odyssey?"], prompt_name="query")
    ids, attention, pool = tokens["input_ids"], tokens["attention_mask"], tokens["pool_mask"]
    assert ids.shape == attention.shape == pool.shape
    assert ids.dtype == np.int64
    instruction = attention.sum(1) - pool.sum(1)
    assert instruction[0] == instruction[1] > 10
    assert (ids[:, 0] == 1).all()
    assert attention[0].sum() < attention[1].sum() == ids.shape[1]


def test_similarity_is_the_cosine(model):
    rows = model.encode(TEXTS)
    assert np.allclose(model.similarity(rows, 3 * rows), rows @ rows.T, atol=1e-6)
    assert np.allclose(model.similarity_pairwise(rows, rows), 1, atol=1e-6)


def test_a_pickle_is_a_path_and_options():
    model = Embedder(MODEL, threads=1, prompts={"bitext": "Translate: "}, truncate_dim=64)
    data = pickle.dumps(model)
    assert len(data) < 1000
    other = pickle.loads(data)
    assert other.prompts == model.prompts
    assert np.array_equal(other.encode(TEXTS, prompt_name="bitext"), model.encode(TEXTS, prompt_name="bitext"))


def test_every_argument_of_sentence_transformers_is_there_or_refused():
    # From the wheel of sentence-transformers, by signatures.py.
    theirs = json.loads((Path(__file__).parent / "signatures.json").read_text())
    for method in ("encode", "encode_query", "encode_document"):
        own = signature(Embedder.encode).parameters
        for name, default in theirs[method].items():
            # Of these two, None is ours too, and anything else is refused.
            if name in ("self", "pool", "chunk_size"):
                continue
            assert name in own, f"{method} has no {name}"
            # Batches are planned by tokens, and rows always have length 1.
            if name not in ("inputs", "batch_size", "normalize_embeddings"):
                assert repr(own[name].default) == default, f"{method}: {name}"


def test_the_texts_may_have_their_old_name(model):
    assert np.array_equal(model.encode(sentences=TEXTS), model.encode(TEXTS))
    with pytest.raises(OptionError, match="no texts"):
        model.encode()
