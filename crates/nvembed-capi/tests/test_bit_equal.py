"""The embeddings through C have the same bits as those through Rust."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import ROOT, run

TASK = "Given a question, retrieve passages that answer the question"


def texts() -> list[str]:
    """Questions and answers from the evaluation set, and texts with other lengths and alphabets."""
    records = [json.loads(line) for line in (ROOT / "tests/eval/faq.jsonl").read_text().splitlines()[:60]]
    found = [value for record in records for value in record.values() if isinstance(value, str)]
    found += ["", " ", "naïve café", "日本語のテキスト", "👩‍👩‍👧", "a </s> b <s>", "many words " * 300]
    return [text.replace("\n", " ") for text in found]


@pytest.mark.parametrize("task", [None, TASK], ids=["passages", "queries"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_rows_have_the_same_bits(precision, task, compiled, program, environment, tmp_path):
    model = ROOT / f"build/models/nv-embed-mini-{precision}"
    text = "\n".join(texts()).encode() + b"\n"
    source = tmp_path / "texts.txt"
    source.write_bytes(text)
    in_rust = tmp_path / "rust.npy"
    arguments = ["--task", task] if task else []
    command = [program, "embed", "-m", model, source, "-o", in_rust, "--quiet", *arguments]
    run(command, env=environment)
    # The C program returns from main with the model open; run() checks its exit code.
    in_c = run([compiled("dump", "-O2"), model, "f32", *([task] if task else [])], env=environment, input=text)
    rows = np.frombuffer(in_c.stdout, dtype=np.float32).reshape(len(texts()), -1)
    expected = np.load(in_rust)
    assert expected.dtype == np.float32
    assert rows.shape == expected.shape
    assert rows.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", ["f16", "int8", "binary"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_rows_of_other_types_have_the_same_bits_and_are_those_of_numpy(
    precision, dtype, compiled, program, environment, tmp_path
):
    model = ROOT / f"build/models/nv-embed-mini-{precision}"
    text = "\n".join(texts()).encode() + b"\n"

    def embed(dtype):
        out = tmp_path / f"{dtype}.npy"
        command = [program, "embed", "-m", model, "-o", out, "--quiet", "--dtype", dtype]
        run([*command, "--format", "lines"], env=environment, input=text)
        return np.load(out)

    expected, wide = embed(dtype), embed("f32")
    in_c = run([compiled("dump", "-O2"), model, dtype], env=environment, input=text)
    assert in_c.stdout == expected.tobytes()
    if dtype == "f16":
        assert expected.dtype == np.float16
        assert np.array_equal(expected, wide.astype(np.float16))
    elif dtype == "int8":
        largest = np.abs(wide).max(axis=1, keepdims=True)
        assert np.array_equal(expected, np.round(wide / largest * np.float32(127)).astype(np.int8))
        assert np.array_equal(np.load(tmp_path / "int8.scales.npy"), largest[:, 0] / np.float32(127))
    else:
        assert np.array_equal(expected, np.packbits(wide > 0, axis=1))


def test_token_counts_and_truncation_are_those_of_the_program(compiled, program, environment):
    model = ROOT / "build/models/nv-embed-mini-fp32"
    text = "\n".join([*texts(), "many words " * 3000]).encode() + b"\n"
    command = [program, "embed", "-m", model, "--format", "lines", "--quiet"]
    expected = [json.loads(line) for line in run(command, env=environment, input=text).stdout.splitlines()]
    found = run([compiled("dump", "-O2"), model, "f32"], env=environment, input=text).stderr.decode().splitlines()
    assert found == [f"{row['tokens']} {int(row['truncated'])}" for row in expected]
    assert [row["truncated"] for row in expected] == [False] * len(texts()) + [True]
