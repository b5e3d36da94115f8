"""PostgreSQL with pgvector: f16 in the table, bits in the index, the best ranked again.

    python store_pgvector.py PASSAGES QUERIES URI     # folders of `nvembed corpus`, --dtype f16 or f32

pgvector indexes at most 2,000 dimensions of `vector` and 4,000 of `halfvec`, and NV-Embed has 4,096. Two ways round
it: index the bits, as here; or store the first 4,000 (`nvembed corpus --dimensions 4000`), which get their own index.
"""

import sys

import numpy as np
import psycopg
from corpus import batches, vectors
from pgvector import HalfVector
from pgvector.psycopg import register_vector

BITS = "binary_quantize(embedding)::bit({width})"


def connect(uri):
    connection = psycopg.connect(uri, autocommit=True)
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    register_vector(connection)
    return connection


def load(connection, folder):
    """A table with all rows of a corpus. Its indexes come after them, which is faster."""
    width = 0
    for ids, rows in batches(folder):
        if not width:
            width = rows.shape[1]
            connection.execute(f"CREATE TABLE passages (id text PRIMARY KEY, embedding halfvec({width}) NOT NULL)")
        with connection.cursor().copy("COPY passages FROM STDIN WITH (FORMAT BINARY)") as copy:
            copy.set_types(["text", "halfvec"])
            for name, row in zip(ids, rows, strict=True):
                copy.write_row((str(name), HalfVector(row)))
    if width <= 4000:
        connection.execute("CREATE INDEX ON passages USING hnsw (embedding halfvec_cosine_ops)")
    connection.execute(f"CREATE INDEX ON passages USING hnsw (({BITS.format(width=width)}) bit_hamming_ops)")


def search(connection, query, k=10, candidates=40):
    """Identifiers and cosine distances, nearest first: `candidates` by their bits, ranked again by f16."""
    bits = BITS.format(width=len(query))
    with connection.transaction():
        # The index returns no more than this.
        connection.execute(f"SET LOCAL hnsw.ef_search = {max(candidates, 40)}")
        return connection.execute(
            f"""WITH best AS MATERIALIZED (
                    SELECT id, embedding FROM passages
                    ORDER BY {bits} <~> binary_quantize(%(query)s) LIMIT %(candidates)s)
                SELECT id, embedding <=> %(query)s AS distance FROM best ORDER BY distance LIMIT %(k)s""",
            {"query": HalfVector(query.astype(np.float16)), "candidates": candidates, "k": k},
        ).fetchall()


if __name__ == "__main__":
    passages, queries, uri = sys.argv[1:]
    connection = connect(uri)
    load(connection, passages)
    for name, query in zip(*vectors(queries), strict=True):
        print(name, search(connection, query))
