"""Qdrant: f16 on disk, bits in memory, the best ranked again.

    python store_qdrant.py PASSAGES QUERIES [URL or FOLDER]     # folders of `nvembed corpus`, --dtype f16 or f32

A folder, or nothing, uses the client's local mode, which is exact, slow, and ignores quantization: it is for tests.
"""

import sys
import uuid

from corpus import batches, vectors
from qdrant_client import QdrantClient, models


def point(name):
    """Qdrant takes numbers from 0 on and UUIDs only: others get a UUID of their own, and go into the payload."""
    return name if isinstance(name, int) and name >= 0 else str(uuid.uuid5(uuid.NAMESPACE_OID, str(name)))


def load(client, folder, collection="passages"):
    """A collection with all rows of a corpus."""
    for ids, rows in batches(folder):
        if not client.collection_exists(collection):
            client.create_collection(
                collection,
                vectors_config=models.VectorParams(
                    size=rows.shape[1],
                    distance=models.Distance.COSINE,
                    datatype=models.Datatype.FLOAT16,
                    on_disk=True,
                ),
                quantization_config=models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True)),
            )
        for start in range(0, len(ids), 256):  # 256 rows of 4,096 numbers are 20 MB of JSON; a server takes 32 MB
            some = slice(start, start + 256)
            payload = [{"id": name} for name in ids[some]]
            points = models.Batch(ids=list(map(point, ids[some])), vectors=rows[some].tolist(), payloads=payload)
            client.upsert(collection, points)


def search(client, query, k=10, collection="passages"):
    """Identifiers and cosine similarities, best first: four times as many by their bits, then by f16."""
    quantization = models.QuantizationSearchParams(rescore=True, oversampling=4.0)
    params = models.SearchParams(quantization=quantization)
    found = client.query_points(collection, query.tolist(), limit=k, search_params=params)
    return [(point.payload["id"], point.score) for point in found.points]


if __name__ == "__main__":
    passages, queries, place = [*sys.argv[1:], ":memory:"][:3]
    client = QdrantClient(url=place) if "://" in place else QdrantClient(place)
    load(client, passages)
    for name, query in zip(*vectors(queries), strict=True):
        print(name, search(client, query))
