"""Daft: embed any table with a class that opens the model once a process.

python daft_udf.py MODEL INPUT OUTPUT [PROCESSES]     # Parquet with a column `text`
"""

import sys

import daft
import numpy as np
from daft import DataType


def embed(model, source, out, processes=1, open_model=None, width=4096):
    """Reads, embeds and writes; `open_model(model)` returns what has `encode`."""

    @daft.cls(max_concurrency=processes, use_process=processes > 1)
    class Embed:
        def __init__(self, model):
            if open_model is None:
                import nvembed

                self.embedder = nvembed.Embedder(model)
            else:
                self.embedder = open_model(model)

        @daft.method.batch(return_dtype=DataType.fixed_size_list(DataType.float32(), width), batch_size=1024)
        def __call__(self, text):
            return list(np.asarray(self.embedder.encode(text.to_pylist()), dtype=np.float32))

    rows = daft.read_parquet(source)
    rows.with_column("embedding", Embed(model)(rows["text"])).exclude("text").write_parquet(out)


if __name__ == "__main__":
    model, source, out, *processes = sys.argv[1:]
    embed(model, source, out, *map(int, processes))
