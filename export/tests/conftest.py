"""Fixtures shared by the tests, and the table of measured figures printed at the end."""

from __future__ import annotations

from pathlib import Path

import pytest
from seeded_checkpoint import Spec, write_checkpoint

MINI = Path(__file__).resolve().parents[2] / "models" / "nv-embed-mini"
_measured: list[str] = []


@pytest.fixture(scope="session")
def measured():
    """Call it with a line; the lines are printed after the tests, whether they pass or not."""
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
    return Spec(name="small", hidden=32, layers=1, heads=4, kv_heads=2, intermediate=48, latents=5, cross_dim=8)


@pytest.fixture
def small(tmp_path, small_spec) -> Path:
    """A fresh small checkpoint that a test may damage."""
    return write_checkpoint(tmp_path / "checkpoint", small_spec)


@pytest.fixture
def out(tmp_path) -> Path:
    """An output path in a folder of its own, so that whatever else appears there is seen."""
    (tmp_path / "outputs").mkdir()
    return tmp_path / "outputs" / "model"
