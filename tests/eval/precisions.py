"""Measure every precision of nv-embed-mini and of a wide random model for the table in docs/guides/precision.md.

    python tests/eval/precisions.py                 # print the table
    python tests/eval/precisions.py --write         # also put it between the markers in docs/guides/precision.md

Quality is measured on the evaluation sets in this folder and as cosine to the fp32 graph; size is that of the weights
file; speed is relative to fp32 on this machine. Runs of all models alternate, so that a busy machine slows all of them.
bf16 runs with fp32 sums between bf16 values (export/tests/bf16_on_cpu.py), so its speed is not measured. The wide model
is half as wide as the 7B model and has two layers and, like Mistral, large channels in the residual stream.
Needs the exporter and the requirements of its tests; takes about ten minutes on two cores.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "export"))
sys.path.insert(0, str(Path(__file__).parents[2] / "export" / "tests"))

import numpy as np
import onnxruntime
from nvembed_export.export import ExportOptions, export
from packing import tokenize
from running import Model, cosines
from score import SETS, evaluate
from seeded_checkpoint import Spec, write_checkpoint

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "guides" / "precision.md"
MINI = ROOT / "models" / "nv-embed-mini"
WIDE = Spec("wide", 12, 2048, 2, 16, 4, None, 5632, 64, 4, 512, vocab=1024, dtype="F16", outliers=30.0)
TOKENS_PER_BATCH = 4096
SHAPES = ((1, 32), (8, 128))  # rows × tokens: a query, a batch of passages
ROUNDS = 7

VARIANTS = [(name, {"precision": name}) for name in ("fp32", "fp16", "bf16", "int8", "int4")] + [
    ("w8a8", {"precision": "w8a8", "target": "cpu"}),
    ("int8, accuracy level 1", {"precision": "int8", "accuracy_level": 1}),
    ("int8, blocks of 128", {"precision": "int8", "block_size": 128}),
    ("int4, accuracy level 1", {"precision": "int4", "accuracy_level": 1}),
    ("int4, blocks of 128", {"precision": "int4", "block_size": 128}),
    ("int4, asymmetric", {"precision": "int4", "symmetric": False}),
]


def embed(model, rows):
    """Rows of (ids, number of leading ids not pooled) -> float64 [N, D], in batches of similar lengths."""
    order, found = sorted(range(len(rows)), key=lambda row: -len(rows[row][0])), {}
    while order:
        size = max(1, TOKENS_PER_BATCH // len(rows[order[0]][0]))
        chosen, order = order[:size], order[size:]
        found |= dict(zip(chosen, model([rows[row] for row in chosen]), strict=True))
    return np.stack([found[row] for row in range(len(rows))])


def quality(folder, sets, rows_of):
    """The figures of every set, and the embeddings that they come from."""
    kept = []

    def run(requests):
        kept.append(embed(Model(folder), rows_of(requests)))
        return kept[0]

    return evaluate(sets, run), kept[0]


def speeds(folders):
    """{label: speed for each of SHAPES relative to the first label}, as medians of the ratios within each round."""
    rng, models = np.random.default_rng(0), {label: Model(folder) for label, folder in folders.items()}
    ratios = {label: [] for label in folders}
    for count, length in SHAPES:
        rows = [(rng.integers(3, 300, length).tolist(), 0) for _ in range(count)]
        taken = {label: [] for label in folders}
        for _ in range(ROUNDS + 1):
            for label, model in models.items():
                start = time.perf_counter()
                model(rows)
                taken[label].append(time.perf_counter() - start)
        first = np.array(taken[next(iter(folders))][1:])  # the first round warms up
        for label, seconds in taken.items():
            ratios[label].append(float(np.median(first / seconds[1:])))
    return ratios


def table(work, sets, rows_of, wide):
    """A Markdown table with one row per variant. Variants are compared with the first one."""
    wide_rows = [(np.random.default_rng(n).integers(3, 300, n).tolist(), n // 4) for n in (4, 12, 33, 64, 100, 128)]
    results, folders = {}, {}
    for label, options in VARIANTS:
        print(label, file=sys.stderr)
        mini, big = work / f"mini {label}", work / f"wide {label}"
        export(MINI, mini, ExportOptions(golden=False, **options))
        export(wide, big, ExportOptions(golden=False, **options))
        figures, embeddings = quality(mini, sets, rows_of)
        sizes = [(folder / "model.onnx.data").stat().st_size / 1e6 for folder in (mini, big)]
        results[label] = figures, embeddings, sizes, embed(Model(big), wide_rows)
        if options["precision"] != "bf16":
            folders[label] = big
    ratios = speeds(folders)
    base_figures, base, _, base_wide = results[VARIANTS[0][0]]
    names = [s.name for s in sets]
    metric = {name: next(iter(base_figures[name])) for name in names}
    lines = [
        "| | " + " | ".join(f"{name} {metric[name]}" for name in names) + " | 1 − cosine, mean | max | wide, max "
        "| MB | wide MB | " + " | ".join(f"speed {count} × {length}" for count, length in SHAPES) + " |",
        "|---" * (1 + len(names) + 5 + len(SHAPES)) + "|",
    ]
    for label, (figures, embeddings, sizes, big) in results.items():
        away, wide_away = 1 - cosines(embeddings, base), 1 - cosines(big, base_wide)
        cells = []
        for name in names:
            value, moved = figures[name][metric[name]], figures[name][metric[name]] - base_figures[name][metric[name]]
            cells.append(f"{100 * value:.2f} ({100 * moved:+.2f})")
        cells += [f"{abs(number):.1e}" for number in (away.mean(), away.max(), wide_away.max())]
        cells += [f"{size:.1f}" for size in sizes]
        cells += [f"{ratio:.2f}" for ratio in ratios[label]] if label in ratios else ["–"] * len(SHAPES)
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machine():
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    processor = next((line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")), "?")
    flags = [name for name in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if f" {name} " in info]
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.check_output([*git, "rev-parse", "--short", "HEAD"], text=True).strip()
    # Changes in other files do not affect the figures.
    if subprocess.check_output([*git, "status", "--porcelain", "export/nvembed_export", "models"]):
        commit += ", changed"
    return (
        f"{processor}, {os.cpu_count()} cores ({', '.join(flags)}), {platform.system()}; onnxruntime "
        f"{onnxruntime.__version__}, numpy {np.__version__}, Python {platform.python_version()}; commit "
        f"{commit}; `python tests/eval/precisions.py --write`."
    )


def replace_between(text, name, content):
    start, end = f"<!-- {name}: written by tests/eval/precisions.py -->", f"<!-- end of {name} -->"
    before, rest = text.split(start)
    return f"{before}{start}\n\n{content}\n\n{end}{rest.split(end)[1]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="also replace the table in docs/guides/precision.md")
    args = parser.parse_args()
    # Only the committed sets; all their texts are tokenized in one call.
    sets, tokens = [s for s in SETS if s.path.parent == Path(__file__).resolve().parent], {}

    def rows_of(requests):
        if not tokens:
            tokens["rows"] = tokenize(MINI / "tokenizer.json", requests)
        return tokens["rows"]

    parts = {"machine": machine()}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        wide = write_checkpoint(work / "checkpoint", WIDE)
        parts["table"] = table(work, sets, rows_of, wide)
    print("\n\n".join(parts.values()))
    if args.write:
        text = DOCUMENT.read_text("utf-8")
        for name, content in parts.items():
            text = replace_between(text, name, content)
        DOCUMENT.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
