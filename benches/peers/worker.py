"""The framework of a peer in Python: a process that opens a model and answers JSON lines on standard input.

When it is ready it writes                  {"open_s": 1.5, "versions": {...}}
{"prompts": [[instruction, text], ...]}     {"embeddings": [[...], ...]}: unit rows
... with "seconds" and "min_calls"          {"times_ms": [...]}: one per call; the prompts were embedded before
A request that fails is answered with       {"error": "..."}

For every peer a call takes texts and returns float32 rows in memory, including tokenization. candle/src/main.rs
implements the same protocol.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "export" / "tests"))

from packing import encode, open_tokenizer, pack

# (instruction, text) pairs -> [N, D] unit rows
Embed = Callable[[list[tuple[str, str]]], np.ndarray]


class Texts:
    """Converts texts to ids and masks, with the tokenizer that all peers use."""

    def __init__(self, checkpoint: Path):
        self.tokenizer = open_tokenizer(checkpoint / "tokenizer.json")

    def batch(self, prompts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """input_ids, attention_mask, pool_mask: int64 [B, S], padded on the right to the longest row."""
        return pack(encode(self.tokenizer, prompts))


def unit(rows: np.ndarray) -> np.ndarray:
    """Scale rows to length 1: float32 [N, D]."""
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Fastest:
    """Equivalent implementations. All are timed on each new shape; the fastest is used for it from then on."""

    def __init__(self, ways: dict[str, Callable]):
        self.ways, self.chosen = ways, {}

    def __call__(self, *arrays):
        shape = arrays[0].shape
        if len(self.ways) > 1 and shape not in self.chosen:
            self.chosen[shape] = min(self.ways, key=lambda name: self._seconds(name, arrays))
        return self.ways[self.chosen.get(shape, next(iter(self.ways)))](*arrays)

    def _seconds(self, name, arrays) -> float:
        taken = []
        for _ in range(3):  # the first run of a short call is not representative
            start = time.perf_counter()
            self.ways[name](*arrays)
            taken.append(time.perf_counter() - start)
            if sum(taken) > 1.0:
                break
        return min(taken)


def time_calls(embed: Embed, prompts, seconds: float, min_calls: int) -> list[float]:
    """Time of each call in milliseconds. The caller has embedded these prompts before, as the warm-up."""
    times, start = [], time.perf_counter()
    while len(times) < min_calls or time.perf_counter() - start < seconds:
        begin = time.perf_counter()
        embed(prompts)
        times.append(1e3 * (time.perf_counter() - begin))
    return times


def serve(open_model: Callable[[], tuple[Embed, dict]]) -> None:
    """Open the model and answer requests until standard input ends. Only answers are written to standard output."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value) -> None:
        print(json.dumps(value), file=answers, flush=True)

    start = time.perf_counter()
    embed, versions = open_model()
    answer({"open_s": time.perf_counter() - start, "versions": versions})
    for line in sys.stdin:
        request = json.loads(line)
        prompts = [tuple(prompt) for prompt in request["prompts"]]
        try:
            if "seconds" in request:
                answer({"times_ms": time_calls(embed, prompts, request["seconds"], request["min_calls"])})
            else:
                answer({"embeddings": np.asarray(embed(prompts), np.float64).tolist()})
        except Exception as error:  # any failure of a peer becomes a row of the report
            answer({"error": f"{type(error).__name__}: {error}"})
