"""Ray Data: an actor that embeds batches.

rows.map_batches(
    nvembed.ray.Embed,
    fn_constructor_args=("MODEL",),
    fn_constructor_kwargs={"provider": "cuda"},
    batch_format="pyarrow",
    batch_size=1024,
    num_gpus=1,
    compute=ray.data.ActorPoolStrategy(size=8),
)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nvembed import Embedder


class Embed:
    """One open model. A batch is a table of pyarrow, whose column of texts is replaced by one of embeddings."""

    def __init__(
        self, model: str, text: str = "text", embedding: str = "embedding", task: str | None = None, **options: Any
    ) -> None:
        """Open `model` with the other options of `Embedder`. Without a `task`, texts are passages.

        On a CPU, the actor takes as many threads as Ray gave it processors: actors that each take all slow each other.
        """
        if options.get("provider", "cpu") == "cpu" and "threads" not in options and "intra_threads" not in options:
            options["threads"] = _processors()
        self.embedder = Embedder(model, **options)
        self.text, self.embedding, self.task = text, embedding, task

    def __call__(self, batch: Any) -> Any:
        """The batch with embeddings as fixed-size lists of f16, half of what Ray copies of f32."""
        import pyarrow

        rows = self.embedder.encode(batch[self.text].to_pylist(), task=self.task, precision="float16")
        values = np.ascontiguousarray(rows).reshape(-1)
        column = pyarrow.FixedSizeListArray.from_arrays(values, rows.shape[1])
        return batch.drop_columns([self.text]).append_column(self.embedding, column)


def _processors() -> int | None:
    try:
        import ray

        given = ray.get_runtime_context().get_assigned_resources().get("CPU", 0)
    except Exception:  # without Ray, or outside of it
        return None
    return max(1, int(given)) if given else None
