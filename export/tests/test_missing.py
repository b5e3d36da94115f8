"""A folder that is no checkpoint is named for what it is, with the next step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from failing import assert_fails
from seeded_checkpoint import random_tensors, write_checkpoint, write_safetensors

from nvembed_export.errors import CheckpointError, ConfigError, TensorError, TokenizerError
from nvembed_export.export import ExportOptions, export

ADAPTER = Path(__file__).resolve().parent / "peft" / "plain"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 4999819336\n"


@pytest.mark.parametrize(
    ("files", "fragments"),
    [
        ([], ["the folder is empty"]),
        (["adapter_config.json", "adapter_model.safetensors"], ["adapter and no model", "--adapter"]),
        (["lora_model_state.pdparams"], ["adapter and no model"]),
        (["model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors"], ["2 of 3 shards", "index.json"]),
        (["pytorch_model-00001-of-00002.bin"], ["1 of 2 shards", "pytorch_model.bin.index.json"]),
        (["model_state.tp00.pdparams"], ["tensor-parallel"]),
        (["NV-Embed-v2.Q4_K_M.gguf"], ["GGUF", "llama.cpp"]),
        (["nvembed.json", "model.onnx"], ["model folder", "exported already"]),
        (["__0_0.distcp"], ["distributed checkpoint"]),
        (["global_step100/"], ["DeepSpeed", "zero_to_fp32"]),
        (["consolidated.safetensors"], ["Mistral's own form"]),
        (["best.ckpt"], ["save_pretrained"]),
        (
            ["modules.json", "0_Transformer/config.json", "0_Transformer/model.safetensors"],
            ["export ", "0_Transformer"],
        ),
        (["snapshots/abc/"], ["cache of Hugging Face", "snapshots/abc"]),
        (["notes.txt"], ["the folder has notes.txt"]),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("config", [False, True], ids=["no-config", "config"])
def test_what_is_there_instead_is_said(small, tmp_path, out, files, fragments, config):
    folder = tmp_path / "other"
    folder.mkdir()
    for name in files:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_text("[]" if name == "modules.json" else "")
    if config:
        if files in ([], ["notes.txt"], ["modules.json", *files[1:]]):
            pytest.skip("then it is another case")
        shutil.copy(small / "config.json", folder)
        shutil.copy(small / "tokenizer.json", folder)
        shutil.rmtree(folder / "snapshots", ignore_errors=True)
        if files == ["snapshots/abc/"]:
            pytest.skip("then it is another case")
    assert_fails(folder, out, CheckpointError if config else ConfigError, *fragments)


def test_no_folder_and_a_file(small, out):
    assert_fails(small / "nowhere", out, ConfigError, "no such file", "there is no folder")
    file = small / "model.safetensors"
    assert_fails(file, out, ConfigError, "is a file, expected the folder")


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("config.json", ConfigError),
        ("model.safetensors", CheckpointError),
        ("pytorch_model.bin", CheckpointError),
        ("model_state.pdparams", CheckpointError),
        ("tokenizer.json", TokenizerError),
        ("tokenizer.model", TokenizerError),
        ("modules.json", ConfigError),
        ("sentence_bert_config.json", ConfigError),
    ],
)
@pytest.mark.parametrize("kind", ["pointer", "link"])
def test_a_pointer_of_git_lfs_and_a_link_to_nowhere_are_recognised(small, out, name, error, kind):
    for other in {"tokenizer.model": ["tokenizer.json"]}.get(name, []):
        (small / other).unlink()
    if name.endswith((".bin", ".pdparams")):
        (small / "model.safetensors").unlink()
    (small / name).unlink(missing_ok=True)
    if kind == "pointer":
        (small / name).write_text(POINTER)
        assert_fails(small, out, error, name, "Git LFS pointer", "git lfs pull")
    else:
        (small / name).symlink_to("../blobs/0123")
        assert_fails(small, out, error, name, "a link to ../blobs/0123", "not there")


def test_a_shard_that_is_a_pointer_or_a_link_to_nowhere(tmp_path, out, small_spec):
    sharded = write_checkpoint(tmp_path / "sharded", small_spec.but(shards=2))
    shard = sharded / "model-00002-of-00002.safetensors"
    shard.write_text(POINTER)
    assert_fails(sharded, out, CheckpointError, shard.name, "Git LFS pointer")
    shard.unlink()
    shard.symlink_to("../blobs/1")
    assert_fails(sharded, out, CheckpointError, shard.name, "a link to ../blobs/1")


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors", "lora_config.json"])
def test_an_adapter_beside_the_weights_is_not_ignored(small, out, file):
    source = ADAPTER / file
    (small / file).write_bytes(source.read_bytes() if source.exists() else b"{}")
    assert_fails(small, out, CheckpointError, file, f"--adapter {small}", "move the adapter's files away")


def test_an_adapter_beside_the_weights_can_be_merged(small, out):
    shutil.copy(ADAPTER / "adapter_config.json", small)
    shutil.copy(ADAPTER / "adapter_model.safetensors", small)
    export(small, out, ExportOptions("fp32", golden=False, adapter=small, name="merged"))
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        (small / file).unlink()
    export(small, out.parent / "base", ExportOptions("fp32", golden=False, adapter=ADAPTER, name="merged"))
    for file in ("model.onnx.data", "nvembed.json"):
        assert (out / file).read_bytes() == (out.parent / "base" / file).read_bytes()


def test_layers_of_an_adapter_that_was_not_merged(small, out, small_spec):
    tensors = random_tensors(small_spec)
    name = "embedding_model.layers.0.self_attn.q_proj"
    tensors[f"{name}.base_layer.weight"] = tensors.pop(f"{name}.weight")
    write_safetensors(small / "model.safetensors", tensors)
    assert_fails(small, out, TensorError, f"`{name}.base_layer.weight`", "merge_and_unload()")


def test_a_backbone_without_the_pooler(small, out, small_spec):
    tensors = {k: v for k, v in random_tensors(small_spec).items() if k.startswith("embedding_model.")}
    write_safetensors(small / "model.safetensors", tensors)
    assert_fails(small, out, TensorError, "no tensor begins with `latent_attention_model.`", "pooler")


MODULES = ["Transformer", "Pooling", "Normalize"]


def write_modules(folder, kinds, path="") -> None:
    modules = [
        {"idx": n, "name": str(n), "path": f"{n}_{kind}" if n else path, "type": f"sentence_transformers.models.{kind}"}
        for n, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))


def pooling(folder, **values) -> None:
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32} | values))


def test_the_pipeline_of_the_real_model_is_accepted(small, out):
    write_modules(small, MODULES)
    pooling(small, pooling_mode_cls_token=False, pooling_mode_mean_tokens=True, include_prompt=False)
    (small / "sentence_bert_config.json").write_text('{"max_seq_length": 300, "do_lower_case": false}')
    (small / "config_sentence_transformers.json").write_text('{"prompts": {}, "default_prompt_name": null}')
    summary = export(small, out, ExportOptions("fp32", golden=False))
    assert summary.notes == ("texts are cut at 300 tokens, the checkpoint's max_seq_length",)
    assert json.loads((out / "nvembed.json").read_text())["max_length"] == 300
    asked = ExportOptions("fp32", golden=False, force=True, max_length=7)
    assert export(small, out, asked).max_length == 7


@pytest.mark.parametrize("kind", ["Dense", "WordEmbeddings", "LayerNorm", "StaticEmbedding", "Router"])
def test_a_module_that_is_not_computed_is_refused(small, out, kind):
    write_modules(small, [*MODULES, kind])
    assert_fails(small, out, ConfigError, "modules.json", f"models.{kind}`", "Transformer, Pooling, Normalize")


def test_the_modules_above_the_models_folder_are_read_too(tmp_path, out, small_spec):
    root = tmp_path / "st"
    inner = write_checkpoint(root / "0_Transformer", small_spec)
    write_modules(root, [*MODULES, "Dense"], "0_Transformer")
    assert_fails(inner, out, ConfigError, "models.Dense`")
    write_modules(root, [*MODULES, "Dense"], "another")
    export(inner, out, ExportOptions("fp32", golden=False))


@pytest.mark.parametrize(
    ("file", "values", "fragments"),
    [
        ("sentence_bert_config.json", {"do_lower_case": True}, ["do_lower_case", "true", "keeps the case"]),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, ["pooling_mode_max_tokens", "the mean"]),
        ("1_Pooling/config.json", {"pooling_mode": "lasttoken"}, ["'lasttoken'", "the mean"]),
    ],
)
def test_steps_that_are_not_computed_are_refused(small, out, file, values, fragments):
    write_modules(small, MODULES)
    pooling(small)
    (small / file).write_text(json.dumps(values))
    assert_fails(
        small, out, ConfigError, file.rsplit("/")[-1], *(fragment.replace("true", "True") for fragment in fragments)
    )


def test_prompts_are_said_and_normalize_is_done(small, out, small_spec):
    write_modules(small, MODULES)
    config = json.loads((small / "config.json").read_text())
    config["latent_attention_config"]["output_normalize"] = False
    (small / "config.json").write_text(json.dumps(config))
    prompts = {"prompts": {"query": "Represent: ", "document": ""}, "default_prompt_name": "query", "truncate_dim": 16}
    (small / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    summary = export(small, out, ExportOptions("fp32", golden=False))
    assert any("'Represent: ' in front of every text" in note for note in summary.notes)
    assert any("cuts embeddings to 16" in note for note in summary.notes)
    assert any("length 1" in note for note in summary.notes)
    assert json.loads((out / "nvembed.json").read_text())["architecture"]["output_normalize"] is True
    prompts["default_prompt_name"] = None
    (small / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    summary = export(small, out, ExportOptions("fp32", golden=False, force=True))
    assert any("does not add by itself: query: 'Represent: '" in note for note in summary.notes)
