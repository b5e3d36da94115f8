"""The command line: parses arguments, writes a model folder, reports a failure as one line and an exit code."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from nvembed_export import __version__
from nvembed_export.distance import BEYOND, Distance, golden_distance
from nvembed_export.errors import EXIT_INTERRUPTED, EXIT_OK, ExportError
from nvembed_export.export import ExportOptions, ExportSummary, export
from nvembed_export.latent_attention import POOLERS
from nvembed_export.precision import ACTIVATIONS, PRECISIONS
from nvembed_export.quantization import BLOCK_SIZES
from nvembed_export.targets import TARGETS

EPILOG = """\
examples:
  nvembed-export models/nv-embed-mini build/models/nv-embed-mini-fp32 --precision fp32
  nvembed-export ~/checkpoints/NV-Embed-v2 build/models/nv-embed-v2-fp16
  nvembed-export ~/checkpoints/NV-Embed-v1 build/models/nv-embed-v1-fp16 --max-length 512 --force
  nvembed-export ~/checkpoints/NV-Embed-v2 build/models/nv-embed-v2-cpu --precision fp32 --target cpu
  nvembed-export ~/checkpoints/NV-Embed-v2 build/models/nv-embed-v2-ov --precision bf16 --target openvino

exit codes:
    0  the model folder was written
    2  usage error
    3  the checkpoint, its config.json or its tokenizer cannot be used
    4  the model folder cannot be written (it exists, disk full, no permission)
  130  interrupted

The folder's path is printed on stdout, everything else on stderr. A failed export leaves no folder behind; a complete
folder that cannot be put in place is kept, and the message says where.
"""


class Bar:
    """Progress on stderr: a bar of bytes while weights are written, a line of text in the other phases."""

    def __init__(self, enabled: bool) -> None:
        self.enabled, self.bar = enabled, None

    def phase(self, description: str, total: int | None = None) -> None:
        if self.bar is not None and total is None:
            self.bar.set_description_str(description)
            return
        self.close()
        self.bar = tqdm(
            total=total,
            desc=description,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            file=sys.stderr,
            leave=False,
            disable=not self.enabled,
        )

    def advance(self, amount: int) -> None:
        if self.bar is not None:
            self.bar.update(amount)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="nvembed-export",
        description="Turn an NV-Embed checkpoint (a folder of Hugging Face or PaddleNLP) into an ONNX model folder.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument(
        "checkpoint",
        type=Path,
        help="folder with config.json, weights (safetensors, pytorch_model.bin or .pdparams) and a tokenizer",
    )
    result.add_argument("output", type=Path, help="model folder to write")
    result.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp16",
        help="how weights are stored and multiplied (default: fp16, as NVIDIA runs the model); w8a8 needs "
        "--target cpu; see docs/guides/precision.md",
    )
    result.add_argument(
        "--pooler",
        choices=sorted(POOLERS),
        default="fused",
        help="fused: equivalent and faster (default); direct: the published formulas",
    )
    result.add_argument(
        "--target",
        choices=sorted(TARGETS),
        default="any",
        help="any: one graph for CPUs and CUDA (default); cuda: CUDA, with nothing computed for padding outside "
        "attention; cpu: CPU only, with memory linear instead of "
        "quadratic in text length; openvino: OpenVINO on CPUs, fp32 or bf16 only; tensorrt: TensorRT, fp16 or "
        "bf16 (int4 on TensorRT-RTX)",
    )
    result.add_argument(
        "--adapter", type=Path, metavar="DIR", help="folder of a LoRA adapter of PEFT, to be merged into the weights"
    )
    result.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="take the tokenizer of this folder instead of the checkpoint's"
    )
    result.add_argument(
        "--ignore-config-key",
        metavar="KEY",
        action="append",
        default=[],
        help="a key of config.json that is unknown and does not change the embeddings; may be repeated",
    )
    result.add_argument(
        "--max-length",
        type=int,
        metavar="N",
        help="maximum tokens per text (default: max_seq_length of sentence-transformers, else 32768 for NV-Embed-v2, "
        "else 4096; at most max_position_embeddings)",
    )
    result.add_argument(
        "--layers",
        type=int,
        metavar="N",
        help="export only the first N layers, to test at full width; the model's name then says so",
    )
    quantized = result.add_argument_group("int8 and int4")
    quantized.add_argument(
        "--activations",
        choices=ACTIVATIONS,
        help="dtype of activations: fp32 for CPUs (default), fp16 for GPUs (default with --target cuda and tensorrt)",
    )
    sizes = ", ".join(map(str, BLOCK_SIZES))
    quantized.add_argument(
        "--block-size",
        type=int,
        metavar="N",
        help=f"weights per scale: {sizes} (default: 32; 128 with --target tensorrt)",
    )
    quantized.add_argument(
        "--symmetric",
        action=argparse.BooleanOptionalAction,
        help="no zero points (default); --no-symmetric: one zero point per block",
    )
    quantized.add_argument(
        "--accuracy-level",
        type=int,
        metavar="N",
        help="lowest precision a product may use: 0 the kernel's choice, 1 fp32, 2 fp16, 3 bf16, 4 int8 (default)",
    )
    result.add_argument(
        "--name", help="the model's name in the manifest (default: the name of the checkpoint's folder)"
    )
    result.add_argument(
        "--license",
        help="SPDX id of the weights' licence (default: from the checkpoint's README.md, else cc-by-nc-4.0)",
    )
    result.add_argument("--no-golden", action="store_true", help="do not compute float64 reference embeddings")
    result.add_argument("--force", action="store_true", help="replace an existing model folder")
    result.add_argument(
        "--quiet", action="store_true", help="no progress bar and no summary, except for a licence that restricts use"
    )
    result.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return result


def main(arguments: list[str] | None = None) -> int:
    """Run the exporter and return its exit code. argparse raises SystemExit(2) for arguments it cannot parse."""
    args = parser().parse_args(arguments)
    options = ExportOptions(
        precision=args.precision,
        activations=args.activations,
        block_size=args.block_size,
        symmetric=args.symmetric,
        accuracy_level=args.accuracy_level,
        pooler=args.pooler,
        target=args.target,
        adapter=args.adapter,
        tokenizer=args.tokenizer,
        ignore_config_keys=tuple(args.ignore_config_key),
        layers=args.layers,
        max_length=args.max_length,
        name=args.name,
        license=args.license,
        golden=not args.no_golden,
        force=args.force,
    )
    bar = Bar(enabled=not args.quiet and sys.stderr.isatty())
    # SIGTERM must clean up too: its default action would leave the partial folder behind.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        summary = export(args.checkpoint, args.output, options, bar)
    except ExportError as error:
        bar.close()
        say(f"nvembed-export: {error}", sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        bar.close()
        say("nvembed-export: interrupted, nothing was written", sys.stderr)
        return EXIT_INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    bar.close()
    for note in summary.notes:  # shown even with --quiet: they are about what the embeddings are
        say(f"nvembed-export: note: {note}", sys.stderr)
    distance = golden_distance(summary.folder)
    if isinstance(distance, Distance) and not distance.is_within_tolerance:
        say(f"nvembed-export: warning: {distance}. {BEYOND}", sys.stderr)  # shown even with --quiet
    elif not args.quiet:
        say(
            str(distance) if isinstance(distance, Distance) else f"golden distance not measured: {distance}", sys.stderr
        )
    if not args.quiet:
        say(describe(summary), sys.stderr)
    elif license_note(summary.license):
        say(license_line(summary), sys.stderr)  # shown even with --quiet
    say(str(summary.folder), sys.stdout)
    return EXIT_OK


def say(text: str, stream: TextIO) -> None:
    """Print a line and flush. That it cannot be printed is ignored: it is no failure of the export."""
    try:
        try:
            print(text, file=stream, flush=True)
        except UnicodeEncodeError:  # the terminal's encoding has not all characters
            encoding = stream.encoding or "ascii"
            print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except (OSError, ValueError):  # a closed pipe, a full disk, a closed stream
        # The interpreter flushes the stream again at exit and would report the error then.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def describe(summary: ExportSummary) -> str:
    lines = [
        f"{summary.name}: {summary.precision}, up to {summary.max_length} tokens per text, "
        f"{summary.data_bytes / 1e6:,.1f} MB of weights",
        license_line(summary),
    ]
    if not summary.is_whole_model:
        lines.append("only the first layers were exported: use the folder for tests, its embeddings are meaningless")
    return "\n".join(lines)


def license_line(summary: ExportSummary) -> str:
    return f"licence of the weights: {summary.license}{license_note(summary.license)}"


def license_note(license: str) -> str:
    """The restriction to print after a licence's name; empty if it does not restrict use."""
    return " - not for commercial use" if license.startswith("cc-by-nc") else ""
