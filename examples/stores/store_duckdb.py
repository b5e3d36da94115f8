"""DuckDB: exact search, straight in a corpus' Parquet. Nothing is loaded.

    python store_duckdb.py PASSAGES QUERIES     # folders of `nvembed corpus`; --dtype f16, f32 or int8

DuckDB reads f16 as FLOAT. Every search reads every row, so this is for filters, joins and checks, not for many queries.
"""

import sys

import duckdb
from corpus import parts, vectors


def search(folder, query, k=10):
    """Identifiers and cosine similarities, best first."""
    width = len(query)
    rows = duckdb.execute(
        f"""SELECT id, array_cosine_similarity(embedding::FLOAT[{width}], $query::FLOAT[{width}]) AS score
            FROM read_parquet($parts) WHERE embedding IS NOT NULL ORDER BY score DESC, id LIMIT $k""",
        {"query": query.astype("float32").tolist(), "parts": parts(folder), "k": k},
    )
    return rows.fetchall()


if __name__ == "__main__":
    for name, query in zip(*vectors(sys.argv[2]), strict=True):
        print(name, search(sys.argv[1], query))
