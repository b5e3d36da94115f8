"""Score the `nvembed` program on the evaluation sets in this folder.

    python tests/eval/score.py --nvembed target/release/nvembed --model build/models/nv-embed-mini-fp32 [--check]

Prints one row per figure: set, metric, value, the value in expected.json, and the value on the model card. With
`--check`, exits 1 if a figure differs by more than expected.json allows. Sets that `make.py --local` builds are scored
if they exist and reported as skipped otherwise. Needs numpy.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build" / "eval"
EXPECTED = HERE / "expected.json"


@dataclass(frozen=True)
class EvalSet:
    """A file of rows: {"query", "passage"} if `task` is given, {"a", "b", "score"} otherwise."""

    path: Path
    task: str | None = None
    card: str = "-"  # nDCG@10 or Spearman, with the digits on the model card

    @property
    def name(self):
        return self.path.stem

    def rows(self):
        return [json.loads(line) for line in self.path.read_text("utf-8").splitlines()]


SETS = (
    EvalSet(HERE / "faq.jsonl", "Given a question, retrieve passages that answer the question", ".428"),
    EvalSet(HERE / "wordnet.jsonl", "Given a word, retrieve its definition", ".195"),
    EvalSet(HERE / "similarity.jsonl"),
    EvalSet(BUILD / "wordsim353.jsonl", card=".53"),
    EvalSet(BUILD / "simlex999.jsonl", card=".34"),
    EvalSet(BUILD / "lee.jsonl", card=".546"),
)


def retrieval_metrics(scores, gold):
    """nDCG@10 and recall@1 of `scores` [Q, P]; `gold` [Q] is the index of the only correct passage of each query.

    With one correct passage the ideal DCG is 1. A passage that ties with it counts as half a rank ahead of it.
    """
    right = scores[np.arange(len(gold)), gold][:, None]
    rank = (scores > right).sum(1) + ((scores == right).sum(1) - 1) / 2
    gain = np.where(rank < 10, 1 / np.log2(rank + 2), 0)
    return {"ndcg@10": float(gain.mean()), "recall@1": float((rank < 1).mean())}


def ranks(values):
    """Ranks from 0; equal values get the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[inverse]


def spearman(x, y):
    return float(np.corrcoef(ranks(x), ranks(y))[0, 1])


class Requests:
    """Collects (instruction, text) pairs without duplicates, so that an evaluation runs the program only once."""

    def __init__(self):
        self.index = {}

    def add(self, texts, instruction=""):
        return [self.index.setdefault((instruction, text), len(self.index)) for text in texts]


def evaluate(sets, embed):
    """{set: {metric: value}}. `embed` maps a list of (instruction, text) to an array [N, D] of unit rows."""
    requests, plans = Requests(), []
    for s in sets:
        rows = s.rows()
        if s.task is None:
            plan = [requests.add(r[side] for r in rows) for side in ("a", "b")], [r["score"] for r in rows]
        else:
            passages = sorted({r["passage"] for r in rows})
            place = {p: i for i, p in enumerate(passages)}
            queries = requests.add((r["query"] for r in rows), f"Instruct: {s.task}\nQuery: ")
            plan = [queries, requests.add(passages)], [place[r["passage"]] for r in rows]
        plans.append(plan)
    embeddings = np.asarray(embed(list(requests.index)), np.float64)
    figures = {}
    for s, ((left, right), gold) in zip(sets, plans, strict=True):
        a, b = embeddings[left], embeddings[right]
        if s.task is None:
            figures[s.name] = {"spearman": spearman((a * b).sum(1), np.array(gold))}
        else:
            figures[s.name] = retrieval_metrics(a @ b.T, np.array(gold))
    return figures


def available():
    for s in SETS:
        if not s.path.is_file():
            print(f"{s.name}: skipped, build {s.path.name} with tests/eval/make.py --local", file=sys.stderr)
    return [s for s in SETS if s.path.is_file()]


def digest(path):
    return sha256(path.read_bytes()).hexdigest()


def run_nvembed(program, model, requests, options=()):
    """The embeddings that `nvembed embed` writes for `requests`, [N, D]. Exits unless they are N finite unit rows."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "texts.jsonl", Path(folder) / "embeddings.npy"
        rows = (
            {"text": text, "instruction": instruction} if instruction else {"text": text}
            for instruction, text in requests
        )
        source.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        command = [program, "embed", "--quiet", "--model", model, *options, "--output", target, source]
        status = subprocess.run(command, check=False).returncode
        if status != 0:
            sys.exit(f"{program} embed: exit status {status}")
        embeddings = np.load(target)
    if embeddings.ndim != 2 or len(embeddings) != len(requests):
        sys.exit(f"nvembed wrote an array of shape {embeddings.shape}, expected {len(requests)} rows")
    length = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    if not np.all(np.abs(length - 1) < 1e-2):
        sys.exit(f"nvembed wrote rows of length {length.min()} to {length.max()}, expected 1 within 0.01")
    return embeddings


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nvembed", type=Path, required=True, help="the nvembed program")
    parser.add_argument("--model", type=Path, required=True, help="a model folder exported from models/nv-embed-mini")
    parser.add_argument("--check", action="store_true", help="exit 1 if a figure is outside its tolerance")
    parser.add_argument("options", nargs="*", help="after `--`: additional options for `nvembed embed`")
    args = parser.parse_args()

    expected = json.loads(EXPECTED.read_text("utf-8"))
    precision = json.loads((args.model / "nvembed.json").read_text("utf-8"))["precision"]
    tolerance = expected["tolerance"].get(precision, {}).get("value")
    if args.check and tolerance is None:
        sys.exit(
            f"expected.json has no tolerance for {precision}, only for {', '.join(expected['tolerance'])}; "
            "tests/eval/precisions.py compares the other precisions with fp32"
        )
    sets = available()
    figures = evaluate(sets, lambda requests: run_nvembed(args.nvembed, args.model, requests, args.options))

    off = []
    print(f"{'set':<12} {'metric':<9} {'value':>8} {'expected':>9} {'card':>6}")
    for s in sets:
        known = expected["sets"].get(s.name, {"sha256": None, "figures": {}})
        if known["sha256"] != digest(s.path):
            off.append(f"{s.name}: {s.path.name} differs from the file that expected.json was measured on")
        for metric, value in figures[s.name].items():
            reference = known["figures"].get(metric)
            card = "-" if metric == "recall@1" else s.card
            print(f"{s.name:<12} {metric:<9} {value:>8.4f} {reference or float('nan'):>9.4f} {card:>6}")
            if tolerance is not None and (reference is None or not abs(value - reference) <= tolerance):
                off.append(f"{s.name} {metric}: {value:.5f}, expected {reference} ± {tolerance} ({precision})")
    for line in off:
        print(f"off: {line}", file=sys.stderr)
    return 1 if args.check and off else 0


if __name__ == "__main__":
    sys.exit(main())
