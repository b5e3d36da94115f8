"""nvembed.json, the manifest of a model folder. docs/guides/model-folder.md describes its format."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

from nvembed_export import __version__
from nvembed_export.config import ModelConfig
from nvembed_export.graph import OPSET
from nvembed_export.precision import Precision

SCHEMA_VERSION = 1
NV_EMBED_LICENSE = "cc-by-nc-4.0"  # NVIDIA's licence for NV-Embed v1 and v2
_NOT_ARCHITECTURE = ("max_position_embeddings", "bos_token_id", "eos_token_id")


def read_license(checkpoint_dir: Path) -> str | None:
    """`license:` from the YAML front matter of README.md, in lower case; None if there is none."""
    line = re.search(r"^license:[ \t]*([^\s#]+)", _front_matter(checkpoint_dir), re.MULTILINE)
    return line[1].strip("\"'").lower() if line else None


def read_card_name(checkpoint_dir: Path) -> str:
    """The model's name in the `model-index:` of README.md's front matter; empty if there is none."""
    line = re.search(r"^model-index:[ \t]*\n[ \t]*- name:[ \t]*(\S+)", _front_matter(checkpoint_dir), re.MULTILINE)
    return line[1].strip("\"'") if line else ""


def _front_matter(checkpoint_dir: Path) -> str:
    try:
        text = (checkpoint_dir / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    front = re.match(r"\s*---[ \t]*\r?\n(.*?)\n---[ \t]*(\r?\n|$)", text, re.DOTALL)
    return front[1] if front else ""


def _quantization(precision: Precision) -> dict | None:
    if precision.quantization is None:
        return None
    return asdict(precision.quantization) | {"activations": str(precision.narrow.numpy())}


def manifest(
    config: ModelConfig,
    precision: Precision,
    pooler: str,
    max_length: int,
    model: dict[str, str],
    graph_facts: dict,
    tokenizer_sha256: str,
    golden: dict[str, str] | None,
) -> dict:
    """The content of nvembed.json; `graph_facts` has target, inputs, and the files with their checksums and sizes."""
    text = {key: value for key, value in asdict(config.text).items() if key not in _NOT_ARCHITECTURE}
    inputs = [{"name": name, "dtype": "int64", "shape": dims} for name, dims in graph_facts["inputs"].items()]
    dtype = str(precision.output.numpy())
    output = {"name": "embeddings", "dtype": dtype, "shape": ["batch", config.text.hidden_size]}
    return {
        "schema_version": SCHEMA_VERSION,
        "exporter_version": __version__,
        "model": model,
        "architecture": text | asdict(config.latent_attention),
        "precision": precision.name,
        "quantization": _quantization(precision),
        "pooler": pooler,
        "max_length": max_length,
        "graph": graph_facts | {"opset": OPSET, "inputs": inputs, "outputs": [output]},
        "tokenizer": {
            "file": "tokenizer.json",
            "sha256": tokenizer_sha256,
            "bos_token_id": config.text.bos_token_id,
            "eos_token_id": config.text.eos_token_id,
            # Padding is masked everywhere, so its id does not affect results; NVIDIA pads with </s>.
            "pad_token_id": config.text.eos_token_id,
        },
        "prompt": {"query_template": "Instruct: {task}\nQuery: ", "suffix": "</s>"},
        "golden": golden,
    }
