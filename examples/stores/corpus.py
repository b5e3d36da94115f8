"""Read what `nvembed corpus` wrote, a row group at a time. The other scripts of this folder use it; copy it along."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet


def parts(folder):
    """The files of a corpus, in order."""
    return sorted(str(path) for path in Path(folder).glob("part-*.parquet"))


def batches(folder):
    """Yields identifiers (a list) and embeddings [N, W], in the type that is stored: float32, float16, int8, or uint8
    with eight signs a byte. Rows that were skipped (`--on-error skip`) are left out.

    The scales of int8 are left out too: cosine similarity does not need them.
    """
    for part in parts(folder):
        for batch in parquet.ParquetFile(part).iter_batches(batch_size=4096, columns=["id", "embedding"]):
            batch = batch.filter(batch["embedding"].is_valid())
            values = batch["embedding"].flatten().to_numpy(zero_copy_only=False)
            yield batch["id"].to_pylist(), values.reshape(len(batch), -1)


def vectors(folder):
    """All identifiers and embeddings of a corpus that fits into memory, such as one of queries."""
    ids, values = zip(*batches(folder), strict=True)
    return [one for some in ids for one in some], np.concatenate(values)
