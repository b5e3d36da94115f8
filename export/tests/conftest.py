"""Shared fixtures, and the list of measured figures printed after the tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from seeded_checkpoint import Spec, write_checkpoint

MINI = Path(__file__).resolve().parents[2] / "models" / "nv-embed-mini"
_measured: list[str] = []


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
    """The smallest model that has every part, for all tests except numeric ones."""
    return Spec(name="small", hidden=32, layers=1, heads=4, kv_heads=2, intermediate=48, latents=5, cross_dim=8)


@pytest.fixture
def small(tmp_path, small_spec) -> Path:
    """A fresh small checkpoint that a test may damage."""
    return write_checkpoint(tmp_path / "checkpoint", small_spec)


@pytest.fixture
def out(tmp_path) -> Path:
    """An output path in its own folder, so that tests can see everything that is created beside it."""
    (tmp_path / "outputs").mkdir()
    return tmp_path / "outputs" / "model"
