"""Writes result rows as a Markdown table and puts it between markers in a document."""

from __future__ import annotations

import statistics
from pathlib import Path

from rows import workload_name


def spread(values: list[float]) -> str:
    """The median and, for several rounds, the smallest and largest value."""
    middle = f"{statistics.median(values):.2f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.2f}–{max(values):.2f})"


def ratios(rows: list[dict], peer: str, workload: str, against: list[str]) -> list[float]:
    """For each round, the tokens per second of the fastest of `against` divided by the peer's, at this workload."""

    def speeds(name):
        return {
            row["round"]: row["tokens_per_s"]
            for row in rows
            if row["peer"] == name and workload_name(row) == workload and row["status"] == "ok"
        }

    other, own = [speeds(name) for name in against], speeds(peer)
    return [
        max(speed[round_] for speed in other if round_ in speed) / own[round_]
        for round_ in sorted(own)
        if any(round_ in speed for speed in other)
    ]


def table(rows: list[dict]) -> str:
    """One line per peer: cosine, tokens/s of each workload with nvembed's speed relative to it, memory, problems."""
    workloads = list(dict.fromkeys(workload_name(row) for row in rows))
    peers = list(dict.fromkeys(row["peer"] for row in rows))
    precision = {row["peer"]: row["precision"] for row in rows}
    ours = [name for name in peers if name.startswith("nvembed ")]
    lines = [
        "| tokens/s | 1 − cosine | " + " | ".join(workloads) + " | memory, GB |",
        "|---|---" + "|---:" * len(workloads) + "|---:|",
    ]
    notes = []
    for name in peers:
        own = [row for row in rows if row["peer"] == name]
        problems = [f"{row['status']}: {row['error']}" for row in own if row["status"] != "ok"]
        cosines = [row["cosine_min"] for row in own if row["cosine_min"] is not None]
        memory = [row["peak_memory_bytes"] for row in own if row["peak_memory_bytes"]]
        ranked = own[0]["part"] == "full"
        cells = []
        for workload in workloads:
            speeds = [row["tokens_per_s"] for row in own if workload_name(row) == workload and row["tokens_per_s"]]
            if not speeds:
                cells.append("–")
                continue
            text = f"{statistics.median(speeds):,.0f}"
            if ranked and name not in ours:
                equal = [one for one in ours if precision[one] == precision[name]]
                against = ratios(rows, name, workload, equal)
                text += f"; {spread(against)}" if against else ""
            elif name in ours[1:]:
                text += f"; {spread([1 / ratio for ratio in ratios(rows, name, workload, ours[:1])])}†"
            cells.append(text)
        label = name if ranked else f"({name})"
        if problems:
            notes.append(f"- {name}: {problems[0]}")
            label += " ‡"
        cosine = f"{max(0.0, 1 - min(cosines)):.0e}" if cosines else "–"
        gigabytes = f"{max(memory) / 1e9:.1f}" if memory else "–"
        lines.append(f"| {label} | {cosine} | " + " | ".join(cells) + f" | {gigabytes} |")
    return "\n".join([*lines, *(["", "‡ Not measured in at least one column:", "", *notes] if notes else [])])


def heading(rows: list[dict]) -> str:
    """Machine, versions, commit and command, in one sentence."""
    first = rows[0]
    versions = {}
    for row in rows:
        versions |= {name: value for name, value in (row.get("versions") or {}).items() if name != "threads"}
    loads = [row["load"] for row in rows if row["load"] is not None]
    return (
        f"{first['processor']} ({', '.join(first['processor_flags'])}), {first['cores']} cores, {first['threads']} "
        f"threads, {first['system']}, load {min(loads):.1f} to {max(loads):.1f}; "
        + ", ".join(f"{name} {value}" for name, value in sorted(versions.items()))
        + f", Python {first['python']}; rounds: {1 + max(row['round'] for row in rows)}; commit {first['commit']}; "
        f"`{first['command']}`."
    )


def write_between(document: Path, name: str, content: str) -> None:
    """Replace the text between the markers of `name`. Raises ValueError unless each marker occurs exactly once."""
    start, end = f"<!-- {name}: written by compare.py -->", f"<!-- end of {name} -->"
    text = document.read_text("utf-8")
    if text.count(start) != 1 or text.count(end) != 1:
        raise ValueError(f"{document}: expected the markers {start} and {end} exactly once each")
    before, rest = text.split(start)
    document.write_text(f"{before}{start}\n\n{content}\n\n{end}{rest.split(end)[1]}", "utf-8")
