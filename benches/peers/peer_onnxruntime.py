"""A plain ONNX export of the direct form on ONNX Runtime in Python: `peer_onnxruntime.py CHECKPOINT GRAPH`."""

from __future__ import annotations

import argparse
from pathlib import Path

import worker

INPUTS = ("input_ids", "attention_mask", "pool_mask")


def open_model(args):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    session = onnxruntime.InferenceSession(args.graph, options, providers=["CPUExecutionProvider"])
    texts = worker.Texts(args.checkpoint)

    def embed(prompts):
        return worker.unit(session.run(None, dict(zip(INPUTS, texts.batch(prompts), strict=True)))[0])

    return embed, {"onnxruntime": onnxruntime.__version__, "threads": args.threads}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("graph", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    worker.serve(lambda: open_model(args))


if __name__ == "__main__":
    main()
