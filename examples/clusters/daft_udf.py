"""Daft: embed any table with a class that opens the model once a process.

python daft_udf.py MODEL INPUT OUTPUT [PROCESSES]     # Parquet with a column `text`
"""

import sys

import daft
import nvembed
from daft import DataType


def embed(model, source, out, processes=1, width=4096):
    """Reads, embeds and writes."""

    @daft.cls(max_concurrency=processes, use_process=processes > 1)
    class Embed:
        def __init__(self, model):
            self.embedder = nvembed.Embedder(model)

        @daft.method.batch(return_dtype=DataType.fixed_size_list(DataType.float32(), width), batch_size=1024)
        def __call__(self, text):
            return self.embedder.encode(text.to_pylist(), convert_to_numpy=False)

    rows = daft.read_parquet(source)
    rows.with_column("embedding", Embed(model)(rows["text"])).exclude("text").write_parquet(out)


if __name__ == "__main__":
    model, source, out, *processes = sys.argv[1:]
    embed(model, source, out, *map(int, processes))
