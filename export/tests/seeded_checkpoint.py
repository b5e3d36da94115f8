"""Random checkpoints in Hugging Face layout; a seed gives the same checkpoint on every machine.

Other test suites import this too. It has its own safetensors writer, which can also write files that are wrong on
purpose.
"""

from __future__ import annotations

import json
import math
import shutil
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from statistics import NormalDist

import numpy as np

BACKBONE, POOLER = "embedding_model", "latent_attention_model"
CROSS, FEED_FORWARD = f"{POOLER}.cross_attend_blocks.0", f"{POOLER}.cross_attend_blocks.1"
SPACE = "\u2581"
LEVELS = 1 << 16  # of the table of quantiles: 16 random bits pick one


@dataclass(frozen=True)
class Spec:
    """The sizes of a random model. `outliers` adds a few large channels to the residual stream, as Mistral has."""

    name: str = "seeded"
    seed: int = 0
    hidden: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int | None = None
    intermediate: int = 128
    latents: int = 9
    cross_heads: int = 2
    cross_dim: int = 24
    vocab: int = 384
    positions: int = 512
    theta: float = 10000.0
    theta_in_parameters: bool = False
    eps: float = 1e-5
    normalize: bool = True
    dtype: str = "F16"
    shards: int = 1
    outliers: float = 0.0
    extra_config: dict = field(default_factory=dict)

    def but(self, **changes) -> Spec:
        return replace(self, **changes)


# For numeric tests: 1, 2, 4 and 8 query heads per KV head, odd numbers of latents, cross heads of various sizes.
CASES = [
    Spec("one-layer", 1, 64, 1, 4, 4, None, 96, 7, 2, 24, dtype="F32"),
    Spec("groups-of-4", 2, 64, 2, 8, 2, None, 160, 13, 3, 40, dtype="F32", shards=3),
    Spec("groups-of-8-bf16", 3, 128, 3, 8, 1, None, 192, 33, 3, 40, dtype="BF16"),
    Spec("explicit-head-dim", 4, 96, 2, 4, 2, 64, 160, 5, 1, 96, dtype="F32", theta=5e5, theta_in_parameters=True),
    Spec("eight-layers", 5, 128, 8, 8, 2, None, 256, 31, 4, 32, dtype="F16", shards=2),
    Spec("wide", 6, 1024, 2, 16, 4, None, 1792, 65, 8, 64, dtype="F16"),
    Spec("one-cross-head", 7, 256, 6, 8, 2, None, 448, 129, 1, 320, dtype="F16", theta=1e6),
    Spec("outliers", 8, 512, 4, 8, 8, None, 896, 63, 4, 128, dtype="F16", outliers=60.0),
    Spec("not-normalised", 9, 64, 3, 2, 1, 16, 64, 1, 2, 16, dtype="F32", normalize=False),
    Spec("large-eps", 10, 192, 12, 6, 3, None, 256, 21, 2, 64, dtype="F16", eps=1e-3),
]


def write_checkpoint(directory, spec: Spec, tokenizer_json=None) -> Path:
    """Write config.json, weights, tokenizer.json (a small one unless given) and README.md; returns the folder."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config_values(spec), indent=2))
    write_weights(directory, random_tensors(spec), spec.dtype, spec.shards)
    if tokenizer_json is None:
        (directory / "tokenizer.json").write_text(json.dumps(small_tokenizer(), ensure_ascii=False))
    else:
        shutil.copyfile(tokenizer_json, directory / "tokenizer.json")
    (directory / "README.md").write_text("---\nlicense: apache-2.0\n---\n# random weights\n")
    return directory


def config_values(spec: Spec) -> dict:
    """The content of config.json."""
    rope = {"rope_theta": spec.theta}
    if spec.theta_in_parameters:
        rope = {"rope_parameters": {"rope_type": "default", "rope_theta": spec.theta}}
    head_dim = {} if spec.head_dim is None else {"head_dim": spec.head_dim}
    return {
        "_name_or_path": f"example/{spec.name}",
        "architectures": ["NVEmbedModel"],
        "model_type": "nvembed",
        "padding_side": "right",
        "mask_type": "b",
        "is_mask_instruction": True,
        "add_eos": True,
        "hidden_size": spec.hidden,
        "text_config": {
            "model_type": "bidir_mistral",
            "vocab_size": spec.vocab,
            "hidden_size": spec.hidden,
            "intermediate_size": spec.intermediate,
            "num_hidden_layers": spec.layers,
            "num_attention_heads": spec.heads,
            "num_key_value_heads": spec.kv_heads,
            "hidden_act": "silu",
            "max_position_embeddings": spec.positions,
            "rms_norm_eps": spec.eps,
            "sliding_window": 4,
            "bos_token_id": 1,
            "eos_token_id": 2,
            **head_dim,
            **rope,
        },
        "latent_attention_config": {
            "model_type": "latent_attention",
            "num_latents_value": spec.latents,
            "num_cross_heads": spec.cross_heads,
            "cross_dim_head": spec.cross_dim,
            "hidden_dim": spec.hidden,
            "latent_dim": spec.hidden,
            "output_normalize": spec.normalize,
        },
        **spec.extra_config,
    }


@dataclass(frozen=True)
class RandomTensor:
    """The normal distribution from which a tensor's values are drawn."""

    name: str
    shape: tuple[int, ...]
    scale: float
    mean: float = 0.0


def tensor_plan(spec: Spec) -> list[RandomTensor]:
    """Every tensor of the model in checkpoint order, without values.

    Projections preserve the scale of their input, so that activations are realistic. Queries and keys are a little
    larger: nearly uniform attention would hide mistakes in positions and masks.
    """
    hidden, dim = spec.hidden, spec.head_dim or spec.hidden // spec.heads
    cross = spec.cross_heads * spec.cross_dim
    plan: list[RandomTensor] = []

    def normal(name, *shape, scale):
        plan.append(RandomTensor(name, shape, scale))

    def projection(name, out, fan_in, gain=1.0):
        normal(f"{name}.weight", out, fan_in, scale=gain / np.sqrt(fan_in))

    def norm(name, bias=False):
        plan.append(RandomTensor(f"{name}.weight", (hidden,), 0.2, mean=1.0))
        if bias:
            normal(f"{name}.bias", hidden, scale=0.2)

    normal(f"{BACKBONE}.embed_tokens.weight", spec.vocab, hidden, scale=0.5)
    for index in range(spec.layers):
        layer = f"{BACKBONE}.layers.{index}"
        projection(f"{layer}.self_attn.q_proj", spec.heads * dim, hidden, 1.4)
        projection(f"{layer}.self_attn.k_proj", spec.kv_heads * dim, hidden, 1.4)
        projection(f"{layer}.self_attn.v_proj", spec.kv_heads * dim, hidden)
        projection(f"{layer}.self_attn.o_proj", hidden, spec.heads * dim)
        projection(f"{layer}.mlp.gate_proj", spec.intermediate, hidden)
        projection(f"{layer}.mlp.up_proj", spec.intermediate, hidden)
        projection(f"{layer}.mlp.down_proj", hidden, spec.intermediate)
        norm(f"{layer}.input_layernorm")
        norm(f"{layer}.post_attention_layernorm")
    norm(f"{BACKBONE}.norm")
    normal(f"{POOLER}.latents", spec.latents, hidden, scale=1.0)
    norm(f"{CROSS}.norm", bias=True)
    norm(f"{CROSS}.norm_context", bias=True)
    norm(f"{FEED_FORWARD}.norm", bias=True)
    projection(f"{CROSS}.fn.to_q", cross, hidden, 1.4)
    projection(f"{CROSS}.fn.to_kv", 2 * cross, hidden, 1.4)
    projection(f"{CROSS}.fn.to_out", hidden, cross)
    projection(f"{FEED_FORWARD}.fn.net.0", 8 * hidden, hidden)
    normal(f"{FEED_FORWARD}.fn.net.0.bias", 8 * hidden, scale=0.2)
    projection(f"{FEED_FORWARD}.fn.net.2", hidden, 4 * hidden)
    normal(f"{FEED_FORWARD}.fn.net.2.bias", hidden, scale=0.2)
    return plan


@cache
def quantiles() -> np.ndarray:
    """[LEVELS] float32: the normal distribution's quantiles; drawing from them is as normal as tests need."""
    normal = NormalDist()
    return np.array([normal.inv_cdf((level + 0.5) / LEVELS) for level in range(LEVELS)], np.float32)


def random_levels(seed: int, name: str, count: int) -> np.ndarray:
    """[count] uint16, each value as likely as any other.

    Read from the bit generator itself. What NumPy's `Generator` makes of the bits may change from version to version,
    and the tails of its normal distribution go through the platform's logarithm; PyTorch's answers are kept for years.
    """
    words = np.random.SFC64([seed, zlib.crc32(name.encode())]).random_raw(-(-count // 4))
    return words.astype("<u8", copy=False).view("<u2")[:count]


def random_tensors(spec: Spec) -> dict[str, np.ndarray]:
    """Name -> float32 array, for models small enough to be held whole. Values depend on the seed and the name."""
    tensors = {}
    for item in tensor_plan(spec):
        levels = random_levels(spec.seed, item.name, math.prod(item.shape))
        values = np.float32(item.mean) + quantiles()[levels] * np.float32(item.scale)
        tensors[item.name] = values.reshape(item.shape)
    if spec.outliers:
        channels = np.argsort(random_levels(spec.seed, "outliers", spec.hidden), kind="stable")
        tensors[f"{BACKBONE}.embed_tokens.weight"][:, channels[: max(1, spec.hidden // 128)]] += np.float32(
            spec.outliers
        )
    return tensors


def digest(checkpoint) -> str:
    """sha256 of all that a checkpoint's embeddings depend on: the configuration, the tokenizer and the weights."""
    found = sha256()
    folder = Path(checkpoint)
    for file in [folder / "config.json", folder / "tokenizer.json", *sorted(folder.glob("*.safetensors"))]:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                found.update(block)
    return found.hexdigest()


def write_weights(directory, tensors: dict[str, np.ndarray], dtype: str = "F16", shards: int = 1) -> None:
    """Write model.safetensors, or `shards` files and an index."""
    directory, names = Path(directory), list(tensors)
    if shards == 1:
        write_safetensors(directory / "model.safetensors", tensors, dtype)
        return
    weight_map = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = names[number::shards]
        write_safetensors(directory / file, {name: tensors[name] for name in part}, dtype)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def write_safetensors(path, tensors: dict[str, np.ndarray], dtype: str | dict[str, str] = "F16") -> None:
    """Write one file. `dtype` applies to all tensors; as a dict by name, F16 applies to the rest."""
    kinds = {name: dtype if isinstance(dtype, str) else dtype.get(name, "F16") for name in tensors}
    parts = {name: encode(array, kinds[name]) for name, array in tensors.items()}
    described = [(name, kinds[name], tensors[name].shape, len(part)) for name, part in parts.items()]
    with Path(path).open("wb") as file:
        file.write(safetensors_header(described))
        file.writelines(parts.values())


def safetensors_header(tensors: Iterable[tuple[str, str, tuple[int, ...], int]]) -> bytes:
    """The header length (8 bytes) and JSON header for (name, dtype, shape, bytes) in the order of the data."""
    header, position = {"__metadata__": {"format": "pt"}}, 0
    for name, kind, shape, nbytes in tensors:
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [position, position + nbytes]}
        position += nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def encode(array: np.ndarray, kind: str) -> bytes:
    """float32 -> stored bytes; BF16 keeps the upper 16 bits (random weights need no better rounding)."""
    if kind == "BF16":
        return (array.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    with np.errstate(over="ignore"):
        return array.astype({"F16": "<f2", "F32": "<f4", "F64": "<f8", "I64": "<i8"}[kind]).tobytes()


def small_tokenizer() -> dict:
    """A tokenizer like Mistral's with at most 384 ids: three special tokens, 256 bytes, letters, some merges."""
    letters = [SPACE, *"etaoinshrdlucmfwypvbgkjqxzITAQ:.?"]
    joined = ["th", "he", "in", "er", "an", "re", f"{SPACE}t", f"{SPACE}a", "st", "en", f"{SPACE}th", "ing", "ed"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *joined]
    merges = [f"{a[:1]} {a[1:]}" for a in joined if len(a) == 2] + [f"{SPACE}t h", "in g", "e d"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    bos = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": id, "content": pieces[id], **flags} for id in range(3)],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": SPACE},
                {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": None,
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {piece: id for id, piece in enumerate(pieces)},
            "merges": list(dict.fromkeys(merges)),
        },
    }
