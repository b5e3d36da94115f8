"""faiss: bits in memory, ranked again by f16; or f16 alone; or RaBitQ.

    python store_faiss.py BITS PASSAGES QUERIES     # folders of `nvembed corpus`: --dtype binary, f16, and f16 or f32

The bits of `nvembed corpus` go in as they are. For more than some million passages, take an IVF index in place of the
flat one: `index_binary_factory(bits, "BIVF65536_HNSW32")` and `index_factory(width, "IVF65536_HNSW32,RaBitQ")`.
"""

import sys

import faiss
import numpy as np
from corpus import batches, vectors


def load_bits(folder):
    """Identifiers and an index of bits."""
    ids, index = [], None
    for names, rows in batches(folder):
        index = index or faiss.IndexBinaryFlat(8 * rows.shape[1])
        index.add(rows)
        ids += names
    return ids, index


def load_floats(folder, kind="SQfp16"):
    """Identifiers and an index of floats, compared by their product: SQfp16, or RaBitQ with about a bit a number."""
    ids, rows = vectors(folder)
    rows = rows.astype(np.float32)
    index = faiss.index_factory(rows.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    index.train(rows)
    index.add(rows)
    return ids, index


def search(index, queries, k=10):
    """Rows and scores of each query, best first."""
    if isinstance(index, faiss.IndexBinary):
        distances, rows = index.search(np.packbits(queries > 0, axis=1), k)
        return rows, -distances
    scores, rows = index.search(queries.astype(np.float32), k)
    return rows, scores


def rescored(bits, passages, queries, k=10, candidates=40):
    """The best `candidates` by their bits, ranked again by the passages' floats, which may be a memory map."""
    rows, _ = search(bits, queries, candidates)
    scores = np.einsum("qcd,qd->qc", passages[rows].astype(np.float32), queries.astype(np.float32))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)


if __name__ == "__main__":
    bits, passages, queries = sys.argv[1:]
    ids, index = load_bits(bits)
    names, asked = vectors(queries)
    rows, scores = rescored(index, vectors(passages)[1], asked)
    for name, row, score in zip(names, rows, scores, strict=True):
        print(name, [(ids[one], float(value)) for one, value in zip(row, score, strict=True)])
