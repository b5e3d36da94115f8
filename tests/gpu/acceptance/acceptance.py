"""Does nvembed work on this machine's GPU, and how fast? One report in Markdown.

    make gpu-acceptance                     # builds what is needed and writes build/gpu-acceptance.md

Without a GPU it runs on the CUDA shim as far as that means anything, and says of each other step that it was skipped.
Exits with 1 when a step failed.
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

import numpy as np

ROOT = Path(__file__).resolve().parents[3]
MODELS, WIDE = ROOT / "build/models", ROOT / "build/gpu-graph"
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int4")
WIDE_PRECISIONS = PRECISIONS
SHIM_NAME = "CUDA shim"
ON_SHIM = "the CUDA shim computes nothing"

# Largest 1 - cosine to the same rows in fp32 on the CPU: what `nvembed verify` allows to the float64 reference.
TOLERANCE = {"fp32": 1e-6, "fp16": 1e-4, "bf16": 2e-3, "int8": 1e-3, "int4": 5e-2}

# Dense fp16 products with fp32 sums, in TFLOP/s, from NVIDIA's data sheets; the key is a part of the driver's name.
PEAK_TFLOPS = {
    "H100 PCIe": 756,
    "H100": 989,
    "H200": 989,
    "A100": 312,
    "L40S": 362,
    "L4": 121,
    "A10": 125,
    "T4": 65,
    "RTX 4090": 165,
}
BATCH, LENGTH = "1,8,32", "16,32,128,512"


class Skipped(Exception):
    """A step that cannot be made here; the message says why."""


class Failed(Exception):
    """A step whose outcome is wrong; the message says how."""


@dataclass
class Report:
    """Steps in order, each with its outcome, and tables between them."""

    lines: list[str] = field(default_factory=list)
    failures: int = 0

    def step(self, name: str, make: Callable[[], str]) -> None:
        try:
            outcome = f"passed: {make()}"
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
    """How the program is called, and what it found."""

    nvembed: Path
    environment: dict[str, str]
    findings: list[dict]
    provider: str
    shapes: tuple[str, ...]  # what is timed, as options of `nvembed bench`

    @property
    def gpu(self) -> str:
        return next((one["found"] for one in self.findings if one["check"] == "GPU 0" and one["ok"]), "")

    @property
    def on_shim(self) -> bool:
        return SHIM_NAME in self.gpu

    def run(self, *command: object, timeout: float = 3600) -> subprocess.CompletedProcess[str]:
        arguments = [str(part) for part in command]
        return subprocess.run(arguments, env=self.environment, capture_output=True, text=True, timeout=timeout)

    def must(self, *command: object) -> str:
        done = self.run(*command)
        if done.returncode != 0:
            raise Failed(
                f"`{Path(str(command[0])).name} {command[1]}` ended with {done.returncode}: {done.stderr.strip()}"
            )
        return done.stdout

    def needs_a_gpu(self) -> None:
        if self.provider == "cpu":
            return
        if not self.gpu:
            raise Skipped("no GPU was found")
        if self.on_shim:
            raise Skipped(ON_SHIM)


def texts() -> list[str]:
    """Rows of many lengths: whole sentences of the evaluation set, alone and run together."""
    lines = (ROOT / "tests/eval/faq.jsonl").read_text().splitlines()[:64]
    sentences = [
        " ".join(str(value) for value in json.loads(line).values() if isinstance(value, str)) for line in lines
    ]
    return [" ".join(sentences[: 1 + index % 8]) if index % 4 == 0 else line for index, line in enumerate(sentences)]


def embeddings(machine: Machine, model: Path, *options: str) -> np.ndarray:
    """[N, D] for `texts()`."""
    scratch = ROOT / "build/gpu-acceptance"
    scratch.mkdir(parents=True, exist_ok=True)
    source, out = scratch / "texts.jsonl", scratch / "out.npy"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts()))
    machine.must(machine.nvembed, "embed", "--model", model, "--quiet", "-o", out, *options, source)
    return np.load(out)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """The largest 1 - cosine of rows."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    products = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    return float(1 - products.min())


def must_exist(model: Path) -> None:
    if not (model / "nvembed.json").is_file():
        raise Skipped(f"{model.name} was not exported")


def golden(machine: Machine, model: Path, *options: str) -> str:
    machine.needs_a_gpu()
    out = machine.must(machine.nvembed, "verify", "--model", model, *options)
    return out.strip().splitlines()[-1]


def parity(machine: Machine, model: Path, reference: Path, precision: str, *options: str) -> str:
    """A model on the GPU against the fp32 one on the CPU."""
    machine.needs_a_gpu()
    must_exist(model)
    must_exist(reference)
    found = distance(embeddings(machine, model, *options), embeddings(machine, reference, "--provider", "cpu"))
    if not found <= TOLERANCE[precision]:
        raise Failed(f"1 - cosine is {found:.2e}, allowed is {TOLERANCE[precision]:.0e}")
    return f"1 - cosine at most {found:.2e}"


def graphs(machine: Machine, model: Path) -> str:
    machine.needs_a_gpu()
    must_exist(model)
    on, off = (
        embeddings(machine, model, "--provider", machine.provider, *switch) for switch in ([], ["--no-cuda-graphs"])
    )
    if not np.array_equal(on, off):
        raise Failed(f"they differ by up to {np.abs(on - off).max()}")
    return "equal bit for bit"


def refused(machine: Machine, model: Path) -> str:
    must_exist(model)
    done = machine.run(machine.nvembed, "prepare", "--quiet", "--model", model, "--provider", "tensorrt")
    if done.returncode != 5 or "TensorRT ignores the row lengths" not in done.stderr:
        raise Failed(f"exit code {done.returncode}: {done.stderr.strip()}")
    return "refused: TensorRT would attend to padding"


def timing(machine: Machine, report: Report, model: Path, reference: Path, *options: str) -> None:
    """The rows of `nvembed bench`, each checked against the fp32 model on the CPU first."""
    title = f"{model.name}, {' '.join(options)}"

    def make() -> str:
        must_exist(model)
        command = [machine.nvembed, "bench", "--quiet", "--model", model, *machine.shapes, *options]
        if machine.on_shim and machine.provider != "cpu":
            lines = machine.must(*command, "--dry-run").splitlines()
            raise Skipped(f"{ON_SHIM}; {len(lines)} shapes ran without being timed")
        must_exist(reference)
        done = machine.run(*command, "--reference", reference)
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        wrong = [f"{row['workload']} is {row['status']}: {row['error']}" for row in rows if row["status"] != "ok"]
        if done.returncode != 0 or wrong:
            raise Failed("; ".join(wrong) or done.stderr.strip())
        peak = next((tflops for name, tflops in PEAK_TFLOPS.items() if name in machine.gpu), None)
        table = [
            "| rows × tokens | p50 ms | p99 ms | tokens/s | TFLOP/s | share of peak | least cosine |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in rows:
            speed, latency = row["gflop_per_s"] / 1e3, row["latency_ms"]
            share = f"{100 * speed / peak:.1f} %" if peak else "unknown GPU"
            table.append(
                f"| {row['workload']} | {latency['p50']:.2f} | {latency['p99']:.2f} | {row['tokens_per_s']:.0f} "
                f"| {speed:.2f} | {share} | {row['cosine_min']:.7f} |"
            )
        report.text(f"{title}:", "", *table)
        return f"{len(rows)} shapes"

    report.step(f"timing of {title}", make)


def doctor(machine: Machine, provider: str) -> list[dict]:
    done = machine.run(machine.nvembed, "doctor", "--provider", provider, "--json")
    if not done.stdout.startswith("["):
        raise SystemExit(f"nvembed doctor does not run: {done.stderr}")
    return json.loads(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvembed", type=Path, required=True)
    parser.add_argument("--library", type=Path, required=True, help="ONNX Runtime's GPU library")
    parser.add_argument("--shim", type=Path, help="folder of the CUDA shim, to run without a GPU")
    parser.add_argument("--provider", default="cuda", help="cpu: to try this program itself where there is no GPU")
    parser.add_argument("--batch", default=BATCH, help="rows of what is timed")
    parser.add_argument("--length", default=LENGTH, help="tokens of its rows")
    parser.add_argument("--out", type=Path, default=ROOT / "build/gpu-acceptance.md")
    arguments = parser.parse_args()

    environment = os.environ | {"ORT_DYLIB_PATH": str(arguments.library.resolve())}
    if arguments.shim:
        # Fresh memory that reads as finite numbers: runs end well, and their results mean nothing.
        environment |= {"LD_LIBRARY_PATH": str(arguments.shim.resolve()), "CUDA_SHIM_FRESH": "60"}
    shapes = ("--batch", arguments.batch, "--length", arguments.length)
    machine = Machine(arguments.nvembed.resolve(), environment, [], arguments.provider, shapes)
    machine.findings = doctor(machine, machine.provider)

    report = Report()
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    report.text(
        "# GPU acceptance", "", f"nvembed at {commit.stdout.strip() or 'an unknown commit'}, {platform.platform()}."
    )
    if machine.on_shim:
        report.text("**Not on a GPU**: on stand-ins for CUDA. What passed says nothing about a GPU's results or speed.")
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
    for precision in PRECISIONS:
        model = MODELS / f"nv-embed-mini-{precision}"
        report.step(f"mini {precision} on {provider}, float64 goldens", lambda: golden(machine, model, *on_provider))  # noqa: B023
    for precision in WIDE_PRECISIONS:
        model, reference = WIDE / f"wide-{precision}", WIDE / "wide-fp32"
        report.step(
            f"7B widths {precision} on {provider}, against fp32 on the CPU",
            lambda: parity(machine, model, reference, precision, *on_provider),  # noqa: B023
        )
    for model in (MODELS / "nv-embed-mini-fp16", WIDE / "wide-fp16"):
        report.step(f"{model.name}: CUDA graphs on and off", lambda: graphs(machine, model))  # noqa: B023
        report.step(f"{model.name}: --target any on TensorRT", lambda: refused(machine, model))  # noqa: B023
    report.text("## Latency and throughput")
    for model, reference in (
        (MODELS / "nv-embed-mini-fp16", MODELS / "nv-embed-mini-fp32"),
        (WIDE / "wide-fp16", WIDE / "wide-fp32"),
    ):
        timing(machine, report, model, reference, *on_provider)
        timing(machine, report, model, reference, *on_provider, "--no-cuda-graphs")

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("\n".join(report.lines).strip() + "\n")
    print(f"{arguments.out}, {report.failures} failed")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
