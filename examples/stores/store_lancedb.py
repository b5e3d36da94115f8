"""LanceDB: takes a corpus' Parquet as it is. f16 by cosine, or bits by Hamming distance.

python store_lancedb.py PASSAGES QUERIES [DATABASE]     # folders of `nvembed corpus`, of the same --dtype
"""

import sys

import lancedb
import pyarrow.dataset as dataset
from corpus import parts, vectors
from lancedb.index import IvfRq


def load(folder, database):
    """A table with all columns of the parts, read as a stream."""
    rows = dataset.dataset(parts(folder), format="parquet")
    rows = rows.scanner(filter=dataset.field("embedding").is_valid(), batch_size=4096).to_reader()
    return lancedb.connect(database).create_table("passages", rows, mode="overwrite")


def index(table):
    """An index of floats, where there are too many for exact search. RaBitQ keeps about a bit a number; the vectors are
    there to rank again (`refine_factor`). The number of dimensions must be divisible by 8.
    """
    table.create_index("embedding", config=IvfRq(distance_type="cosine"))


def search(table, query, k=10, refine=None):
    """Identifiers and distances, nearest first."""
    metric = "hamming" if query.dtype == "uint8" else "cosine"
    found = table.search(query, vector_column_name="embedding").distance_type(metric).limit(k)
    found = found.refine_factor(refine).nprobes(64) if refine else found
    return [(row["id"], row["_distance"]) for row in found.select(["id", "_distance"]).to_list()]


if __name__ == "__main__":
    passages, queries, database = [*sys.argv[1:], "passages.lance"][:3]
    table = load(passages, database)
    for name, query in zip(*vectors(queries), strict=True):
        print(name, search(table, query))
