"""sqlite-vec: bits searched, f32 or int8 to rank again, in one SQLite file.

    python store_sqlite_vec.py PASSAGES QUERIES [DATABASE]     # folders of `nvembed corpus`, --dtype f16 or f32

sqlite-vec puts the first number into the *least* significant bit of a byte (`vec_quantize_binary`); nvembed, numpy and
most others put it into the most significant one. Mixing both gives wrong neighbours without an error: `lsb_first`
converts.

Python must have been built with loadable extensions: Debian's is, many builds for pyenv and uv are not.
"""

import sqlite3
import sys

import numpy as np
import sqlite_vec
from corpus import batches, vectors


def lsb_first(bits):
    """Bits as nvembed packs them, as sqlite-vec does."""
    return np.packbits(np.unpackbits(bits, axis=-1), axis=-1, bitorder="little")


def connect(path=":memory:"):
    database = sqlite3.connect(path)
    if not hasattr(database, "enable_load_extension"):
        sys.exit("this Python's sqlite3 loads no extensions; try /usr/bin/python3")
    database.enable_load_extension(True)
    sqlite_vec.load(database)
    return database


def load(database, folder):
    """A table of bits, and one of the passages' identifiers and f32 to rank by. Rows are numbered from 1."""
    row = 0
    for ids, rows in batches(folder):
        if row == 0:
            columns = f"row INTEGER PRIMARY KEY, bits bit[{rows.shape[1]}]"
            database.execute(f"CREATE VIRTUAL TABLE bits USING vec0({columns})")
            database.execute("CREATE TABLE passages (row INTEGER PRIMARY KEY, id, embedding BLOB)")
        numbers = range(row + 1, row + 1 + len(ids))
        packed = lsb_first(np.packbits(rows > 0, axis=1))
        added = zip(numbers, map(bytes, packed), strict=True)
        database.executemany("INSERT INTO bits (row, bits) VALUES (?, vec_bit(?))", added)
        floats = (one.astype(np.float32).tobytes() for one in rows)
        database.executemany("INSERT INTO passages VALUES (?, ?, ?)", zip(numbers, ids, floats, strict=True))
        row += len(ids)
    database.commit()


def search(database, query, k=10, candidates=40):
    """Identifiers and cosine distances, nearest first: `candidates` by their bits, ranked again by f32."""
    bits = lsb_first(np.packbits(query > 0))
    return database.execute(
        """WITH best AS (SELECT row FROM bits WHERE bits MATCH vec_bit(?) AND k = ?)
           SELECT id, vec_distance_cosine(embedding, ?) AS distance FROM passages JOIN best USING (row)
           ORDER BY distance LIMIT ?""",
        (bits.tobytes(), candidates, query.astype(np.float32).tobytes(), k),
    ).fetchall()


if __name__ == "__main__":
    passages, queries, path = [*sys.argv[1:], "passages.sqlite"][:3]
    database = connect(path)
    load(database, passages)
    for name, query in zip(*vectors(queries), strict=True):
        print(name, search(database, query))
