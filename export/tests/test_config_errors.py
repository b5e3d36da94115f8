"""A configuration the graph does not implement is rejected; the message names the key and both values."""

from __future__ import annotations

import json

import pytest
from failing import assert_fails

from nvembed_export.config import HARMLESS_KEYS, load_config, parse_config
from nvembed_export.errors import ConfigError, UsageError
from nvembed_export.export import ExportOptions

TEXT, LATENT = "text_config", "latent_attention_config"


def change(checkpoint, section: str, **values) -> None:
    """Set keys of config.json; `...` as a value removes the key."""
    path = checkpoint / "config.json"
    config = json.loads(path.read_text())
    target = config[section] if section else config
    for key, value in values.items():
        if value is ...:
            target.pop(key, None)
        else:
            target[key] = value
    path.write_text(json.dumps(config))


UNSUPPORTED = [
    ("", {"model_type": "llama"}, ['"llama"', '"nvembed"']),
    ("", {"padding_side": "left"}, ["`padding_side`", '"left"', '"right"']),
    ("", {"mask_type": "c"}, ["`mask_type`", '"c"', '"b"']),
    ("", {"is_mask_instruction": False}, ["`is_mask_instruction`", "false", "true"]),
    ("", {"add_eos": False}, ["`add_eos`", "false", "true"]),
    ("", {"add_eos": 1}, ["`add_eos`", "1", "true"]),
    ("", {"hidden_size": 48}, ["`hidden_size`", "48", "32"]),
    ("", {"quantization_config": {"bits": 4}}, ["`quantization_config`", '{"bits": 4}', "neutral"]),
    ("", {"_name_or_path": "a/\ud800"}, ["`_name_or_path`", r"'a/\ud800'", "surrogates"]),
    ("", {TEXT: ...}, ["`text_config`", "missing"]),
    ("", {TEXT: [1]}, ["`text_config`", "[1]", "object"]),
    (TEXT, {"model_type": "llama"}, ['"llama"', '"bidir_mistral"']),
    (TEXT, {"hidden_act": "gelu"}, ["`text_config.hidden_act`", '"gelu"', '"silu"']),
    (TEXT, {"attention_bias": True}, ["`text_config.attention_bias`", "true", "false"]),
    (
        TEXT,
        {"layer_types": ["full_attention", "sliding_attention"]},
        ["layer_types", "--ignore-config-key text_config."],
    ),
    ("", {"vocab_size": 7}, ["`vocab_size`", "7", "384"]),
    (TEXT, {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, ["rope_scaling.rope_type", '"yarn"', '"default"']),
    (TEXT, {"rope_scaling": {"type": "linear", "factor": 2.0}}, ["rope_scaling.type", '"linear"', '"default"']),
    (TEXT, {"rope_scaling": {"factor": 2.0}}, ["rope_scaling.factor", "2.0", "neutral"]),
    (TEXT, {"rope_parameters": {"rope_type": "llama3"}}, ["rope_parameters.rope_type", '"llama3"', '"default"']),
    (TEXT, {"rope_parameters": {"rope_theta": 5e5}}, ["rope_theta", "10000.0", "500000.0"]),
    (TEXT, {"rope_theta": ...}, ["`text_config.rope_theta`", "missing", "positive number"]),
    (TEXT, {"rope_theta": -1}, ["`text_config.rope_theta`", "-1", "positive number"]),
    (TEXT, {"rms_norm_eps": "small"}, ["`text_config.rms_norm_eps`", '"small"', "positive number"]),
    (TEXT, {"rms_norm_eps": 10**400}, ["`text_config.rms_norm_eps`", "1000", "positive number"]),
    (TEXT, {"rms_norm_eps": float("nan")}, ["`text_config.rms_norm_eps`", "NaN", "positive number"]),
    (TEXT, {"num_hidden_layers": ...}, ["`text_config.num_hidden_layers`", "missing", "integer"]),
    (TEXT, {"num_hidden_layers": 0}, ["`text_config.num_hidden_layers`", "0", "at least 1"]),
    (TEXT, {"num_hidden_layers": True}, ["`text_config.num_hidden_layers`", "true", "integer"]),
    (TEXT, {"num_hidden_layers": 1.5}, ["`text_config.num_hidden_layers`", "1.5", "integer"]),
    (TEXT, {"head_dim": 2**31}, ["`text_config.head_dim`", "2147483648", "at most 2147483647"]),
    (TEXT, {"num_key_value_heads": 3}, ["num_attention_heads", "4", "multiple of num_key_value_heads (3)"]),
    (TEXT, {"num_attention_heads": 6, "head_dim": None}, ["hidden_size", "32", "6", "head_dim"]),
    (TEXT, {"head_dim": 7}, ["`text_config.head_dim`", "7", "even"]),
    (TEXT, {"bos_token_id": 384}, ["`text_config.bos_token_id`", "384"]),
    (TEXT, {"logit_softcap": 30.0}, ["`text_config.logit_softcap`", "30.0", "neutral"]),
    (LATENT, {"hidden_dim": 64}, ["`latent_attention_config.hidden_dim`", "64", "32"]),
    (LATENT, {"latent_dim": 64}, ["`latent_attention_config.latent_dim`", "64", "32"]),
    (LATENT, {"output_normalize": "yes"}, ["output_normalize", '"yes"', "true or false"]),
    (LATENT, {"num_latents_value": -5}, ["num_latents_value", "-5", "at least 1"]),
    (LATENT, {"model_type": "perceiver"}, ['"perceiver"', '"latent_attention"']),
    (LATENT, {"depth": 2}, ["`latent_attention_config.depth`", "2", "neutral"]),
]


@pytest.mark.parametrize(
    ("section", "values", "fragments"), UNSUPPORTED, ids=lambda value: str(value)[:40].replace("/", "")
)
def test_unsupported_value_is_rejected(small, out, section, values, fragments):
    change(small, section, **values)
    assert_fails(small, out, ConfigError, *fragments)


def test_missing_config_is_rejected(small, out):
    (small / "config.json").unlink()
    assert_fails(small, out, ConfigError, "config.json", "no such file", "the folder has README.md, model.safetensors")


@pytest.mark.parametrize(
    "content",
    ["", "{", "[1, 2]", "\xff", "[" * 200_000, "9" * 5_000],
    ids=["empty", "unfinished", "list", "not-utf-8", "deep", "long-integer"],
)
def test_invalid_config_is_rejected(small, out, content):
    (small / "config.json").write_bytes(content.encode("latin-1"))
    assert_fails(small, out, ConfigError, "config.json", "expected an object")


def test_value_nested_too_deeply_to_print_is_rejected():
    value = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ConfigError, match="`model_type` is a deeply nested value"):
        parse_config({"model_type": value})


def test_max_length_out_of_range_is_a_usage_error(small, out):
    for asked in (513, 0):
        assert_fails(small, out, UsageError, str(asked), "512", options=ExportOptions(max_length=asked))


def test_neutral_and_known_bookkeeping_keys_are_accepted(small):
    change(small, TEXT, layer_types=["full_attention", "full_attention"])
    change(small, "", vocab_size=384)
    dump = dict.fromkeys(HARMLESS_KEYS - {"bos_token_id", "eos_token_id"}, "anything")
    neutral = {"new_in_transformers_9": None, "use_new_thing": False, "new_list": [], "new_map": {}, "new_number": 0}
    for section in ("", TEXT, LATENT):
        change(small, section, **(dump | neutral))
    assert load_config(small).text.num_hidden_layers == 1


def test_a_key_can_be_declared_to_be_without_effect(small, out):
    change(small, "", my_trainer={"lr": 1e-5})
    change(small, TEXT, my_trainer=3)
    assert_fails(small, out, ConfigError, "`my_trainer`", "`--ignore-config-key my_trainer`")
    only_one = ExportOptions("fp32", ignore_config_keys=("text_config.my_trainer",))
    assert_fails(small, out, ConfigError, "`my_trainer`", options=only_one)
    found = load_config(small, ["my_trainer"]).notes
    assert found == (
        'config.json: `my_trainer` is {"lr": 1e-05}, which was ignored as asked',
        "config.json: `text_config.my_trainer` is 3, which was ignored as asked",
    )


@pytest.mark.parametrize("key", ["no_such_key", "hidden_size", "text_config.rope_theta", "architectures"])
def test_a_key_that_is_not_there_or_is_read_cannot_be_ignored(small, out, key):
    options = ExportOptions("fp32", ignore_config_keys=(key,))
    assert_fails(small, out, UsageError, f"--ignore-config-key is {key}", "cannot be ignored", options=options)


def test_latent_attention_defaults_are_nvidias():
    text = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}
    text |= {"intermediate_size": 14336, "vocab_size": 32000, "rms_norm_eps": 1e-5, "rope_theta": 10000.0}
    text |= {"max_position_embeddings": 32768, "sliding_window": 4096}
    for values in ({"text_config": text}, {"text_config": text, LATENT: {}}, {"text_config": text, LATENT: None}):
        config = parse_config(values)
        latent = config.latent_attention
        assert (latent.num_latents_value, latent.num_cross_heads, latent.cross_dim_head) == (512, 8, 4096)
        assert latent.output_normalize is True
        assert (config.text.head_dim, config.text.bos_token_id, config.text.eos_token_id) == (128, 1, 2)


def test_rope_theta_is_also_found_where_newer_transformers_puts_it(small):
    change(small, TEXT, rope_theta=..., rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    assert load_config(small).text.rope_theta == 5e5
    change(small, TEXT, rope_theta=5e5, rope_scaling={"rope_type": "default"})
    assert load_config(small).text.rope_theta == 5e5
