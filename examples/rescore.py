"""Find passages by their bits, and rank the best of them again by 8-bit integers or floats.

    python rescore.py BITS PASSAGES QUERIES     # folders of `nvembed corpus`: --dtype binary; int8, f16 or f32; f32

PASSAGES could stay on disk: only 40 of its rows are read for a query.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).with_name("stores")))
from corpus import vectors


def search(bits, passages, query, candidates=40, count=10):
    """Rows and cosines, best first: of all rows, the best `candidates` by Hamming distance; of those, by `passages`."""
    distances = np.bitwise_count(bits ^ np.packbits(query > 0)).sum(axis=1, dtype=np.uint32)
    rows = np.argsort(distances, kind="stable")[:candidates]
    some = passages[rows].astype(np.float32)
    # By cosine, so that the scales of int8 are not needed.
    cosines = some @ query / np.linalg.norm(some, axis=1)
    order = np.argsort(-cosines, kind="stable")[:count]
    return rows[order], cosines[order]


if __name__ == "__main__":
    (ids, bits), (same_ids, passages), (names, queries) = map(vectors, sys.argv[1:])
    assert ids == same_ids, "both folders must be of the same passages"
    for name, query in zip(names, queries, strict=True):
        rows, cosines = search(bits, passages, query)
        print(name, [(ids[row], round(float(cosine), 6)) for row, cosine in zip(rows, cosines, strict=True)])
