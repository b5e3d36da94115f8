"""The steps of the acceptance."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
from peaks import peak_tflops
from report import Failed, Report, Skipped

from machine import ON_SHIM, Machine

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "benches" / "peers"))

from rows import workload_name  # noqa: E402


def must_exist(model: Path) -> None:
    if not (model / "nvembed.json").is_file():
        raise Skipped(f"{model.relative_to(ROOT)} is missing")


def golden(machine: Machine, model: Path) -> str:
    """The model's golden texts, alone and in batches, against the float64 reference that the exporter computed."""
    machine.needs_a_gpu()
    must_exist(model)
    out = machine.must(machine.nvembed, "verify", "--model", model, "--provider", machine.provider)
    return out.strip().splitlines()[-1]


def engines(machine: Machine, model: Path) -> str:
    machine.needs_a_gpu()
    must_exist(model)
    machine.must(machine.nvembed, "prepare", "--quiet", "--model", model, "--provider", machine.provider)
    return "built"


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


def graphs(machine: Machine, model: Path) -> str:
    machine.needs_cuda("CUDA graphs")
    must_exist(model)
    on, off = (embeddings(machine, model, *switch) for switch in ([], ["--no-cuda-graphs"]))
    if not np.array_equal(on, off):
        raise Failed(f"the embeddings differ by up to {np.abs(on - off).max()}")
    return "the embeddings are bit for bit equal"


def refused(machine: Machine, model: Path) -> str:
    must_exist(model)
    done = machine.run(machine.nvembed, "prepare", "--quiet", "--model", model, "--provider", "tensorrt")
    if done.returncode != 5 or "TensorRT ignores the row lengths" not in done.stderr:
        raise Failed(f"exit code {done.returncode}: {done.stderr.strip()}")
    return "refused, since TensorRT would attend to padding"


def device_tests(machine: Machine, report: Report, command: str, models: list[Path]) -> None:
    """The tests of tests/device on these models, each in a process of its own: what one spoils is new to the next."""
    program = shlex.split(command)
    listed = machine.run(*program, "--list")
    names = re.findall(r"^(.+): test$", listed.stdout, re.M)

    def some() -> str:
        if not names:
            raise Failed(f"`{command} --list` exited with {listed.returncode}: {listed.stderr.strip()[-2000:]}")
        return f"{len(names)} tests"

    report.step("tests on the device are there", some)
    for name in names:
        for model in models:

            def one(name: str = name, model: Path = model) -> str:
                machine.needs_cuda("these tests")
                must_exist(model)
                out = machine.must(*program, name, "--exact", "--nocapture", NVEMBED_DEVICE_MODELS=str(model))
                return "; ".join(re.findall(r"found: [^:]+: (.*)", out)) or "nothing to report"

            report.step(f"{model.name}: {name.split('::')[-1].replace('_', ' ')}", one)


def timing(machine: Machine, report: Report, model: Path, shapes: list[str], *options: str) -> None:
    """Run `nvembed bench`, which compares the golden embeddings before it times anything."""
    title = " ".join([model.name, *options])

    def run() -> str:
        if options:
            machine.needs_cuda("these options")
        must_exist(model)
        command = [machine.nvembed, "bench", "--quiet", "--model", model, *shapes, *machine.opening(*options)]
        if machine.on_shim:
            lines = machine.must(*command, "--dry-run").splitlines()
            raise Skipped(f"{ON_SHIM}; {len(lines)} shapes ran and were not timed")
        machine.needs_a_gpu()
        done = machine.run(*command)
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        with (ROOT / "build/gpu-acceptance.jsonl").open("a") as kept:
            kept.write(done.stdout)
        wrong = [f"{workload_name(row)} is {row['status']}: {row['error']}" for row in rows if row["status"] != "ok"]
        if done.returncode != 0 or wrong:
            raise Failed("; ".join(wrong) or done.stderr.strip())
        peak = peak_tflops(machine.gpu)
        table = [
            "| rows × tokens | p50 ms | p99 ms | tokens/s | TFLOP/s | share of peak |",
            "|---|---|---|---|---|---|",
        ]
        for row in rows:
            speed, latency = row["gflop_per_s"] / 1e3, row["latency_ms"]
            share = f"{100 * speed / peak:.1f} %" if peak else "unknown GPU"
            table.append(
                f"| {workload_name(row)} | {latency['p50']:.2f} | {latency['p99']:.2f} | {row['tokens_per_s']:.0f} "
                f"| {speed:.2f} | {share} |"
            )
        report.text(f"{title}:", "", *table)
        return f"{len(rows)} shapes"

    report.step(f"timing of {title}", run)


def commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "an unknown commit"
