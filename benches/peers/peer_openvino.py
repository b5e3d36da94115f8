"""An ONNX graph on OpenVINO: `peer_openvino.py CHECKPOINT GRAPH [--precision bf16|w8a8]`.

The graph is the plain export of the direct form or one made by nvembed-export. w8a8 is NNCF's weight compression to 8
bits, which needs no calibration data; OpenVINO then quantizes activations to 8 bits in groups at run time.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import worker

INPUTS = ("input_ids", "attention_mask", "pool_mask")


def open_model(args):
    import openvino

    core = openvino.Core()
    model = core.read_model(args.graph)
    versions = {"openvino": openvino.__version__, "threads": args.threads}
    if args.precision == "w8a8":
        import nncf

        model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
        versions["nncf"] = nncf.__version__
    settings = {
        "INFERENCE_NUM_THREADS": args.threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if args.precision == "bf16" else "f32",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    texts = worker.Texts(args.checkpoint)

    def embed(prompts):
        found = request.infer(dict(zip(INPUTS, texts.batch(prompts), strict=True)))
        return worker.unit(found.to_tuple()[0])

    return embed, versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("graph", type=Path)
    parser.add_argument("--precision", choices=("fp32", "bf16", "w8a8"), default="fp32")
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    worker.serve(lambda: open_model(args))


if __name__ == "__main__":
    main()
