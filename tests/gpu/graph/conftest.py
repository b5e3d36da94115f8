"""Fixtures for the models and the shim, and the measured figures printed after the tests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

BUILD = Path(__file__).resolve().parents[3] / "build"
_measured: list[str] = []


@dataclass(frozen=True)
class ModelFolder:
    """A model folder written by the exporter."""

    folder: Path

    @property
    def graph(self) -> Path:
        return self.folder / "model.onnx"

    @property
    def manifest(self) -> dict:
        return json.loads((self.folder / "nvembed.json").read_text())


def pytest_configure(config):
    config.addinivalue_line("markers", "full_width: needs the model of the 7B widths, 1.6 GB, and 5 GB of memory")


@pytest.fixture(scope="session")
def shim() -> Path:
    return BUILD / "cuda-shim"


@pytest.fixture
def model(request) -> ModelFolder:
    """The exported model whose name is the test's parameter."""
    return ModelFolder(BUILD / "gpu-graph" / request.param)


@pytest.fixture(scope="session")
def measured():
    """A function that takes a line of text. The lines are printed after the tests."""
    return _measured.append


def pytest_terminal_summary(terminalreporter):
    if _measured:
        terminalreporter.section("measured")
        for line in _measured:
            terminalreporter.write_line(line)
