"""NV-Embed in MTEB, with the instruction of each task for its queries."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.types import PromptType

from nvembed.arguments import instruction_for
from nvembed.embedder import Embedder


class NvEmbed(AbsEncoder):
    """An encoder of MTEB's protocol. Queries get the task's instruction, documents none, as in NVIDIA's evaluation.

    Tasks without documents, such as classification and similarity, give all texts the instruction.
    """

    def __init__(self, model: Embedder | str | os.PathLike[str], **options: Any) -> None:
        """Take an open model, or open a model folder with the options of `Embedder`."""
        self.model = model if isinstance(model, Embedder) else Embedder(model, **options)
        facts = self.model.facts
        self.mteb_model_meta = ModelMeta.create_empty(
            {
                "name": f"nvembed/{facts['name']}-{facts['precision']}",
                "revision": facts["digest"][:16],
                "embed_dim": facts["dim"],
                "max_tokens": facts["max_length"],
                "license": None,
                "use_instructions": True,
            }
        )

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **unused: Any,
    ) -> np.ndarray:
        """The embeddings of all batches, [N, D] float32."""
        texts = [text for batch in inputs for text in batch["text"]]
        task = None
        if prompt_type != PromptType.document:
            task = self.get_instruction(task_metadata, prompt_type)
        return self.model.encode(texts, prompt=instruction_for(task) if task else "")
