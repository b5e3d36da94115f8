"""How far embeddings may be from a reference, for each precision: the limits that `nvembed verify` applies.

src/model/precision.rs has the only table of these limits. `nvembed inspect --json` prints it, and this reads it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np

# {"largest_difference": limit} or {"cosine_distance": limit}
Limit = dict[str, float]

MEASURES = {
    "largest_difference": "the largest absolute difference",
    "cosine_distance": "the largest 1 - cosine",
}


def read(nvembed: Path, environment: Mapping[str, str] | None = None) -> dict[str, Limit]:
    """The limit of each precision. Raises FileNotFoundError without the program, ValueError if it prints no table."""
    command = [str(nvembed), "inspect", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    # The exit code does not matter: without ONNX Runtime the program fails after printing the table.
    try:
        found = json.loads(done.stdout)["tolerances"]
    except (json.JSONDecodeError, KeyError) as error:
        raise ValueError(f"`{' '.join(command)}` printed no tolerances: {done.stderr.strip()}") from error
    for precision, limit in found.items():
        if len(limit) != 1 or not limit.keys() <= MEASURES.keys():
            raise ValueError(f"the tolerance of {precision} is {limit}, expected one of {', '.join(MEASURES)}")
    return found


def distances(found: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """How far [N, D] unit rows are from the reference in each measure: the largest value of any row."""
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return {
        "largest_difference": float(np.abs(found - wanted).max()),
        "cosine_distance": float(1 - ((found * wanted).sum(1) / lengths).min()),
    }


def problem(found: dict[str, float], limit: Limit) -> str | None:
    """What is wrong with these distances, or None if they are within the limit. NaN is never within it."""
    ((measure, bound),) = limit.items()
    if found[measure] <= bound:
        return None
    return f"{MEASURES[measure]} is {found[measure]:.2e}, the limit is {bound:.0e}"
