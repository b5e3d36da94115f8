"""The command line: arguments in, a model folder out, failures as one line and an exit code."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from nvembed_export import __version__
from nvembed_export.errors import EXIT_INTERRUPTED, EXIT_OK, ExportError
from nvembed_export.export import ExportOptions, ExportSummary, export
from nvembed_export.latent_attention import POOLERS
from nvembed_export.modeling import TARGETS
from nvembed_export.precision import ACTIVATIONS, PRECISIONS
from nvembed_export.quantization import BLOCK_SIZES

EPILOG = """\
examples:
  nvembed-export models/nv-embed-mini build/models/nv-embed-mini-fp32 --precision fp32
  nvembed-export ~/checkpoints/NV-Embed-v2 build/models/nv-embed-v2-fp16
  nvembed-export ~/checkpoints/NV-Embed-v1 build/models/nv-embed-v1-fp16 --max-length 512 --force
  nvembed-export ~/checkpoints/NV-Embed-v2 build/models/nv-embed-v2-cpu --precision fp32 --target cpu
  nvembed-export ~/checkpoints/NV-Embed-v2 build/models/nv-embed-v2-ov --precision bf16 --target openvino

exit codes:
  0 the folder was written    2 usage             3 the checkpoint, its config or tokenizer is not usable
  4 the folder cannot be written (it exists, disk full, permission)       130 interrupted

The folder's path is printed on stdout, everything else on stderr. A failed export leaves no folder behind.
"""


class Bar:
    """Progress on stderr: a bar of bytes while weights are written, a line of text in other phases."""

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
        description="Turn an NV-Embed checkpoint (a Hugging Face folder) into an ONNX model folder.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("checkpoint", type=Path, help="folder with config.json, safetensors and a tokenizer")
    result.add_argument("output", type=Path, help="model folder to write")
    result.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp16",
        help="default: fp16, as NVIDIA runs it; w8a8 needs --target cpu; see docs/guides/precision.md",
    )
    result.add_argument(
        "--pooler", choices=sorted(POOLERS), default="fused", help="fused is exact and faster (default)"
    )
    result.add_argument(
        "--target",
        choices=sorted(TARGETS),
        default="any",
        help="any: one graph for all execution providers (default); cpu: for the CPU only, whose memory then grows "
        "with the length of a text and not with its square; openvino: for OpenVINO on CPUs, fp32 or bf16",
    )
    result.add_argument(
        "--max-length",
        type=int,
        metavar="N",
        help="longest row in tokens (default: 4096, NV-Embed-v2: 32768, at most the model's positions)",
    )
    result.add_argument(
        "--layers",
        type=int,
        metavar="N",
        help="only the first N layers, for tests at full width: not the model, and its name says so",
    )
    quantized = result.add_argument_group("int8 and int4")
    quantized.add_argument(
        "--activations",
        choices=ACTIVATIONS,
        help="what weights are multiplied with: fp32 for CPUs (default), fp16 for GPUs",
    )
    sizes = ", ".join(map(str, BLOCK_SIZES))
    quantized.add_argument("--block-size", type=int, metavar="N", help=f"weights a scale: {sizes} (default: 32)")
    quantized.add_argument("--symmetric", action=argparse.BooleanOptionalAction, help="no zero point (default)")
    quantized.add_argument(
        "--accuracy-level",
        type=int,
        metavar="N",
        help="of products, at least: 0 the kernel's choice, 1 fp32, 2 fp16, 3 bf16, 4 int8 (default)",
    )
    result.add_argument("--name", help="the model's name in the manifest (default: the checkpoint's)")
    result.add_argument("--license", help="SPDX id of the weights (default: README.md's, else cc-by-nc-4.0)")
    result.add_argument("--no-golden", action="store_true", help="skip the float64 reference embeddings")
    result.add_argument("--force", action="store_true", help="replace a model folder that exists")
    result.add_argument(
        "--quiet", action="store_true", help="no progress bar, and of the summary only a licence that restricts use"
    )
    result.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return result


def main(arguments: list[str] | None = None) -> int:
    """Run the exporter; returns the exit code. argparse itself exits with 2 on a usage error."""
    args = parser().parse_args(arguments)
    options = ExportOptions(
        precision=args.precision,
        activations=args.activations,
        block_size=args.block_size,
        symmetric=args.symmetric,
        accuracy_level=args.accuracy_level,
        pooler=args.pooler,
        target=args.target,
        layers=args.layers,
        max_length=args.max_length,
        name=args.name,
        license=args.license,
        golden=not args.no_golden,
        force=args.force,
    )
    bar = Bar(enabled=not args.quiet and sys.stderr.isatty())
    # A polite kill must clean up too; the default action would leave the partial folder behind.
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
    if not args.quiet:
        say(describe(summary), sys.stderr)
    elif license_note(summary.license):
        say(license_line(summary), sys.stderr)  # whoever exports must be told
    say(str(summary.folder), sys.stdout)
    return EXIT_OK


def say(text: str, stream: TextIO) -> None:
    """Print a line now. A reader that has gone does not make a failure of an export that is complete."""
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        # What is still buffered goes nowhere: the interpreter flushes again at its end, and would complain.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def describe(summary: ExportSummary) -> str:
    lines = [
        f"{summary.name}: {summary.precision}, rows of up to {summary.max_length} tokens, "
        f"{summary.data_bytes / 1e6:,.1f} MB of weights",
        license_line(summary),
    ]
    if not summary.is_whole_model:
        lines.append("only the first layers: for tests, not the model; its embeddings mean nothing")
    return "\n".join(lines)


def license_line(summary: ExportSummary) -> str:
    return f"licence of the weights: {summary.license}{license_note(summary.license)}"


def license_note(license: str) -> str:
    """What a licence restricts, to be put behind its name; empty for those that do not restrict use."""
    return " - not for commercial use" if license.startswith("cc-by-nc") else ""
