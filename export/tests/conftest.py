"""Shared fixtures, and the list of measured figures printed after the tests."""

from __future__ import annotations

from pathlib import Path

import committed
import numpy as np
import pytest
from packing import pack
from questions import MINI, SMALL
from seeded_checkpoint import Spec, write_checkpoint

_measured: list[str] = []


def pytest_addoption(parser):
    parser.addoption("--live", action="store_true", help="ask PyTorch (.venv-torch) instead of its committed answers")


@pytest.fixture(scope="session")
def measured():
    """Call it with a line to print after the tests, whether they pass or fail."""
    return _measured.append


def pytest_terminal_summary(terminalreporter):
    if _measured:
        terminalreporter.section("measured")
        for line in _measured:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def mini() -> Path:
    return MINI


@pytest.fixture(scope="session")
def small_spec() -> Spec:
    """The smallest model that has every part; for tests of everything but numerics."""
    return SMALL


@pytest.fixture(scope="session")
def torch_says(request):
    """(question, checkpoint, rows) -> PyTorch's embeddings [rows, D]: as committed, or with --live computed now."""
    if not request.config.getoption("--live"):
        return committed.answer

    from reference_torch import ReferenceModel

    def ask(question, checkpoint, rows) -> np.ndarray:
        return ReferenceModel(checkpoint).embed(*pack(rows))

    return ask


@pytest.fixture
def small(tmp_path, small_spec) -> Path:
    """A fresh small checkpoint that a test may damage."""
    return write_checkpoint(tmp_path / "checkpoint", small_spec)


@pytest.fixture
def out(tmp_path) -> Path:
    """An output path in its own folder, so that tests can see everything that is created beside it."""
    (tmp_path / "outputs").mkdir()
    return tmp_path / "outputs" / "model"
