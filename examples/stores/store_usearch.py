"""usearch: an HNSW index in one file, of f16, int8 or bits.

    python store_usearch.py PASSAGES QUERIES [INDEX]     # folders of `nvembed corpus`, of the same --dtype

Keys are numbers: identifiers that are strings stay in a list beside it.
"""

import sys

import numpy as np
from corpus import batches, vectors
from usearch.index import Index, MetricKind, ScalarKind

KINDS = {"float32": ScalarKind.F32, "float16": ScalarKind.F16, "int8": ScalarKind.I8, "uint8": ScalarKind.B1}


def load(folder, path=None):
    """Identifiers and an index; its keys are places in the list."""
    ids, index = [], None
    for names, rows in batches(folder):
        if index is None:
            bits = rows.dtype == np.uint8
            metric = MetricKind.Hamming if bits else MetricKind.Cos
            index = Index(ndim=rows.shape[1] * (8 if bits else 1), metric=metric, dtype=KINDS[rows.dtype.name])
        index.add(np.arange(len(ids), len(ids) + len(names)), rows)
        ids += names
    if path:
        index.save(path)  # Index.restore(path, view=True) maps it into memory
    return ids, index


def search(ids, index, query, k=10):
    """Identifiers and distances, nearest first."""
    found = index.search(query, k)
    return [(ids[key], float(distance)) for key, distance in zip(found.keys, found.distances, strict=True)]


if __name__ == "__main__":
    passages, queries, path = [*sys.argv[1:], "passages.usearch"][:3]
    ids, index = load(passages, path)
    for name, query in zip(*vectors(queries), strict=True):
        print(name, search(ids, index, query))
