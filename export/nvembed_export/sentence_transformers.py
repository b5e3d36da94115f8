"""The files that sentence-transformers puts beside a model: what it would do before and after it.

A step that nvembed does not compute is an error: the embeddings would silently be others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nvembed_export.errors import ConfigError
from nvembed_export.files import is_there, read_json

MODULES, TEXTS, PROMPTS = "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"
KNOWN = ("Transformer", "Pooling", "Normalize")
# NVIDIA's model gives one vector per text, so the mean over it, and its first row, are that vector.
POOLINGS = ("pooling_mode_mean_tokens", "pooling_mode_cls_token")


@dataclass
class Pipeline:
    """What the files say. `normalizes` is None without modules.json."""

    max_length: int | None = None
    normalizes: bool | None = None
    notes: list[str] = field(default_factory=list)


def read_pipeline(directory: Path) -> Pipeline:
    """Read the files of sentence-transformers, if there are any. Raises ConfigError for steps that are not computed."""
    root = _root(directory)
    result = Pipeline()
    if root is not None:
        result.normalizes = _read_modules(root, directory)
    for folder in dict.fromkeys(path for path in (directory, root) if path is not None):
        _read_texts(folder / TEXTS, result)
        _read_prompts(folder / PROMPTS, result)
    return result


def _root(directory: Path) -> Path | None:
    """The folder with modules.json: this one, or the one above if its modules.json names this one."""
    if is_there(directory / MODULES, ConfigError):
        return directory
    above = directory.absolute().parent
    if is_there(above / MODULES, ConfigError):
        modules = read_json(above / MODULES, ConfigError, list)
        if any(isinstance(module, dict) and module.get("path") == directory.absolute().name for module in modules):
            return above
    return None


def _read_modules(root: Path, directory: Path) -> bool:
    path = root / MODULES
    kinds = []
    for module in read_json(path, ConfigError, list):
        kind = str(module.get("type", "")).rsplit(".", 1)[-1] if isinstance(module, dict) else ""
        if kind not in KNOWN:
            raise ConfigError(
                f"{path}: module `{module.get('type') if isinstance(module, dict) else module}` is not computed by "
                f"nvembed, supported: {', '.join(KNOWN)}; without it the embeddings would be others"
            )
        if kind == "Pooling":
            _check_pooling(root / str(module.get("path", "")) / "config.json")
        kinds.append(kind)
    if kinds[:1] != ["Transformer"]:
        raise ConfigError(f"{path}: the first module is {kinds[:1]}, expected Transformer")
    return "Normalize" in kinds


def _check_pooling(path: Path) -> None:
    if not is_there(path, ConfigError):
        return
    values = read_json(path, ConfigError)
    for key, value in values.items():
        if key.startswith("pooling_mode") and value not in (False, None, "mean", "cls") and key not in POOLINGS:
            raise ConfigError(f"{path}: `{key}` is {value!r}, supported: the mean; the embeddings would be others")


def _read_texts(path: Path, result: Pipeline) -> None:
    if not is_there(path, ConfigError):
        return
    values = read_json(path, ConfigError)
    if values.get("do_lower_case"):
        raise ConfigError(
            f"{path}: `do_lower_case` is {values['do_lower_case']!r}, supported: false; nvembed keeps the case of texts"
        )
    limit = values.get("max_seq_length")
    if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
        result.max_length = limit


def _read_prompts(path: Path, result: Pipeline) -> None:
    if not is_there(path, ConfigError):
        return
    values = read_json(path, ConfigError)
    if values.get("truncate_dim"):
        result.notes.append(
            f"{path.name} cuts embeddings to {values['truncate_dim']!r} numbers; nvembed gives all of them unless asked"
        )
    prompts: Any = values.get("prompts")
    prompts = {k: v for k, v in prompts.items() if isinstance(v, str) and v} if isinstance(prompts, dict) else {}
    default = values.get("default_prompt_name")
    if default in prompts:
        result.notes.append(
            f"sentence-transformers puts the prompt {prompts[default]!r} in front of every text; nvembed adds only the "
            "instruction of a call, so pass it there"
        )
    elif prompts:
        listed = ", ".join(f"{name}: {text!r}" for name, text in list(prompts.items())[:5])
        result.notes.append(f"the checkpoint has prompts, which nvembed does not add by itself: {listed}")
