"""Compute what corpora take: tokens, GPU hours, bytes, parts, money. Only the speed was measured.

make performance-tables                       # write the table in docs/guides/many-machines.md
python docs/figures/corpora.py --check        # fail if the document has another table
"""

import sys
from pathlib import Path

from tables import write_or_check

DOCUMENT = Path(__file__).resolve().parents[1] / "guides/many-machines.md"
BEGIN, END = "<!-- table: computed by docs/figures/corpora.py -->", "<!-- end of computed table -->"
# What all 32 layers reached on one H200 with 8 rows of 128 tokens (docs/lab/h200.md).
TOKENS_PER_SECOND = 30_700
TOKENS_PER_PASSAGE = 200
SHARD_ROWS = 16_384
DOLLARS_PER_HOUR = 3.0
BYTES = {"f16": 8192, "int8": 4100, "binary": 512}


def round_to_two(value: float) -> str:
    """Two digits: the assumptions have no more."""
    for divisor, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M")):
        if value >= divisor:
            return f"{float(f'{value / divisor:.2g}'):g}{unit}"
    return f"{float(f'{value:.2g}'):,g}"


def table() -> str:
    lines = [
        "| passages | tokens | GPU hours | on 8 GPUs | on 64 GPUs | " + " | ".join(BYTES) + " | parts | dollars |",
        "|---:|" + "---:|" * (6 + len(BYTES)),
    ]
    for passages in (10**6, 10**7, 10**8, 10**9):
        tokens = passages * TOKENS_PER_PASSAGE
        hours = tokens / TOKENS_PER_SECOND / 3600
        sizes = [f"{round_to_two(passages * size)}B" for size in BYTES.values()]
        figures = [f"{passages:,}", round_to_two(tokens), round_to_two(hours)]
        figures += [f"{round_to_two(hours / gpus)} h" for gpus in (8, 64)]
        figures += [*sizes, f"{-(-passages // SHARD_ROWS):,}", round_to_two(hours * DOLLARS_PER_HOUR)]
        lines.append("| " + " | ".join(figures) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(write_or_check(__doc__, DOCUMENT, BEGIN, END, f"\n\n{table()}\n\n"))
