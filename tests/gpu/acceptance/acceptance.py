"""Check nvembed on this machine's GPU and measure its speed; writes one report in Markdown.

    make gpu-acceptance                     # builds what is needed and writes build/gpu-acceptance.md
    make gpu-acceptance LAYERS='2 8 32'     # also with 8 and with all 32 layers of the 7B model, random weights

Without a GPU, it runs the steps that are meaningful on the CUDA shim and reports the others as skipped. What is missing
is skipped too. The exit code is 1 if a step failed.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path

from report import Failed, Report
from steps import ROOT, commit, device_tests, engines, golden, graphs, refused, timing

from machine import Machine

# A precision, after the exporter's target if it is not `any`.
FORMS = ("fp32", "fp16", "bf16", "cuda-fp16", "cuda-bf16", "cuda-int8", "cuda-int4")
ON_TENSORRT = "tensorrt-bf16"
TIMED = (("fp16",), ("cuda-fp16",), ("cuda-fp16", "--no-cuda-graphs"), ("cuda-int8",), ("cuda-int8", "--fpa-intb-gemm"))
BATCH, LENGTH = "1,8,32", "32,128,512"


def folders(size: str) -> dict[str, Path]:
    """The models of a size, by form."""
    place = ROOT / ("build/models/nv-embed-mini" if size == "mini" else f"build/gpu-graph/{size}")
    return {form: place.with_name(f"{place.name}-{form}") for form in (*FORMS, ON_TENSORRT)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvembed", type=Path, required=True)
    parser.add_argument("--library", type=Path, required=True, help="ONNX Runtime's GPU library")
    parser.add_argument("--shim", type=Path, help="folder of the CUDA shim; for a machine without a GPU")
    parser.add_argument(
        "--device-tests",
        default="cargo test --locked --quiet --release -p nvembed --test device --",
        help="how the tests of tests/device are run (default: %(default)s)",
    )
    parser.add_argument(
        "--provider",
        default="cuda",
        help="default: %(default)s; cpu tries this script itself on a machine without a GPU",
    )
    parser.add_argument("--layers", default="2", help="which models at the 7B widths to use, by their layers")
    parser.add_argument("--batch", default=BATCH, help="rows of the timed shapes (default: %(default)s)")
    parser.add_argument("--length", default=LENGTH, help="tokens of each row (default: %(default)s)")
    parser.add_argument("--seconds", default="2", help="seconds of each timing (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "build/gpu-acceptance.md", help="file of the report")
    arguments = parser.parse_args()

    environment = os.environ | {"ORT_DYLIB_PATH": str(arguments.library.resolve())}
    if arguments.shim:
        # Fresh memory then reads as finite numbers, so runs succeed; their results mean nothing.
        environment |= {"LD_LIBRARY_PATH": str(arguments.shim.resolve()), "CUDA_SHIM_FRESH": "60"}
    machine = Machine.examine(arguments.nvembed.resolve(), environment, arguments.provider)

    report = Report()
    report.text("# GPU acceptance", "", f"nvembed at {commit()}, {platform.platform()}.")
    if machine.on_shim:
        report.text(
            "**No GPU was used**, only stand-ins for the CUDA libraries. Nothing here shows a GPU's results or speed."
        )
    report.text("| check | | found |", "|---|---|---|")
    del report.lines[-1]
    for one in machine.findings:
        words = " ".join(one["found"].split())
        report.lines.append(f"| {one['check']} | {'ok' if one['ok'] else '**PROBLEM**'} | {words} |")
    report.text("## Steps")

    def environment_check() -> str:
        wrong = [one["check"] for one in machine.findings if not one["ok"]]
        if wrong:
            raise Failed(f"problems with {', '.join(wrong)}")
        return machine.gpu or "no GPU"

    report.step("environment", environment_check)
    mini, outliers = folders("mini"), folders("outliers")
    wide = [folders(f"wide-{layers}") for layers in arguments.layers.replace(",", " ").split()]
    for models in (mini, outliers, *wide):
        for form in FORMS:
            model = models[form]
            report.step(f"{model.name}: the golden embeddings", lambda: golden(machine, model))  # noqa: B023
    for models in (mini, *wide[:1]):
        for form in ("fp16", "cuda-fp16"):
            model = models[form]
            report.step(f"{model.name}: with and without CUDA graphs", lambda: graphs(machine, model))  # noqa: B023
        model = models["fp16"]
        report.step(f"{model.name}: TensorRT refuses --target any", lambda: refused(machine, model))  # noqa: B023
    # One padded, one packed.
    on_device = [mini["fp16"], *(models["cuda-fp16"] for models in wide[:1] or [mini])]
    device_tests(machine, report, arguments.device_tests, on_device)
    report.text("## TensorRT")
    tensorrt = Machine.examine(machine.nvembed, environment, "tensorrt")
    for models in (outliers, *wide[:1]):
        model = models[ON_TENSORRT]
        report.step(f"{model.name}: engines", lambda: engines(tensorrt, model))  # noqa: B023
        report.step(f"{model.name}: the golden embeddings", lambda: golden(tensorrt, model))  # noqa: B023
    report.text("## Latency and throughput")
    shapes = ["--batch", arguments.batch, "--length", arguments.length, "--seconds", arguments.seconds]
    for models in wide or [mini]:
        for form, *options in TIMED:
            timing(machine, report, models[form], shapes, *options)
    for models in wide[:1]:
        timing(tensorrt, report, models[ON_TENSORRT], shapes)

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("\n".join(report.lines).strip() + "\n")
    print(f"wrote {arguments.out}: {report.failures} steps failed")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
