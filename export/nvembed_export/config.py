"""config.json, parsed and validated once, so that the rest of the exporter can rely on it.

The fields are those of NVIDIA's NV-Embed configuration (arXiv 2405.17428, model card) and of transformers' Mistral
configuration. PaddleNLP's configuration of the same model is flat: Mistral's fields alone, from which its code takes
the pooler's sizes too (paddlenlp/transformers/nv_embed/modeling.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nvembed_export.errors import ConfigError, UsageError
from nvembed_export.files import is_there, read_json
from nvembed_export.missing import explain

PADDLE_LATENTS = 512  # a constant of PaddleNLP's code
LARGEST_INTEGER = 2**31 - 1  # far beyond any model; products of a few such numbers can still be printed

# Keys that transformers' PretrainedConfig writes into every dump: generation defaults, bookkeeping and training
# options. None of them changes this model's forward pass; `tie_word_embeddings` is about an output layer, which this
# model has not. A key that is neither here nor read below must be neutral.
HARMLESS_KEYS = frozenset(
    """_attn_implementation _attn_implementation_autoset _name_or_path architectures attention_dropout
    attn_implementation auto_map begin_suppress_tokens bos_token_id chunk_size_feed_forward decoder_start_token_id
    diversity_penalty dtype early_stopping eos_token_id finetuning_task forced_bos_token_id forced_eos_token_id
    gradient_checkpointing id2label initializer_range is_decoder label2id length_penalty max_length min_length
    num_beam_groups num_beams num_labels num_return_sequences output_attentions output_hidden_states pad_token_id
    paddlenlp_version prefix problem_type repetition_penalty return_dict sep_token_id task_specific_params temperature
    tf_legacy_loss tie_word_embeddings tokenizer_class top_k top_p torch_dtype transformers_version typical_p
    unsloth_fixed unsloth_version use_cache""".split()
)

TOP_KEYS = frozenset(
    """model_type hidden_size text_config latent_attention_config padding_side is_mask_instruction add_eos
    add_pad_token mask_type vocab_size""".split()
)

# `sliding_window` is accepted and ignored: NVIDIA's bidirectional mask does not use it. The real model says 4096, yet
# every token attends to every other one at any distance.
TEXT_KEYS = frozenset(
    """model_type vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads
    head_dim hidden_act max_position_embeddings rms_norm_eps rope_theta rope_scaling rope_parameters sliding_window
    attention_bias""".split()
)

LATENT_KEYS = frozenset(
    """model_type num_latents_value num_cross_heads output_normalize hidden_dim latent_dim cross_dim_head""".split()
)


@dataclass(frozen=True)
class TextConfig:
    """The backbone: Mistral's decoder layers."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    bos_token_id: int
    eos_token_id: int


@dataclass(frozen=True)
class LatentAttentionConfig:
    """The pooler: latents, cross attention, feed-forward."""

    num_latents_value: int
    num_cross_heads: int
    cross_dim_head: int
    feed_forward_dim: int
    output_normalize: bool


@dataclass(frozen=True)
class ModelConfig:
    """The configuration of a checkpoint; `name_or_path` is empty if config.json does not have it."""

    name_or_path: str
    text: TextConfig
    latent_attention: LatentAttentionConfig
    notes: tuple[str, ...] = ()


class _Ignored:
    """Keys that the user declared to be without effect: `key`, or `section.key`."""

    def __init__(self, keys: Iterable[str]):
        self.keys, self.used, self.notes = tuple(keys), set[str](), list[str]()

    def has(self, section: _Section, key: str, value: Any) -> bool:
        """Whether this unknown key is one of them."""
        full = f"{section.path}.{key}" if section.path else key
        names = {name for name in (key, full) if name in self.keys}
        if names:
            self.used |= names
            self.notes.append(f"config.json: `{full}` is {_show(value)}, which was ignored as asked")
        return bool(names)

    def check(self) -> None:
        """Raise UsageError for a key that was not met: a spelling mistake, or a key whose value does matter."""
        if rest := [key for key in self.keys if key not in self.used]:
            raise UsageError(
                f"--ignore-config-key is {rest[0]}, but config.json has no unknown key of that name with a value that "
                "is not neutral; keys that nvembed reads cannot be ignored"
            )


class _Section:
    """One JSON object of config.json; `path` identifies it in messages."""

    def __init__(self, values: Any, path: str, ignored: _Ignored):
        if not isinstance(values, dict):
            raise ConfigError(f"config.json: `{path}` is {_show(values)}, expected an object")
        self.values, self.path, self.ignored = values, path, ignored

    def label(self, key: str) -> str:
        return f"config.json: `{self.path}.{key}`" if self.path else f"config.json: `{key}`"

    def integer(self, key: str, default: int | None = None, least: int = 1) -> int:
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if key not in self.values:
            raise ConfigError(f"{self.label(key)} is missing, expected an integer of at least {least}")
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(f"{self.label(key)} is {_show(value)}, expected an integer of at least {least}")
        if value > LARGEST_INTEGER:
            raise ConfigError(f"{self.label(key)} is {_show(value)}, expected an integer of at most {LARGEST_INTEGER}")
        return value

    def positive_float(self, key: str) -> float:
        value = self.values.get(key)
        if key not in self.values:
            raise ConfigError(f"{self.label(key)} is missing, expected a positive number")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        try:
            number = float(value) if is_number else math.nan
        except OverflowError:  # an integer beyond float64
            number = math.inf
        if not math.isfinite(number) or number <= 0:
            raise ConfigError(f"{self.label(key)} is {_show(value)}, expected a positive number")
        return number

    def boolean(self, key: str, default: bool) -> bool:
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise ConfigError(f"{self.label(key)} is {_show(value)}, expected true or false")
        return value

    def must_be(self, key: str, *supported: Any, absent_is_fine: bool = True) -> None:
        """Reject unsupported values. Types are compared too, because `True == 1` in Python."""
        if key not in self.values and absent_is_fine:
            return
        value = self.values.get(key)
        if not any(type(value) is type(choice) and value == choice for choice in supported):
            choices = " or ".join(_show(choice) for choice in supported)
            raise ConfigError(f"{self.label(key)} is {_show(value)}, supported: {choices}")

    def reject_unknown(self, known: frozenset[str]) -> None:
        for key, value in self.values.items():
            neutral = value is None or value is False or value in (0, "", [], {})
            if key in known or key in HARMLESS_KEYS or neutral or self.ignored.has(self, key, value):
                continue
            if key == "layer_types" and isinstance(value, list) and set(map(str, value)) == {"full_attention"}:
                continue
            raise ConfigError(
                f"{self.label(key)} is {_show(value)}, but this key is unknown: only a neutral value (null, false, 0 "
                "or empty) is accepted; if it does not change the embeddings, add `--ignore-config-key "
                f"{self.path + '.' if self.path else ''}{key}`"
            )


def load_config(checkpoint_dir: Path, ignored: Iterable[str] = ()) -> ModelConfig:
    """Read and validate the config.json of a checkpoint folder.

    Keys in `ignored` may have any value, if they are keys that would otherwise be refused as unknown.

    Raises ConfigError if it is missing or not JSON, or describes a model the graph does not implement.
    """
    path = checkpoint_dir / "config.json"
    if not is_there(path, ConfigError):
        raise ConfigError(f"{path}: no such file, expected the folder of a checkpoint; {explain(checkpoint_dir)}")
    return parse_config(read_json(path, ConfigError), ignored)


def parse_config(values: Any, ignored: Iterable[str] = ()) -> ModelConfig:
    """Validate decoded JSON. Raises ConfigError as `load_config` does."""
    ignore = _Ignored(ignored)
    top = _Section(values, "", ignore)
    config = _parse(top)
    ignore.check()
    return replace(config, notes=tuple(ignore.notes))


def _parse(top: _Section) -> ModelConfig:
    if "text_config" not in top.values and "latent_attention_config" not in top.values:
        mine = top.values.get("model_type") == "nvembed"
        if not mine and any(key in top.values for key in ("num_hidden_layers", "num_attention_heads")):
            return _parse_flat(top)
    top.must_be("model_type", "nvembed")
    top.must_be("padding_side", "right")
    top.must_be("mask_type", "b")
    top.must_be("is_mask_instruction", True)
    top.must_be("add_eos", True)
    top.must_be("add_pad_token", True)
    top.reject_unknown(TOP_KEYS)
    if "text_config" not in top.values:
        raise ConfigError("config.json: `text_config` is missing, expected an object")
    text = _parse_text(_Section(top.values["text_config"], "text_config", top.ignored))
    top.must_be("hidden_size", text.hidden_size)
    top.must_be("vocab_size", text.vocab_size, None)
    latent_values = top.values.get("latent_attention_config")
    latent = _parse_latent(
        _Section({} if latent_values is None else latent_values, "latent_attention_config", top.ignored), text
    )
    return ModelConfig(_name(top), text, latent)


def _name(top: _Section) -> str:
    name = top.values.get("_name_or_path")
    name = name if isinstance(name, str) else ""
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise ConfigError(f"config.json: `_name_or_path` is {name!a}, expected text without lone surrogates")
    return name


def _parse_flat(top: _Section) -> ModelConfig:
    """PaddleNLP's form. Its pooler has as many cross heads as there are key/value heads, and is as wide as there are
    positions: so wide are all heads together, and the two halves of the feed-forward layer. The latents are 512.
    """
    text = _parse_text(top)
    width, heads = text.max_position_embeddings, text.num_key_value_heads
    if width % heads or width % 2:
        raise ConfigError(
            f"{top.label('max_position_embeddings')} is {width}, expected an even multiple of num_key_value_heads "
            f"({heads}): in a configuration without `text_config`, as PaddleNLP writes it, it is the pooler's width too"
        )
    latent = LatentAttentionConfig(
        num_latents_value=PADDLE_LATENTS,
        num_cross_heads=heads,
        cross_dim_head=width // heads,
        feed_forward_dim=width // 2,
        output_normalize=True,
    )
    return ModelConfig(_name(top), text, latent)


def _parse_text(section: _Section) -> TextConfig:
    section.must_be("model_type", "bidir_mistral", "mistral", "")
    section.must_be("hidden_act", "silu")
    section.must_be("attention_bias", False, None)
    section.reject_unknown(TEXT_KEYS)
    hidden, heads = section.integer("hidden_size"), section.integer("num_attention_heads")
    kv_heads = section.integer("num_key_value_heads")
    if heads % kv_heads:
        raise ConfigError(
            f"{section.label('num_attention_heads')} is {heads}, expected a multiple of num_key_value_heads "
            f"({kv_heads})"
        )
    if section.values.get("head_dim") is None and hidden % heads:
        raise ConfigError(
            f"{section.label('hidden_size')} is {hidden}, expected a multiple of num_attention_heads ({heads}) "
            "or an explicit head_dim"
        )
    head_dim = section.integer("head_dim", default=max(hidden // heads, 1))
    if head_dim % 2:
        raise ConfigError(
            f"{section.label('head_dim')} is {head_dim}, expected an even number (rotary embeddings rotate pairs)"
        )
    vocab_size = section.integer("vocab_size")
    special = {}
    for key, default in (("bos_token_id", 1), ("eos_token_id", 2)):
        special[key] = section.integer(key, default=default, least=0)
        if special[key] >= vocab_size:
            raise ConfigError(f"{section.label(key)} is {special[key]}, expected an id below vocab_size ({vocab_size})")
    return TextConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=section.integer("intermediate_size"),
        num_hidden_layers=section.integer("num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        max_position_embeddings=section.integer("max_position_embeddings"),
        rms_norm_eps=section.positive_float("rms_norm_eps"),
        rope_theta=_rope_theta(section),
        **special,
    )


def _rope_theta(section: _Section) -> float:
    """rope_theta from the section itself or from `rope_parameters` (newer transformers). Rejects RoPE scaling."""
    for key in ("rope_scaling", "rope_parameters"):
        value = section.values.get(key)
        if value is None:
            continue
        inner = _Section(value, f"{section.path}.{key}", section.ignored)
        inner.must_be("rope_type", "default")
        inner.must_be("type", "default")
        inner.reject_unknown(frozenset({"rope_type", "type", "rope_theta"}))
    parameters = section.values.get("rope_parameters") or {}
    if "rope_theta" not in parameters:
        return section.positive_float("rope_theta")
    inside = _Section(parameters, f"{section.path}.rope_parameters", section.ignored).positive_float("rope_theta")
    if section.values.get("rope_theta") is not None and section.positive_float("rope_theta") != inside:
        outside = section.values["rope_theta"]
        raise ConfigError(
            f"{section.label('rope_theta')} is {outside}, expected the same value as rope_parameters.rope_theta "
            f"({inside})"
        )
    return inside


def _parse_latent(section: _Section, text: TextConfig) -> LatentAttentionConfig:
    section.must_be("model_type", "latent_attention")
    section.reject_unknown(LATENT_KEYS)
    for key in ("hidden_dim", "latent_dim"):
        value = section.integer(key, default=4096)
        if value != text.hidden_size:
            raise ConfigError(
                f"{section.label(key)} is {value}, expected the value of text_config.hidden_size ({text.hidden_size})"
            )
    return LatentAttentionConfig(
        num_latents_value=section.integer("num_latents_value", default=512),
        num_cross_heads=section.integer("num_cross_heads", default=8),
        cross_dim_head=section.integer("cross_dim_head", default=4096),
        feed_forward_dim=4 * text.hidden_size,
        output_normalize=section.boolean("output_normalize", default=True),
    )


def _show(value: Any) -> str:
    """A value as JSON, cut to 80 characters."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError:  # json.loads can read deeper nesting than json.dumps can write
        return "a deeply nested value"
    return text if len(text) <= 80 else text[:77] + "..."
