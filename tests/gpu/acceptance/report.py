"""A report of steps with their outcomes, in Markdown."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


class Skipped(Exception):
    """The step cannot run here; the message is the reason."""


class Failed(Exception):
    """The step ran and its result is wrong; the message is the reason."""


@dataclass
class Report:
    """Steps in order with their outcomes, and tables between them."""

    lines: list[str] = field(default_factory=list)
    failures: int = 0

    def step(self, name: str, run: Callable[[], str]) -> None:
        start = time.monotonic()
        try:
            outcome = f"passed: {run()}"
        except Skipped as reason:
            outcome = f"SKIPPED: {reason}"
        except Failed as reason:
            self.failures += 1
            outcome = f"**FAILED**: {reason}"
        print(f"{name}: {outcome} ({time.monotonic() - start:.1f} s)", flush=True)
        self.lines.append(f"- {name}: {outcome}")

    def text(self, *lines: str) -> None:
        self.lines.extend(["", *lines, ""])
