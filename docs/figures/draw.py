"""Draw the documentation's figures from its tables, so that figures and tables always agree.

    make figures

Each function names the document, the table (by the start of its header line) and the columns. The same tables give
SVG files with the same bytes.
"""

import re
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parent
BLUE, ORANGE, GREY = "#2b6cb0", "#dd6b20", "#718096"
plt.rcParams.update(
    {
        "svg.hashsalt": "nvembed",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
    }
)


def table(document, header):
    """The rows below the header line that starts with `header`, as lists of cells."""
    lines = (HERE.parent / document).read_text("utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(header))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return rows
        rows.append([cell.strip().strip("*") for cell in line.strip("|").split("|")])
    return rows


def numbers(cell):
    """All numbers of a cell: "1,024 s, 1.3e-4" gives 1024 and 0.00013."""
    return [float(found[0].replace(",", "")) for found in re.finditer(r"[0-9](,?[0-9])*(\.[0-9]+)?(e-?[0-9]+)?", cell)]


def number(cell):
    """The first number of a cell: "1.38 GB, 5.4 s" gives 1.38."""
    return numbers(cell)[0]


def save(figure, name):
    figure.tight_layout(rect=(0, 0, 1, 0.93 if figure.legends else 1))
    figure.savefig(HERE / name, metadata={"Date": None})
    plt.close(figure)


def precision():
    """Distance to fp32 against speed; each point is labelled with its size."""
    rows = [row for row in table("guides/precision.md", "| | faq ndcg@10") if row[0] not in ("fp32", "bf16")]
    figure, axes = plt.subplots(figsize=(7.2, 4.4))
    for row in rows:
        main = row[0] in ("fp16", "int8", "int4", "w8a8")
        size, distance, speed = number(row[8]), number(row[4]), number(row[10])
        axes.scatter(speed, distance, s=46, color=BLUE if main else GREY, zorder=3)
        axes.annotate(
            f"{row[0]}: {size:.0f} MB",
            (speed, distance),
            xytext=(7, 6 if "128" in row[0] else -10 if "asymmetric" in row[0] else -2),
            textcoords="offset points",
            fontsize=9 if main else 7.5,
            color="black" if main else GREY,
        )
    axes.set(yscale="log", xlim=(0.7, 3.8), ylim=(1e-8, 5e-2))
    axes.set(xlabel="speed, fp32 = 1 (8 rows of 128 tokens)", ylabel="1 − cosine to fp32, mean (nv-embed-mini)")
    axes.set_title("Precisions on the CPU; size and speed of the wide random model (fp32: 575 MB)", fontsize=10)
    axes.grid(alpha=0.25)
    save(figure, "precision.svg")


def long_texts():
    """Peak memory against text length."""
    rows = table("guides/export.md", "| tokens | nv-embed-mini")
    tokens = [number(row[0]) for row in rows]
    figure, axes = plt.subplots(figsize=(7.2, 3.8))
    mini, wide = "nv-embed-mini, fp32", "two layers at full width, int8"
    for column, label, color, line in (
        (1, mini, ORANGE, "o-"),
        (2, f"{mini}, --low-memory", ORANGE, "o:"),
        (3, wide, BLUE, "o-"),
        (4, f"{wide}, --low-memory", BLUE, "o:"),
    ):
        measured = [(number(row[0]), number(row[column])) for row in rows if numbers(row[column])]
        axes.plot(*zip(*measured, strict=True), line, color=color, label=label)
    scores = [32 * 4 * length**2 / 1e9 for length in tokens]
    axes.plot(tokens, scores, "--", color=GREY, label="scores of one layer alone, if they were stored (computed)")
    axes.set(xscale="log", yscale="log", xlabel="tokens of the text", ylabel="GB")
    axes.set_xticks(tokens, [row[0] for row in rows])
    axes.minorticks_off()
    axes.set_title("Peak memory of one text on the CPU, --target cpu", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.25)
    save(figure, "long-texts.svg")


def opening():
    """Seconds to open the 7.85 B model, the better of two runs, and a process's private memory."""
    rows = table("guides/export.md", "| how it is opened")
    figure, (seconds, memory) = plt.subplots(1, 2, figsize=(7.2, 2.8), sharey=True)
    places = range(len(rows))
    for column, label, color, shift in ((1, "files in no cache", GREY, 0.2), (2, "files in the cache", BLUE, -0.2)):
        values = [min(numbers(row[column])) for row in rows]
        seconds.barh([place + shift for place in places], values, 0.36, color=color, label=label)
    seconds.set(yticks=list(places), yticklabels=[row[0].replace("`", "") for row in rows])
    seconds.set(xlabel="seconds to open, the better of two")
    seconds.invert_yaxis()
    figure.legend(frameon=False, fontsize=8, ncols=2, loc="upper center")
    memory.barh(places, [number(row[4]) for row in rows], 0.5, color=ORANGE)
    memory.set(xlabel="GB of its own, not shared")
    for axes in (seconds, memory):
        axes.grid(alpha=0.25, axis="x")
    save(figure, "opening.svg")


if __name__ == "__main__":
    precision()
    long_texts()
    opening()
