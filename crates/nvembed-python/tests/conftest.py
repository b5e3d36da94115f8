"""The mini model, and the program to compare with."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from nvembed import Embedder

ROOT = Path(__file__).resolve().parents[3]
MODEL = ROOT / "build/models/nv-embed-mini-fp32"
CHECKPOINT = ROOT / "models/nv-embed-mini"
TASK = "Given a question, retrieve passages that answer the question"
TEXTS = [
    "who wrote the odyssey?",
    "The Odyssey is one of two major ancient Greek epic poems attributed to Homer.",
    "",
    "naïve façade – 東京 🗼 \ud7a3",
    " ".join(["a text of many words, some of which are longer than others"] * 12),
]


def pytest_configure(config):
    config.addinivalue_line("markers", "wheel: needs what `make test-wheel` installs")


@pytest.fixture(scope="session")
def model():
    return Embedder(MODEL)


@pytest.fixture(scope="session")
def program():
    """Embeds texts with `nvembed embed`; returns the array."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))

    def embed(texts, folder, *options):
        out = Path(folder) / "out.npy"
        lines = "".join(f"{text}\n" for text in texts)
        command = [target / "debug/nvembed", "embed", "-q", "-m", MODEL, "-o", out, *options]
        subprocess.run(command, input=lines.encode(), check=True)
        return np.load(out)

    return embed
