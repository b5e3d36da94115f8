"""Measure `nvembed corpus` and `eval`: kills, speed, sizes, quality, search. What came out is in docs/lab/corpus.md.

    python benches/corpus/measure.py kills --nvembed target/release/nvembed --model build/models/nv-embed-mini-fp32
    python benches/corpus/measure.py speed ...
    python benches/corpus/measure.py row ...
    python benches/corpus/measure.py evaluate ...
    python benches/corpus/measure.py search    # needs numpy and cargo; compares with faiss where it is
    python benches/corpus/measure.py sizes     # needs pyarrow and duckdb: .venv-stores/bin/python

All of it needs numpy; kills needs pyarrow.
"""

import argparse
import hashlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = "rain river stone letter music engine harbour winter paper garden signal market window copper field".split()


def texts(count, seed):
    """Texts of mixed lengths, as corpora have them: most short, some long (log-normal, 3 to 350 words)."""
    draw = random.Random(seed)
    for number in range(count):
        words = min(350, max(3, int(draw.lognormvariate(2.8, 0.9))))
        yield f"{number} " + " ".join(draw.choices(WORDS, k=words))


def corpus(arguments, file, out, *more):
    return [arguments.nvembed, "corpus", "-m", arguments.model, "--input", file, "--out", out, *map(str, more)]


def peak_memory():
    """Of all programs that ended so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def kills(arguments):
    """Kill a job at random times, again and again until it is done; compare all columns with those of one run."""
    import pyarrow
    import pyarrow.ipc
    import pyarrow.parquet as parquet

    def columns(folder):
        hashes = {}
        for part in sorted(folder.glob("part-*.parquet")):
            table = parquet.read_table(part).combine_chunks()
            for name in table.column_names:
                hashes.setdefault(name, hashlib.sha256()).update(content(table[name]))
        return {name: value.hexdigest() for name, value in hashes.items()}

    def content(column):
        sink = pyarrow.BufferOutputStream()
        table = pyarrow.table({"column": column})
        with pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue()

    draw, folder = random.Random(arguments.seed), Path(tempfile.mkdtemp(dir=arguments.folder))
    file = folder / "texts.jsonl"
    lines = (json.dumps({"id": f"t{index}", "text": text}) for index, text in enumerate(texts(4000, 1)))
    file.write_text("\n".join(lines))
    options = ("--shard-rows", 100, "--dedupe", "--text-hash", "-q")
    begin = time.monotonic()
    subprocess.run(corpus(arguments, file, folder / "whole", *options), check=True)
    whole, expected = time.monotonic() - begin, columns(folder / "whole")
    killed = rounds = 0
    moments = []
    while killed < arguments.count:
        out, rounds = folder / f"killed-{rounds}", rounds + 1
        while True:
            job = subprocess.Popen(corpus(arguments, file, out, *options))
            moment = draw.uniform(0, whole / 4)
            try:
                code = job.wait(moment)
            except subprocess.TimeoutExpired:
                job.kill()
                job.wait()
                killed += 1
                moments.append(moment)
                continue
            assert code == 0, code
            break
        found = columns(out)
        assert found == expected, (found, expected)
        assert {path.name for path in out.iterdir() if "part" in path.name} == {
            path.name for path in (folder / "whole").iterdir() if "part" in path.name
        }, "nothing unfinished is left"
    first, last = min(moments), max(moments)
    print(
        f"{killed} kills, {first:.2f} to {last:.2f} s after the start, in {rounds} jobs of 40 parts and {whole:.1f} s"
    )
    print(f"every column's bytes are those of an uninterrupted run: {', '.join(expected)}")


def speed(arguments):
    """Tokens per second of `corpus`, files and all, over those of `bench`, which has none; in turns."""
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    plain, file = folder / "texts.txt", folder / "texts.jsonl"
    rows = list(texts(arguments.count, 1))
    plain.write_text("\n".join(rows) + "\n")
    file.write_text("".join(json.dumps({"id": index, "text": text}) + "\n" for index, text in enumerate(rows)))
    ratios = []
    for turn in range(arguments.rounds):
        command = corpus(arguments, file, folder / f"out-{turn}")
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        said = [json.loads(line) for line in done.stderr.splitlines()]
        job = next(line for line in said if line["event"] == "done")
        memory = peak_memory()
        command = [arguments.nvembed, "bench", "-q", "-m", arguments.model, "--texts", plain]
        command += ["--seconds", "1", "--min-calls", "1"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        bench = json.loads(done.stdout.splitlines()[-1])
        ratio = job["tokens_per_s"] / bench["tokens_per_s"]
        ratios.append(ratio)
        estimate = [line for line in said if line["event"] == "estimate"]
        print(
            f"{job['rows']} texts, {job['tokens']} tokens: corpus {job['tokens_per_s']:.0f} tokens/s, "
            f"bench {bench['tokens_per_s']:.0f}: {100 * ratio:.1f} %; peak memory of corpus {memory:.0f} MiB; "
            f"estimated {[(line['tokens'], line['seconds']) for line in estimate]}",
            flush=True,
        )
    print(f"median {100 * sorted(ratios)[len(ratios) // 2]:.1f} %")


def row(arguments):
    """Peak memory with a row of 100 MB, and with shorter ones, of as many tokens."""
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    for name, size in (("short", 100), ("full", 50_000), ("long", 100 << 20)):
        file = folder / f"{name}.jsonl"
        lines = [json.dumps({"text": text}) for text in ("a", "word " * (size // 5), "b")]
        file.write_text("\n".join(lines))
        before = time.monotonic()
        # So few tokens that the texts show, and not the model.
        subprocess.run(corpus(arguments, file, folder / name, "-q", "--max-length", 64), check=True)
        seconds = time.monotonic() - before
        print(f"a row of {size} bytes: {seconds:.1f} s, peak memory {peak_memory():.0f} MiB", flush=True)


def sizes(arguments):
    """Bytes of a column of embeddings in each encoding, over those of its values; and whether DuckDB reads it."""
    import duckdb
    import numpy as np
    import pyarrow
    import pyarrow.parquet as parquet

    draw = np.random.default_rng(1)
    rows = draw.standard_normal((4096, 4096)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    scales = np.abs(rows).max(axis=1, keepdims=True) / 127
    types = {
        "f32": rows,
        "f16": rows.astype(np.float16),
        "int8": np.round(rows / scales).astype(np.int8),
        "binary": np.packbits(rows > 0, axis=1),
    }
    plain = {"use_dictionary": False, "compression": "none"}
    zstd = {"use_dictionary": False, "compression": "zstd"}
    ways = {
        "plain": plain,
        "plain, zstd": zstd,
        "byte stream split, zstd": zstd | {"column_encoding": {"embedding.list.element": "BYTE_STREAM_SPLIT"}},
        "dictionary, zstd": {"compression": "zstd"},
    }
    print("| |", " | ".join(ways), "|")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for name, values in types.items():
            column = pyarrow.FixedSizeListArray.from_arrays(values.reshape(-1), values.shape[1])
            figures = []
            for options in ways.values():
                path = Path(folder) / "column.parquet"
                try:
                    parquet.write_table(pyarrow.table({"embedding": column}), path, row_group_size=4096, **options)
                except Exception:
                    figures.append("-")
                    continue
                try:
                    duckdb.execute("SELECT sum(len(embedding)) FROM read_parquet(?)", [str(path)]).fetchall()
                    unread = ""
                except duckdb.Error:
                    unread = " (DuckDB: no)"
                figures.append(f"{path.stat().st_size / values.nbytes:.3f}{unread}")
            print(f"| {name} |", " | ".join(figures), "|", flush=True)


def search(arguments):
    """Seconds of exact search in random passages of 4,096 numbers, by 500 queries; and NumPy's, or faiss', in turns."""
    import numpy as np

    queries, dim, block, depth = 500, 4096, 4096, 100

    def ours(dtype):
        command = [*"cargo run --locked --release --quiet -p nvembed-eval --example search_speed --".split()]
        command += [*map(str, (arguments.count, queries, dim)), dtype]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    def theirs(find):
        draw = np.random.default_rng(1)
        asked = draw.standard_normal((queries, dim), np.float32)
        scores, ids = np.empty((queries, 0), np.float32), np.empty((queries, 0), np.int64)
        spent = 0.0
        for start in range(0, arguments.count, block):
            rows = draw.standard_normal((min(block, arguments.count - start), dim), np.float32)
            begin = time.monotonic()
            found, places = find(asked, rows)
            scores, ids = np.hstack([scores, found]), np.hstack([ids, places + start])
            best = np.argpartition(-scores, depth, axis=1)[:, :depth] if start else slice(None)
            if start:
                scores, ids = np.take_along_axis(scores, best, 1), np.take_along_axis(ids, best, 1)
            spent += time.monotonic() - begin
        return spent

    def numpy(asked, rows):
        scores = asked @ rows.T
        best = np.argpartition(-scores, depth, axis=1)[:, :depth]
        return np.take_along_axis(scores, best, 1), best

    def faiss(asked, rows):
        return library.knn(asked, rows, depth, metric=library.METRIC_INNER_PRODUCT)

    sides = {f"ours, {dtype}": lambda dtype=dtype: ours(dtype) for dtype in ("f32", "f16", "int8", "binary")}
    sides["NumPy, f32"] = lambda: theirs(numpy)
    try:
        import faiss as library

        sides["faiss, f32"] = lambda: theirs(faiss)
    except ImportError:
        print("faiss is not installed")
    for _ in range(arguments.rounds):
        for name, side in sides.items():
            print(f"{arguments.count} passages, {queries} queries, {name}: {side():.1f} s", flush=True)


TASKS = {
    "faq": "Given a question, retrieve passages that answer the question",
    "wordnet": "Given a word, retrieve its definition",
}


def evaluate(arguments):
    """The table of `nvembed eval` on the committed sets."""
    sets = Path(__file__).resolve().parents[2] / "tests/eval"
    for name, task in TASKS.items():
        folder = Path(tempfile.mkdtemp(dir=arguments.folder))
        rows = [json.loads(line) for line in (sets / f"{name}.jsonl").read_text().splitlines()]
        passages = list(dict.fromkeys(row["passage"] for row in rows))
        place = {passage: f"p{index}" for index, passage in enumerate(passages)}
        files = {
            "queries": [json.dumps({"_id": f"q{index}", "text": row["query"]}) for index, row in enumerate(rows)],
            "corpus": [json.dumps({"_id": place[passage], "text": passage}) for passage in passages],
            "qrels": [f"q{index} 0 {place[row['passage']]} 1" for index, row in enumerate(rows)],
        }
        command = [arguments.nvembed, "eval", "-q", "-m", arguments.model, "--task", task]
        for option, lines in files.items():
            (folder / option).write_text("\n".join(lines))
            command += [f"--{option}", folder / option]
        command += ["--dtype", "f32,f16,int8,binary", "--dimensions", "256,250,128,64", "--rescore", "40"]
        print(name, flush=True)
        subprocess.run(command, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kills", "speed", "row", "sizes", "evaluate", "search"])
    parser.add_argument("--nvembed", default="target/release/nvembed")
    parser.add_argument("--model", default="build/models/nv-embed-mini-fp32")
    parser.add_argument("--folder", help="for temporary files, which stay there")
    parser.add_argument("--count", type=int, help="kills (50), texts (200000) or passages (1000000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    arguments.count = arguments.count or {"kills": 50, "speed": 200_000, "search": 1_000_000}.get(arguments.what)
    globals()[arguments.what](arguments)


if __name__ == "__main__":
    sys.exit(main())
