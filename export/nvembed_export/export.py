"""The export of a checkpoint folder to a model folder, in one function."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from nvembed_export.checkpoint import Checkpoint
from nvembed_export.config import ModelConfig, load_config
from nvembed_export.errors import UsageError
from nvembed_export.external_data import DATA_FILE, ExternalData
from nvembed_export.golden import Observer, golden_document, ignore
from nvembed_export.large_channels import LargeChannels
from nvembed_export.manifest import NV_EMBED_LICENSE, manifest, read_card_name, read_license
from nvembed_export.modeling import build_model
from nvembed_export.naming import check_text, folder_name, source_name, version
from nvembed_export.output import MANIFEST_FILE, check_output, partial_folder
from nvembed_export.precision import Precision
from nvembed_export.quantization import ChannelQuantization
from nvembed_export.sentence_transformers import Pipeline, read_pipeline
from nvembed_export.targets import TARGETS, precision_for
from nvembed_export.tokenizer import load_tokenizer

GRAPH_FILE, TOKENIZER_FILE, GOLDEN_FILE = "model.onnx", "tokenizer.json", "golden.json"
DEFAULT_MAX_LENGTH, NV_EMBED_V2_MAX_LENGTH = 4096, 32768  # from the model cards
GOLDEN_NUMBER_BYTES, GOLDEN_ROWS, MANIFEST_BYTES = 16, 8, 65536  # to estimate the disk space needed
MOST_LARGE_BYTES = 7  # in percent of the weights of w8a8: float32 rows of one input in 64, beside codes of one byte


@dataclass(frozen=True)
class ExportOptions:
    """The caller's choices. None takes the checkpoint's value, or the default that depends on it.

    `adapter` is the folder of a LoRA adapter of PEFT that is merged into the weights. `layers` keeps only the first
    layers of the backbone, for tests at full width. The model's name says so in both cases. `tokenizer` is a folder
    whose tokenizer is taken instead of the checkpoint's. `ignore_config_keys` are unknown keys of config.json that do
    not change the embeddings.
    """

    precision: str = "fp16"
    activations: str | None = None
    block_size: int | None = None
    symmetric: bool | None = None
    accuracy_level: int | None = None
    pooler: str = "fused"
    target: str = "any"
    adapter: Path | None = None
    layers: int | None = None
    tokenizer: Path | None = None
    ignore_config_keys: tuple[str, ...] = ()
    max_length: int | None = None
    name: str | None = None
    license: str | None = None
    golden: bool = True
    force: bool = False


@dataclass(frozen=True)
class ExportSummary:
    """What was written. `notes` are what the user should know about the checkpoint, a sentence each."""

    folder: Path
    name: str
    license: str
    precision: str
    max_length: int
    data_bytes: int
    is_whole_model: bool
    notes: tuple[str, ...] = ()


class Progress(Protocol):
    """Receives the phases of an export and, within a phase, the number of bytes written."""

    def phase(self, description: str, total: int | None = None) -> None: ...

    def advance(self, amount: int) -> None: ...


class NoProgress:
    """Ignores all progress."""

    def phase(self, description: str, total: int | None = None) -> None:
        return

    def advance(self, amount: int) -> None:
        return


def export(
    checkpoint_dir: Path, target: Path, options: ExportOptions, progress: Progress | None = None
) -> ExportSummary:
    """Export the checkpoint in `checkpoint_dir` to the model folder `target` and return a summary.

    The folder appears only once all its files are complete. Memory stays at a few tensors, whatever the model's size.

    Raises ConfigError, CheckpointError or TokenizerError for the input, UsageError for options that contradict it or
    each other, and OutputError for the folder. None of them leaves partial output behind.
    """
    progress = progress or NoProgress()
    precision = precision_for(
        options.target,
        options.pooler,
        options.precision,
        options.activations,
        options.block_size,
        options.symmetric,
        options.accuracy_level,
    )
    graph_target = TARGETS[options.target]
    check_text("--name", options.name)
    check_text("--license", options.license)
    check_output(target, checkpoint_dir, options.force)

    config = load_config(checkpoint_dir, options.ignore_config_keys)
    pipeline = read_pipeline(checkpoint_dir)
    notes = [*config.notes, *pipeline.notes]
    tokenizer = load_tokenizer(options.tokenizer or checkpoint_dir, config.text)
    # The whole checkpoint is checked even if only some layers are exported, so that unexpected tensors are found.
    checkpoint = Checkpoint.open(checkpoint_dir, config, options.adapter)

    notes += [*checkpoint.notes, *tokenizer.notes]
    source = source_name(config.name_or_path, checkpoint_dir)
    name = options.name or folder_name(checkpoint_dir) or source
    if options.adapter is not None and options.name is None:  # nobody shall take it for the base model
        name = f"{name}+{Path(os.path.abspath(options.adapter)).name}"
    license = (options.license or read_license(checkpoint_dir) or NV_EMBED_LICENSE).lower()
    known = version(name, source, config.name_or_path, read_card_name(checkpoint_dir))
    max_length = _max_length(options.max_length, config, known, pipeline, notes)
    if pipeline.normalizes and not config.latent_attention.output_normalize:
        config = replace(config, latent_attention=replace(config.latent_attention, output_normalize=True))
        notes.append(
            "modules.json ends with Normalize, so embeddings have length 1, which config.json does not ask for"
        )
    whole = config
    config, name = _first_layers(options.layers, config, name)

    def build(precision: Precision) -> tuple[bytes, ExternalData]:
        model, data = build_model(checkpoint, config, precision, max_length, options.pooler, graph_target)
        return model.SerializeToString(), data

    def reference(observe: Observer = ignore) -> dict:
        return golden_document(checkpoint, config, tokenizer.tokenizer, max_length, _golden_phase(progress), observe)

    graph, data = build(precision)
    golden_bytes = GOLDEN_ROWS * GOLDEN_NUMBER_BYTES * config.text.hidden_size + MANIFEST_BYTES if options.golden else 0
    needed = data.total_bytes + len(graph) + len(tokenizer.content) + golden_bytes + MANIFEST_BYTES
    finds_large_channels = isinstance(precision.quantization, ChannelQuantization)
    if finds_large_channels:
        needed += MOST_LARGE_BYTES * data.total_bytes // 100

    with partial_folder(target, options.force, needed) as folder:
        golden_rows = None
        if finds_large_channels:  # inside, so that a disk that is too small is known before
            channels = LargeChannels()
            golden_rows = reference(channels.observe)
            graph, data = build(replace(precision, large_channels=channels.of))
        (folder / GRAPH_FILE).write_bytes(graph)
        (folder / TOKENIZER_FILE).write_bytes(tokenizer.content)
        progress.phase("writing weights", total=sum(item.nbytes for item in data.initializers))
        data_sha256 = data.write(folder / DATA_FILE, progress.advance)
        golden = None
        if options.golden:
            golden = {"file": GOLDEN_FILE, "sha256": _write_json(folder / GOLDEN_FILE, golden_rows or reference())}
        graph_facts = {
            "file": GRAPH_FILE,
            "target": options.target,
            "inputs": graph_target.tokens.INPUTS,
            "sha256": hashlib.sha256(graph).hexdigest(),
            "data_file": DATA_FILE,
            "data_sha256": data_sha256,
            "data_bytes": data.total_bytes,
        }
        model_facts = {"name": name, "source": source, "license": license}
        tokenizer_sha256 = hashlib.sha256(tokenizer.content).hexdigest()
        document = manifest(
            config, precision, options.pooler, max_length, model_facts, graph_facts, tokenizer_sha256, golden
        )
        _write_json(folder / MANIFEST_FILE, document)  # last, so that a folder with a manifest is complete
    return ExportSummary(
        target, name, license, precision.name, max_length, data.total_bytes, config == whole, tuple(notes)
    )


def _max_length(
    asked: int | None, config: ModelConfig, version: str | None, pipeline: Pipeline, notes: list[str]
) -> int:
    """What was asked for; else sentence-transformers' limit; else that of the model card; never more than positions."""
    positions = config.text.max_position_embeddings
    if asked is not None:
        if not 1 <= asked <= positions:
            raise UsageError(f"--max-length is {asked}, expected 1 to {positions} (max_position_embeddings)")
        return asked
    if pipeline.max_length is not None:
        notes.append(f"texts are cut at {min(pipeline.max_length, positions)} tokens, the checkpoint's max_seq_length")
        return min(pipeline.max_length, positions)
    limit = min(NV_EMBED_V2_MAX_LENGTH if version == "v2" else DEFAULT_MAX_LENGTH, positions)
    if version is None and limit < positions:
        notes.append(
            f"texts are cut at {limit} tokens, NV-Embed-v1's limit, since no name in the checkpoint says NV-Embed-v2; "
            f"it has positions for {positions}: choose with --max-length"
        )
    return limit


def _first_layers(asked: int | None, config: ModelConfig, name: str) -> tuple[ModelConfig, str]:
    """The configuration of the first `asked` layers, and a name that cannot be mistaken for the whole model's.

    The suffix is appended to --name too, so that no part can have the name of the whole model.
    """
    whole = config.text.num_hidden_layers
    if asked is None or asked == whole:
        return config, name
    if not 1 <= asked < whole:
        raise UsageError(f"--layers is {asked}, expected 1 to {whole} (num_hidden_layers)")
    config = replace(config, text=replace(config.text, num_hidden_layers=asked))
    return config, f"{name}-first-{asked}-of-{whole}-layers"


def _golden_phase(progress: Progress) -> Callable[[str], None]:
    return lambda step: progress.phase(f"float64 reference, {step}")


def _write_json(path: Path, document: dict) -> str:
    """Write a JSON document and return the SHA-256 of its bytes in hex."""
    content = (json.dumps(document, ensure_ascii=False, indent=2) + "\n").encode("utf-8")
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()
