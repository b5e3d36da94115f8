"""The program on this machine, and what `nvembed doctor` says of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from report import Failed, Skipped

SHIM_NAME = "CUDA shim"
ON_SHIM = "the CUDA shim computes nothing"


@dataclass
class Machine:
    """How to run the program, and what `nvembed doctor` found."""

    nvembed: Path
    environment: Mapping[str, str]
    provider: str
    findings: list[dict]

    @classmethod
    def examine(cls, nvembed: Path, environment: Mapping[str, str], provider: str) -> Machine:
        command = [nvembed, "doctor", "--provider", provider, "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if not done.stdout.startswith("["):
            raise SystemExit(f"`nvembed doctor` printed no report: {done.stderr.strip()}")
        return cls(nvembed, environment, provider, json.loads(done.stdout))

    @property
    def gpu(self) -> str:
        return next((one["found"] for one in self.findings if one["check"] == "GPU 0" and one["ok"]), "")

    @property
    def on_shim(self) -> bool:
        return SHIM_NAME in self.gpu

    def opening(self, *options: str) -> list[str]:
        """Options that open a model: on the shim without the self-check, since nothing is computed there."""
        return ["--provider", self.provider, *options, *(["--no-self-check"] if self.on_shim else [])]

    def run(self, *command: object, **environment: str) -> subprocess.CompletedProcess[str]:
        arguments = [str(part) for part in command]
        return subprocess.run(
            arguments, env={**self.environment, **environment}, capture_output=True, text=True, timeout=3600
        )

    def must(self, *command: object, **environment: str) -> str:
        """What the command prints.

        Raises Failed if it fails.
        """
        done = self.run(*command, **environment)
        if done.returncode != 0:
            raise Failed(
                f"`{Path(str(command[0])).name} {command[1]}` exited with {done.returncode}: "
                f"{(done.stderr + done.stdout).strip()[-2000:]}"
            )
        return done.stdout

    def needs_a_gpu(self) -> None:
        if self.provider == "cpu":
            return
        if not self.gpu:
            raise Skipped("no GPU found")
        if self.on_shim:
            raise Skipped(ON_SHIM)
        wrong = [one for one in self.findings if not one["ok"]]
        if wrong and self.provider == "tensorrt":
            raise Skipped("; ".join(f"{one['check']}: {' '.join(one['found'].split())}" for one in wrong))

    def needs_cuda(self, what: str) -> None:
        if self.provider != "cuda":
            raise Skipped(f"{what} are for cuda, not for {self.provider}")
        self.needs_a_gpu()
