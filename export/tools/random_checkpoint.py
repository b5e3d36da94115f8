"""Write a random checkpoint of NV-Embed's exact size, to try the exporter at full scale without the real weights.

    python export/tools/random_checkpoint.py OUT [--layers N] [--form v1|v2] [--seed N] [--tokenizer FILE]

Names, shapes, dtype (fp16), sharding and config.json are those of NV-Embed-v1 or v2; the values are meaningless. They
depend only on the seed and the tensor's name, so a checkpoint of two layers has the first two layers of the full one.

Memory: one block of a few million values, whatever the size. The folder appears only once it is complete.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
from seeded_checkpoint import LEVELS, RandomTensor, Spec, config_values, quantiles, safetensors_header, tensor_plan
from tqdm import tqdm

from nvembed_export.errors import EXIT_INTERRUPTED, EXIT_OK, ExportError
from nvembed_export.output import check_output, partial_folder

MISTRAL_TOKENIZER = Path(__file__).parents[2] / "models" / "nv-embed-mini" / "tokenizer.json"
SHARD_BYTES = 5_000_000_000  # Hugging Face's default, which NV-Embed uses
BLOCK_VALUES = 1 << 22

# Names for config.json, and so for every manifest, that cannot be mistaken for NVIDIA's.
SOURCES = {"v1": "random-weights/NV-Embed-v1-shapes", "v2": "random-weights/NV-Embed-v2-shapes"}
FULL = Spec(
    hidden=4096,
    layers=32,
    heads=32,
    kv_heads=8,
    intermediate=14336,
    latents=512,
    cross_heads=8,
    cross_dim=4096,
    vocab=32000,
    positions=32768,
)
README = """\
---
license: apache-2.0
---
Random weights in the shapes of NV-Embed ({layers} of 32 layers, seed {seed}). This is not NV-Embed and contains none of
its weights; its embeddings are meaningless.
"""


def checkpoint_config(spec: Spec, form: str) -> dict:
    """The content of config.json, as in v1 (which leaves the pooler's sizes at their defaults) or v2 (all keys)."""
    values = config_values(spec)
    text, latent = values["text_config"], values["latent_attention_config"]
    auto = {"AutoConfig": "configuration_nvembed.NVEmbedConfig", "AutoModel": "modeling_nvembed.NVEmbedModel"}
    values |= {"_name_or_path": SOURCES[form], "add_pad_token": True, "auto_map": auto, "torch_dtype": "float16"}
    text |= {"sliding_window": 4096, "tie_word_embeddings": False, "torch_dtype": "float16"}
    if form == "v2":
        dump = {"_attn_implementation_autoset": False, "chunk_size_feed_forward": 0, "is_encoder_decoder": False}
        dump |= {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "max_length": 20, "return_dict": True, "top_k": 50}
        values |= {"text_config": dump | text, "latent_attention_config": dump | latent}
    elif (spec.latents, spec.cross_heads, spec.cross_dim, spec.hidden, spec.normalize) == (512, 8, 4096, 4096, True):
        values["latent_attention_config"] = {"model_type": "latent_attention"}
    return values


def nbytes(item: RandomTensor) -> int:
    """Size of the tensor in fp16, in bytes."""
    return 2 * math.prod(item.shape)


def shards(plan: list[RandomTensor], limit: int = SHARD_BYTES) -> list[list[RandomTensor]]:
    """Split the plan, in order, into files of at most `limit` bytes of data."""
    result: list[list[RandomTensor]] = [[]]
    for item in plan:
        if result[-1] and sum(map(nbytes, result[-1])) + nbytes(item) > limit:
            result.append([])
        result[-1].append(item)
    return result


def values(item: RandomTensor, seed: int) -> Iterator[np.ndarray]:
    """The tensor's values, flattened, in float16 blocks of BLOCK_VALUES; each value is an independent draw.

    Looking values up in a table, already scaled and rounded, is ten times as fast as drawing and rounding float32.
    """
    table = (item.mean + quantiles() * np.float32(item.scale)).astype(np.float16)
    rng = np.random.Generator(np.random.SFC64([seed, zlib.crc32(item.name.encode())]))
    count = math.prod(item.shape)
    for start in range(0, count, BLOCK_VALUES):
        size = min(BLOCK_VALUES, count - start)
        levels = rng.integers(0, LEVELS, size, dtype=np.uint16)
        yield np.take(table, levels.astype(np.intp), mode="wrap")  # "wrap" avoids checking every index


def write_random_checkpoint(
    target: Path,
    spec: Spec = FULL,
    form: str = "v1",
    tokenizer_json: Path = MISTRAL_TOKENIZER,
    shard_bytes: int = SHARD_BYTES,
    advance: Callable[[int], object] = lambda _: None,
) -> None:
    """Write the checkpoint folder; `advance` is called with the byte count of each block.

    Raises OutputError if `target` exists or the disk is too small, full, or not writable; nothing is left behind then.
    """
    check_output(target, tokenizer_json, force=False)
    parts = shards(tensor_plan(spec), shard_bytes)
    total = sum(nbytes(item) for part in parts for item in part)
    with partial_folder(target, False, total + tokenizer_json.stat().st_size + (1 << 20)) as folder:
        (folder / "config.json").write_text(json.dumps(checkpoint_config(spec, form), indent=2))
        (folder / "README.md").write_text(README.format(layers=spec.layers, seed=spec.seed))
        shutil.copyfile(tokenizer_json, folder / "tokenizer.json")
        weight_map = {}
        for number, part in enumerate(parts, 1):
            file = f"model-{number:05}-of-{len(parts):05}.safetensors"
            weight_map |= dict.fromkeys((item.name for item in part), file)
            with (folder / file).open("wb") as stream:
                stream.write(safetensors_header((item.name, "F16", item.shape, nbytes(item)) for item in part))
                for item in part:
                    for block in values(item, spec.seed):
                        stream.write(block.data)
                        advance(block.nbytes)
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def main(arguments: list[str] | None = None) -> int:
    """Run the tool and return its exit code, which is the exporter's for the same failure."""
    parser = argparse.ArgumentParser(description="Write a random fp16 checkpoint with NV-Embed's tensor shapes.")
    parser.add_argument("output", type=Path, help="checkpoint folder to write; 15.7 GB with all layers")
    parser.add_argument("--layers", type=int, default=FULL.layers, help="number of layers (default: %(default)s)")
    parser.add_argument("--form", choices=sorted(SOURCES), default="v1", help="form of config.json (default: v1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the values (default: 0)")
    parser.add_argument("--tokenizer", type=Path, default=MISTRAL_TOKENIZER, help="tokenizer.json to copy")
    args = parser.parse_args(arguments)
    if args.layers < 1 or args.seed < 0:
        parser.error(f"got --layers {args.layers} --seed {args.seed}, expected --layers >= 1 and --seed >= 0")
    spec = FULL.but(layers=args.layers, seed=args.seed)
    total = sum(map(nbytes, tensor_plan(spec)))
    try:
        with tqdm(total=total, unit="B", unit_scale=True, disable=None, leave=False) as bar:
            write_random_checkpoint(args.output, spec, args.form, args.tokenizer, advance=bar.update)
    except ExportError as error:
        print(f"random_checkpoint: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("random_checkpoint: interrupted, nothing was written", file=sys.stderr)
        return EXIT_INTERRUPTED
    print(f"{total // 2:,} parameters, {total / 1e9:.2f} GB", file=sys.stderr)
    print(args.output)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
