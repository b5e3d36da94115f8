"""The direct PyTorch form as a process: `peer_pytorch.py CHECKPOINT [options]`. See worker.py."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

import worker


def open_model(args):
    """Open the model. Without --compile, both attention implementations are tried on every shape."""
    import torch
    import transformers
    from direct import Direct

    torch.set_num_threads(args.threads)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[args.precision]
    model = Direct(args.checkpoint, dtype, args.part, args.keep_latents)
    texts = worker.Texts(args.checkpoint)
    forward = torch.compile(model, dynamic=False) if args.compile else model

    def run(implementation, *arrays):
        if model.backbone.config._attn_implementation != implementation:
            model.attention(implementation)
        return forward(*(torch.from_numpy(array) for array in arrays), padded=bool((arrays[1] == 0).any())).numpy()

    # TorchInductor generates kernels around one implementation; it is designed for sdpa.
    implementations = ["sdpa"] if args.compile else ["sdpa", "eager"]
    fastest = worker.Fastest({name: functools.partial(run, name) for name in implementations})

    @torch.inference_mode()
    def embed(prompts):
        return fastest(*texts.batch(prompts))

    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return embed, versions | {"threads": torch.get_num_threads()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--part", choices=("full", "backbone"), default="full")
    parser.add_argument(
        "--keep-latents", action="store_true", help="compute the latents' keys and values once, not in every call"
    )
    parser.add_argument("--compile", action="store_true", help="use torch.compile")
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    worker.serve(lambda: open_model(args))


if __name__ == "__main__":
    main()
