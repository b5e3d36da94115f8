"""The mark of tests that compare with PyTorch, and where the exporter's helpers are."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "export" / "tests"))


def pytest_configure(config):
    config.addinivalue_line("markers", "torch: needs PyTorch, and models and a program to compare; make test-torch")
