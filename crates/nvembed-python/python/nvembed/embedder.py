"""`Embedder`: a model with the methods, names and meanings of sentence-transformers' `SentenceTransformer`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvembed import _onnxruntime
from nvembed._nvembed import DEFAULT_TASK, DeviceRows, Model
from nvembed.arguments import as_list, converted, instruction_for, settings, unit
from nvembed.errors import LibraryError, OptionError, ProviderError

#: Texts that are embedded between two steps of the progress bar.
WINDOW = 1024


class Embedder:
    """An NV-Embed model that is open.

    Texts become rows of `get_embedding_dimension()` numbers, of length 1. An instruction is read by the model and left
    out of the mean, as in NVIDIA's code. An Embedder may be used by many threads; it can be pickled, as its path and
    options, and is opened anew where it arrives.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        provider: str = "cpu",
        threads: int | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        max_seq_length: int | None = None,
        truncate_dim: int | None = None,
        truncation: str = "reference",
        **options: Any,
    ) -> None:
        """Open a model folder that `nvembed-export`, `nvembed.export` or `from_checkpoint` made.

        `provider` is cpu, cuda, tensorrt, openvino or nv-tensorrt-rtx; one that cannot be used raises ProviderError.
        `prompts` maps names to literal instructions, and is added to "query" and "document". Texts of more than
        `max_seq_length` tokens are cut as `truncation` says: reference (NVIDIA's way), keep-eos, start, or error.
        `options` are the other options of opening a model, by their names in Rust: `intra_threads`, `cache`,
        `self_check`, `device_ids`, `memory_limit`, `cuda_graphs`, `library` ...

        Raises LibraryError without ONNX Runtime, ModelError for a folder that is no model, OptionError for an argument.
        """
        given = {"provider": provider, "intra_threads": threads, **options}
        opening = dict(given)
        if opening.get("library") is None and "ORT_DYLIB_PATH" not in os.environ:
            opening["library"] = _onnxruntime.library()
        if opening.get("provider_library") is None:
            opening["provider_library"] = _onnxruntime.plugin(provider)
        try:
            self._model = Model.open(Path(model), opening)
        except (LibraryError, ProviderError) as error:
            error.add_note(f"ONNX Runtime comes from PyPI: {_onnxruntime.advice(provider)}")
            raise
        facts = self._model.facts
        self._dimension: int = facts["dim"]
        #: The model's name, source, licence, digest, precision, target, dimension and longest row in tokens.
        self.facts: dict[str, Any] = facts
        #: Named instructions.
        self.prompts: dict[str, str] = {"query": instruction_for(DEFAULT_TASK), "document": "", **(prompts or {})}
        #: The instruction of `encode` without another.
        self.default_prompt_name = default_prompt_name
        #: The longest row in tokens, with <s> and </s>.
        self.max_seq_length: int = facts["max_length"] if max_seq_length is None else max_seq_length
        #: How many of the embedding's numbers are returned, unless a call says otherwise.
        self.truncate_dim = truncate_dim
        self.truncation = truncation
        named = {
            "prompts": prompts,
            "default_prompt_name": default_prompt_name,
            "max_seq_length": max_seq_length,
            "truncate_dim": truncate_dim,
            "truncation": truncation,
        }
        self._arguments = (os.fspath(model), {**given, **named})
        if default_prompt_name is not None:
            self._instruction(default_prompt_name, None)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | os.PathLike[str],
        *,
        precision: str | None = None,
        target: str | None = None,
        provider: str = "cpu",
        cache_folder: str | os.PathLike[str] | None = None,
        token: str | None = None,
        revision: str | None = None,
        export_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Embedder:
        """Export a checkpoint once, into a cache, and open the model.

        `checkpoint` is a folder, or an id of the Hugging Face hub, which is downloaded with the user's token (extra
        `hub`). `precision` and `target` default to what suits the provider: int8 for cpu, fp16 for cuda. Raises
        CheckpointError.
        """
        from nvembed.exporting import cached

        folder = cached(checkpoint, provider, precision, target, cache_folder, token, revision, export_options or {})
        return cls(folder, provider=provider, **options)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, self._arguments

    def __repr__(self) -> str:
        facts = self.facts
        return f"Embedder({facts['name']!r}, {facts['precision']}, provider={self._arguments[1]['provider']!r})"

    # What is asked of the model.

    def get_embedding_dimension(self) -> int:
        """The number of numbers of an embedding."""
        return self._dimension if self.truncate_dim is None else self.truncate_dim

    get_sentence_embedding_dimension = get_embedding_dimension

    @property
    def device(self) -> str:
        """Where the model runs."""
        return "cuda" if self._arguments[1]["provider"] in ("cuda", "tensorrt", "nv-tensorrt-rtx") else "cpu"

    def tokenize(
        self, texts: str | Sequence[str], *, prompt_name: str | None = None, prompt: str | None = None
    ) -> dict:
        """The token ids of texts and the model's two masks, each [N, S] int64, padded on the right with 0.

        They are `input_ids`, `attention_mask`, and `pool_mask`, which is 0 for the instruction: that is not pooled.
        """
        texts, _ = as_list(texts)
        rows = self._model.tokenize(texts, [self._instruction(prompt_name, prompt)], self._call({}))
        length = max((len(ids) for ids, *_ in rows), default=0)
        out = {name: np.zeros((len(rows), length), np.int64) for name in ("input_ids", "attention_mask", "pool_mask")}
        for row, (ids, instruction, _) in enumerate(rows):
            out["input_ids"][row, : len(ids)] = ids
            out["attention_mask"][row, : len(ids)] = 1
            out["pool_mask"][row, instruction : len(ids)] = 1
        return out

    def warm_up(self, max_seq_length: int | None = None) -> int:
        """Prepare a GPU for all shapes that calls can need; returns their number, which is 0 on a CPU."""
        return self._model.warm_up(self._call({"max_length": max_seq_length or self.max_seq_length}))

    # Embedding.

    def encode(
        self,
        inputs: str | Iterable[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: str = "sentence_embedding",
        precision: str = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | None = None,
        normalize_embeddings: bool = True,
        truncate_dim: int | None = None,
        *,
        task: str | None = None,
        **unknown: Any,
    ) -> Any:
        """Embed texts: [N, D] float32, or [D] for one string.

        The instruction is `prompt`, as it is; or that of `prompt_name` in `prompts`; or that of `task`, one English
        sentence; or none. `batch_size` is the most rows of a run; by default, batches are planned by tokens.
        `precision` is float32, float16, or signs of eight numbers a byte as binary (int8) or ubinary (uint8).
        `truncate_dim` keeps the first numbers, brought back to length 1. `convert_to_tensor` gives a PyTorch tensor
        that shares the memory.

        Raises OptionError for what cannot be honoured: embeddings that are not normalized, tokens' embeddings, another
        device, int8 and uint8 by ranges of other embeddings. Ctrl-C ends the call.
        """
        # Its name until sentence-transformers 5.
        inputs = unknown.pop("sentences", None) if inputs is None else inputs
        self._refuse(output_value, device, normalize_embeddings, unknown)
        options = self._call(
            settings(precision, batch_size, self.truncate_dim if truncate_dim is None else truncate_dim)
        )
        texts, single = as_list(inputs)
        instruction = self._instruction(prompt_name, prompt, task)
        values = self._all(texts, instruction, options, show_progress_bar)
        return converted(values, precision, single, convert_to_numpy, convert_to_tensor)

    def encode_query(
        self, inputs: str | Iterable[str] | None = None, prompt_name: str | None = None, **arguments: Any
    ) -> Any:
        """Embed queries: `encode` with the prompt "query", unless `prompt_name`, `prompt` or `task` say another."""
        return self.encode(inputs, self._default(prompt_name, "query", arguments), **arguments)

    def encode_document(
        self, inputs: str | Iterable[str] | None = None, prompt_name: str | None = None, **arguments: Any
    ) -> Any:
        """Embed documents: `encode` with the instruction of the prompt "document", which is none."""
        return self.encode(inputs, self._default(prompt_name, "document", arguments), **arguments)

    def encode_on_device(
        self,
        inputs: str | Iterable[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        task: str | None = None,
    ) -> DeviceRows:
        """Embed texts as one batch and leave the rows on the GPU: [N, D] in the model's float16 or float32, complete.

        `torch.from_dlpack(rows)`, CuPy and JAX take them over without a copy. Raises OptionError for a model that is
        not open on a GPU, for more texts than one batch holds, and with a `truncate_dim`.
        """
        texts, _ = as_list(inputs)
        instruction = self._instruction(prompt_name, prompt, task)
        return self._model.embed_on_device(texts, [instruction], self._call({"dimensions": self.truncate_dim}))

    async def aencode(
        self,
        inputs: str | Iterable[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        task: str | None = None,
        timeout: float | None = None,
        precision: str = "float32",
        truncate_dim: int | None = None,
    ) -> Any:
        """Embed texts without blocking the event loop, together with the texts of other tasks.

        They go through one queue, in which few texts do not wait behind many. Cancelling the task gives up its rows.
        Raises TimeoutError when it takes longer than `timeout` seconds, OverloadedError when the queue is full.
        """
        dimensions = self.truncate_dim if truncate_dim is None else truncate_dim
        options = self._call({**settings(precision, None, dimensions), "timeout": timeout})
        texts, single = as_list(inputs)
        instruction = self._instruction(prompt_name, prompt, task)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[dict[str, Any]] = loop.create_future()

        def tell(result: dict[str, Any] | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result or {})

        def on_done(result: dict[str, Any] | None, error: BaseException | None) -> None:
            # A loop that was closed has nobody who waits.
            if not loop.is_closed():
                loop.call_soon_threadsafe(tell, result, error)

        # Tokenizing takes a while for many texts.
        pending = await asyncio.to_thread(self._model.submit, texts, [instruction], options, on_done)
        try:
            result = await (asyncio.wait_for(future, timeout) if timeout is not None else future)
        finally:
            pending.cancel()
        return converted(result["values"], precision, single, True, False)

    async def aencode_query(
        self, inputs: str | Iterable[str] | None = None, prompt_name: str | None = None, **arguments: Any
    ) -> Any:
        """As `encode_query`, through the queue."""
        return await self.aencode(inputs, self._default(prompt_name, "query", arguments), **arguments)

    async def aencode_document(
        self, inputs: str | Iterable[str] | None = None, prompt_name: str | None = None, **arguments: Any
    ) -> Any:
        """As `encode_document`, through the queue."""
        return await self.aencode(inputs, self._default(prompt_name, "document", arguments), **arguments)

    # Comparing.

    @staticmethod
    def similarity(one: Any, other: Any) -> NDArray[np.float32]:
        """The cosine of each row of `one` with each of `other`: [N, M]."""
        return unit(one) @ unit(other).T

    @staticmethod
    def similarity_pairwise(one: Any, other: Any) -> NDArray[np.float32]:
        """The cosine of each row of `one` with the same of `other`: [N]."""
        return (unit(one) * unit(other)).sum(axis=-1)

    # Helpers.

    def _call(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"max_length": self.max_seq_length, "truncation": self.truncation, **options}

    @staticmethod
    def _default(prompt_name: str | None, name: str, arguments: Mapping[str, Any]) -> str | None:
        has_another = arguments.get("prompt") is not None or arguments.get("task") is not None
        return name if prompt_name is None and not has_another else prompt_name

    def _instruction(self, prompt_name: str | None, prompt: str | None, task: str | None = None) -> str:
        if sum(value is not None for value in (prompt_name, prompt, task)) > 1:
            raise OptionError("`prompt_name`, `prompt` and `task` each say the instruction; give one of them")
        if prompt is not None:
            return prompt
        if task is not None:
            return instruction_for(task)
        name = self.default_prompt_name if prompt_name is None else prompt_name
        if name is None:
            return ""
        if name not in self.prompts:
            raise OptionError(f"there is no prompt named {name!r}; there are {', '.join(map(repr, self.prompts))}")
        return self.prompts[name]

    def _refuse(
        self, output_value: str, device: str | None, normalize_embeddings: bool, unknown: Mapping[str, Any]
    ) -> None:
        if output_value != "sentence_embedding":
            raise OptionError(f"`output_value` is {output_value!r}; the graph returns 'sentence_embedding' only")
        if not normalize_embeddings:
            raise OptionError(
                "`normalize_embeddings` is False; the graph ends with the normalization, as NVIDIA's does"
            )
        if device is not None and device.split(":")[0] != self.device:
            raise OptionError(
                f"`device` is {device!r}, but the model was opened on {self.device}; open it with `provider`"
            )
        for name, value in unknown.items():
            if value is not None:
                raise OptionError(f"there is no argument `{name}`, or it cannot be honoured here; leave it out")

    def _all(self, texts: list[str], instruction: str, options: dict, show_progress_bar: bool | None) -> NDArray[Any]:
        if not show_progress_bar or len(texts) <= WINDOW:
            return self._model.embed(texts, [instruction], options)["values"]
        from tqdm.auto import tqdm

        # The longest first, so that windows hold texts of like length and the estimate errs on the safe side.
        order = np.argsort([-len(text) for text in texts], kind="stable")
        out = None
        with tqdm(total=len(texts), desc="Texts", unit="text") as bar:
            for start in range(0, len(texts), WINDOW):
                some = order[start : start + WINDOW]
                values = self._model.embed([texts[index] for index in some], [instruction], options)["values"]
                out = np.empty((len(texts), values.shape[1]), values.dtype) if out is None else out
                out[some] = values
                bar.update(len(some))
        return out


def _reopen(model: str, arguments: dict[str, Any]) -> Embedder:
    return Embedder(model, **arguments)
