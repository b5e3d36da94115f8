"""Check nvembed on this machine's GPU and measure its speed; writes one report in Markdown.

    make gpu-acceptance                     # builds what is needed and writes build/gpu-acceptance.md

Without a GPU, it runs the steps that are meaningful on the CUDA shim and reports the others as skipped. The exit code
is 1 if a step failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benches" / "peers"))

import limits
import numpy as np
from rows import workload_name

ROOT = Path(__file__).resolve().parents[3]
MODELS, WIDE = ROOT / "build/models", ROOT / "build/gpu-graph"
# A precision, after the exporter's target if it is not `any`. The reference is fp32.
FORMS = ("fp32", "fp16", "bf16", "cuda-fp16", "cuda-int8", "cuda-int4")
SHIM_NAME = "CUDA shim"
ON_SHIM = "the CUDA shim computes nothing"

# Dense fp16 products with fp32 sums, in TFLOP/s, from NVIDIA's data sheets. The key is part of the name that the driver
# reports; the first match counts.
PEAK_TFLOPS = {
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "GH200": 989,
    "H200 NVL": 835,
    "H200": 989,
    "A100": 312,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
    "A40": 150,
    "A10G": 70,
    "A10": 125,
    "T4": 65,
    "RTX 6000 Ada": 364,
    "RTX A6000": 155,
    "RTX 4090": 165,
    "RTX 5090": 210,
}
BATCH, LENGTH = "1,8,32", "16,32,128,512"


def peak_tflops(gpu: str) -> int | None:
    """The peak of the GPU of that name; None when it is not in the table. A name is a whole word: L4 is not L40."""
    if "Laptop" in gpu:
        return None
    words = f" {gpu.replace('-', ' ')} "
    return next((tflops for name, tflops in PEAK_TFLOPS.items() if f" {name} " in words), None)


class Skipped(Exception):
    """The step cannot run here; the message is the reason."""


class Failed(Exception):
    """The step ran and its result is wrong; the message is the reason."""


@dataclass
class Report:
    """Steps in order with their outcomes, and tables between them."""

    lines: list[str] = field(default_factory=list)
    failures: int = 0

    def step(self, name: str, run: Callable[[], str]) -> None:
        try:
            outcome = f"passed: {run()}"
        except Skipped as reason:
            outcome = f"SKIPPED: {reason}"
        except Failed as reason:
            self.failures += 1
            outcome = f"**FAILED**: {reason}"
        print(f"{name}: {outcome}", flush=True)
        self.lines.append(f"- {name}: {outcome}")

    def text(self, *lines: str) -> None:
        self.lines.extend(["", *lines, ""])


@dataclass
class Machine:
    """How to run the program, and what `nvembed doctor` found."""

    nvembed: Path
    environment: dict[str, str]
    findings: list[dict]
    provider: str
    shapes: tuple[str, ...]  # what to time, as options of `nvembed bench`
    limits: dict[str, limits.Limit]  # of `nvembed verify`, by precision

    @property
    def gpu(self) -> str:
        return next((one["found"] for one in self.findings if one["check"] == "GPU 0" and one["ok"]), "")

    @property
    def on_shim(self) -> bool:
        return SHIM_NAME in self.gpu

    def opening(self, *options: str) -> list[str]:
        """Options that open a model: on the shim without the self-check, since nothing is computed there."""
        return [*options, *(["--no-self-check"] if self.on_shim and "cpu" not in options else [])]

    def run(self, *command: object, timeout: float = 3600) -> subprocess.CompletedProcess[str]:
        arguments = [str(part) for part in command]
        return subprocess.run(arguments, env=self.environment, capture_output=True, text=True, timeout=timeout)

    def must(self, *command: object) -> str:
        done = self.run(*command)
        if done.returncode != 0:
            raise Failed(
                f"`{Path(str(command[0])).name} {command[1]}` exited with {done.returncode}: {done.stderr.strip()}"
            )
        return done.stdout

    def needs_a_gpu(self) -> None:
        if self.provider == "cpu":
            return
        if not self.gpu:
            raise Skipped("no GPU found")
        if self.on_shim:
            raise Skipped(ON_SHIM)

    def needs_cuda_graphs(self) -> None:
        if self.provider != "cuda":
            raise Skipped(f"CUDA graphs are an option of cuda, not of {self.provider}")


def texts() -> list[str]:
    """Texts of many lengths: records of the evaluation set, every fourth one with up to seven more appended."""
    lines = (ROOT / "tests/eval/faq.jsonl").read_text().splitlines()[:64]
    sentences = [
        " ".join(str(value) for value in json.loads(line).values() if isinstance(value, str)) for line in lines
    ]
    return [" ".join(sentences[: 1 + index % 8]) if index % 4 == 0 else line for index, line in enumerate(sentences)]


def embeddings(machine: Machine, model: Path, *options: str) -> np.ndarray:
    """The embeddings of `texts()`, [N, D]."""
    scratch = ROOT / "build/gpu-acceptance"
    scratch.mkdir(parents=True, exist_ok=True)
    source, out = scratch / "texts.jsonl", scratch / "out.npy"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts()))
    machine.must(machine.nvembed, "embed", "--model", model, "--quiet", "-o", out, *machine.opening(*options), source)
    return np.load(out)


def must_exist(model: Path) -> None:
    if not (model / "nvembed.json").is_file():
        raise Skipped(f"{model.relative_to(ROOT)} is missing")


def golden(machine: Machine, model: Path, *options: str) -> str:
    machine.needs_a_gpu()
    out = machine.must(machine.nvembed, "verify", "--model", model, *options)
    return out.strip().splitlines()[-1]


def parity(machine: Machine, model: Path, reference: Path, precision: str, *options: str) -> str:
    """Compare a model on the GPU with the fp32 model on the CPU, within the limit that `nvembed verify` applies."""
    machine.needs_a_gpu()
    must_exist(model)
    must_exist(reference)
    on_cpu = embeddings(machine, reference, "--provider", "cpu")
    found = limits.distances(embeddings(machine, model, *options), on_cpu)
    problem = limits.problem(found, machine.limits[precision])
    if problem is not None:
        raise Failed(problem)
    return ", ".join(f"{words} is {found[measure]:.2e}" for measure, words in limits.MEASURES.items())


def graphs(machine: Machine, model: Path) -> str:
    machine.needs_cuda_graphs()
    machine.needs_a_gpu()
    must_exist(model)
    on, off = (
        embeddings(machine, model, "--provider", machine.provider, *switch) for switch in ([], ["--no-cuda-graphs"])
    )
    if not np.array_equal(on, off):
        raise Failed(f"the embeddings differ by up to {np.abs(on - off).max()}")
    return "the embeddings are bit for bit equal"


def refused(machine: Machine, model: Path) -> str:
    must_exist(model)
    done = machine.run(machine.nvembed, "prepare", "--quiet", "--model", model, "--provider", "tensorrt")
    if done.returncode != 5 or "TensorRT ignores the row lengths" not in done.stderr:
        raise Failed(f"exit code {done.returncode}: {done.stderr.strip()}")
    return "refused, since TensorRT would attend to padding"


def timing(machine: Machine, report: Report, model: Path, reference: Path, *options: str) -> None:
    """Run `nvembed bench`, which compares the embeddings with the fp32 model on the CPU before it times them."""
    title = f"{model.name}, {' '.join(options)}"

    def run() -> str:
        if "--no-cuda-graphs" in options:
            machine.needs_cuda_graphs()
        must_exist(model)
        command = [machine.nvembed, "bench", "--quiet", "--model", model, *machine.shapes, *machine.opening(*options)]
        if machine.on_shim and machine.provider != "cpu":
            lines = machine.must(*command, "--dry-run").splitlines()
            raise Skipped(f"{ON_SHIM}; {len(lines)} shapes ran and were not timed")
        must_exist(reference)
        done = machine.run(*command, "--reference", reference)
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        wrong = [f"{workload_name(row)} is {row['status']}: {row['error']}" for row in rows if row["status"] != "ok"]
        if done.returncode != 0 or wrong:
            raise Failed("; ".join(wrong) or done.stderr.strip())
        peak = peak_tflops(machine.gpu)
        table = [
            "| rows × tokens | p50 ms | p99 ms | tokens/s | TFLOP/s | share of peak | least cosine |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in rows:
            speed, latency = row["gflop_per_s"] / 1e3, row["latency_ms"]
            share = f"{100 * speed / peak:.1f} %" if peak else "unknown GPU"
            table.append(
                f"| {workload_name(row)} | {latency['p50']:.2f} | {latency['p99']:.2f} | {row['tokens_per_s']:.0f} "
                f"| {speed:.2f} | {share} | {row['cosine_min']:.7f} |"
            )
        report.text(f"{title}:", "", *table)
        return f"{len(rows)} shapes"

    report.step(f"timing of {title}", run)


def doctor(machine: Machine, provider: str) -> list[dict]:
    done = machine.run(machine.nvembed, "doctor", "--provider", provider, "--json")
    if not done.stdout.startswith("["):
        raise SystemExit(f"`nvembed doctor` printed no report: {done.stderr.strip()}")
    return json.loads(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvembed", type=Path, required=True)
    parser.add_argument("--library", type=Path, required=True, help="ONNX Runtime's GPU library")
    parser.add_argument("--shim", type=Path, help="folder of the CUDA shim; for a machine without a GPU")
    parser.add_argument(
        "--provider",
        default="cuda",
        help="default: %(default)s; cpu tries this script itself on a machine without a GPU",
    )
    parser.add_argument("--batch", default=BATCH, help="rows of the timed shapes (default: %(default)s)")
    parser.add_argument("--length", default=LENGTH, help="tokens of each row (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "build/gpu-acceptance.md", help="file of the report")
    arguments = parser.parse_args()

    environment = os.environ | {"ORT_DYLIB_PATH": str(arguments.library.resolve())}
    if arguments.shim:
        # Fresh memory then reads as finite numbers, so runs succeed; their results mean nothing.
        environment |= {"LD_LIBRARY_PATH": str(arguments.shim.resolve()), "CUDA_SHIM_FRESH": "60"}
    shapes = ("--batch", arguments.batch, "--length", arguments.length)
    nvembed = arguments.nvembed.resolve()
    machine = Machine(nvembed, environment, [], arguments.provider, shapes, limits.read(nvembed, environment))
    machine.findings = doctor(machine, machine.provider)

    report = Report()
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    report.text(
        "# GPU acceptance", "", f"nvembed at {commit.stdout.strip() or 'an unknown commit'}, {platform.platform()}."
    )
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

    provider, on_provider = machine.provider, ("--provider", machine.provider)
    report.step("environment", environment_check)
    for form in FORMS:
        model = MODELS / f"nv-embed-mini-{form}"
        report.step(
            f"mini {form} on {provider}, compared with the golden embeddings",
            lambda: golden(machine, model, *on_provider),  # noqa: B023
        )
    for form in FORMS:
        model, reference, precision = WIDE / f"wide-{form}", WIDE / "wide-fp32", form.rsplit("-")[-1]
        report.step(
            f"7B widths {form} on {provider}, compared with fp32 on the CPU",
            lambda: parity(machine, model, reference, precision, *on_provider),  # noqa: B023
        )
    for model in (MODELS / "nv-embed-mini-cuda-fp16", WIDE / "wide-cuda-fp16"):
        report.step(f"{model.name}: with and without CUDA graphs", lambda: graphs(machine, model))  # noqa: B023
    for model in (MODELS / "nv-embed-mini-fp16", WIDE / "wide-fp16"):
        report.step(f"{model.name}: with and without CUDA graphs", lambda: graphs(machine, model))  # noqa: B023
        report.step(f"{model.name}: TensorRT refuses --target any", lambda: refused(machine, model))  # noqa: B023
    report.text("## Latency and throughput")
    for model, reference in (
        (MODELS / "nv-embed-mini-fp16", MODELS / "nv-embed-mini-fp32"),
        (MODELS / "nv-embed-mini-cuda-fp16", MODELS / "nv-embed-mini-fp32"),
        (WIDE / "wide-fp16", WIDE / "wide-fp32"),
        (WIDE / "wide-cuda-fp16", WIDE / "wide-fp32"),
    ):
        timing(machine, report, model, reference, *on_provider)
        timing(machine, report, model, reference, *on_provider, "--no-cuda-graphs")

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("\n".join(report.lines).strip() + "\n")
    print(f"wrote {arguments.out}: {report.failures} steps failed")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
