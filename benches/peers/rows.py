"""Result rows: the fields of `nvembed bench` with the same meaning, and some more.

docs/guides/model-folder.md describes the fields, crates/nvembed-bench/src/row.rs defines them.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCHEMA_VERSION = 2
# What is measured: changes elsewhere do not mark a commit as changed.
MEASURED = ("src", "crates", "Cargo.toml", "Cargo.lock", "export", "benches/peers", ":!*.md")


def facts(threads: int) -> dict:
    """Machine, commit and command."""
    cpuinfo = Path("/proc/cpuinfo")
    info = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    field = {line.split(":")[0].strip(): line.split(":", 1)[1].strip() for line in info if ":" in line}
    interesting = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
    return {
        "processor": field.get("model name", "unknown"),
        "processor_flags": [flag for flag in interesting if flag in field.get("flags", "").split()],
        "cores": os.cpu_count(),
        "system": f"{platform.system().lower()} {platform.machine()}",
        "threads": threads,
        "nvembed": re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.M)[1],
        "commit": commit(),
        "python": platform.python_version(),
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
    }


def commit() -> str | None:
    """The checked-out commit, followed by ", changed" if what is measured differs from it; None without git."""
    git = ["git", "-C", str(ROOT)]
    try:
        name = subprocess.check_output([*git, "rev-parse", "--short", "HEAD"], text=True).strip()
        changed = subprocess.check_output([*git, "status", "--porcelain", "--", *MEASURED], text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{name}, changed" if changed else name


def shape(batch: int, length: int) -> dict:
    """A row's `workload`: `batch` texts of `length` tokens each."""
    return {"kind": "shape", "batch": batch, "length": length}


def workload_name(row: dict) -> str:
    """The name of a row's workload: "8x128" (rows x tokens), "texts" or "texts at 20/s"."""
    kind, rate = row["workload"], row["rate_per_s"]
    name = f"{kind['batch']}x{kind['length']}" if kind["kind"] == "shape" else kind["kind"]
    return name if rate is None else f"{name} at {rate:g}/s"


def row(peer, model: str, workload: dict, round_: int, status: str = "ok", **values) -> dict:
    """A result row; fields that were not measured are null."""
    empty = dict.fromkeys(
        """error quantization gpu rate_per_s padding_waste cosine_min verified_against latency_ms tokens_per_s
        texts_per_s session_share gflop_per_s peak_gflop_per_s share_of_peak open_s peak_memory_bytes
        device_memory_bytes onnxruntime""".split()
    )
    name = peer.name.removesuffix(f" {peer.precision}")
    load = Path("/proc/loadavg")
    return (
        {
            "schema_version": SCHEMA_VERSION,
            "status": status,
            "model": model,
            "folder": "",
            "precision": peer.precision,
            "target": "cpu",
            "provider": {"nvembed": "cpu", "nvembed on OpenVINO": "openvino"}.get(name, name),
            "peer": peer.name,
            "part": peer.part,
            "workload": workload,
            "round": round_,
            "rows": 0,
            "tokens": 0,
            "calls": 0,
            "time_unix_s": int(time.time()),
            "load": float(load.read_text().split()[0]) if load.exists() else None,
        }
        | empty
        | values
    )


def latency(times_ms: list[float]) -> dict:
    """Percentiles by nearest rank, in milliseconds."""
    ordered = sorted(times_ms)
    ranks = {"min": 0, "p50": 50, "p90": 90, "p99": 99, "max": 100}
    return {name: ordered[max(1, -(-len(ordered) * rank // 100)) - 1] for name, rank in ranks.items()}


def speed(cell, times_ms: list[float], cpu_s: float | None = None) -> dict:
    """The fields of a timed cell. Speeds use the median call; `cpu_s` is the processor time of all calls together."""
    typical = latency(times_ms)["p50"] / 1e3
    return {
        "rows": cell.rows,
        "tokens": cell.rows * cell.length,
        "calls": len(times_ms),
        # Fewer cores than threads, where other peers use them all, means that another program was running.
        "cores_used": cpu_s and round(1e3 * cpu_s / sum(times_ms), 2),
        "padding_waste": 0.0,
        "latency_ms": latency(times_ms),
        "tokens_per_s": cell.rows * cell.length / typical,
        "texts_per_s": cell.rows / typical,
    }
