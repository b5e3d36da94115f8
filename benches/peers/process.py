"""The counterpart of worker.py: starts a peer's process and sends it requests."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile

import numpy as np


class PeerFailed(Exception):
    """The peer did not start, exited, or answered with an error; the message is its own."""


class PeerProcess:
    """A running peer. Memory and processor time are the operating system's figures for its process."""

    def __init__(self, arguments: list[str], threads: int):
        environment = os.environ | {
            name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
        }
        # A peer may log anything to stderr; the last line is reported if it exits.
        self.log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115, closed with the process
        try:
            self.process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.log,
                text=True,
                env=environment,
            )
        except OSError as error:
            raise PeerFailed(f"{arguments[0]} did not start: {error}") from error
        try:
            ready = self._answer()
        except PeerFailed:
            self.close()
            raise
        self.open_s, self.versions = ready["open_s"], ready["versions"]

    def embed(self, prompts) -> np.ndarray:
        """The embeddings, [N, D], as the peer returned them."""
        return np.array(self._ask({"prompts": prompts})["embeddings"])

    def time(self, prompts, seconds: float, min_calls: int) -> list[float]:
        """Time of each call in milliseconds. There is no warm-up, so the prompts must have been embedded before."""
        return self._ask({"prompts": prompts, "seconds": seconds, "min_calls": min_calls})["times_ms"]

    def peak_memory(self) -> int | None:
        """The largest resident memory so far, in bytes; None if /proc does not have it."""
        try:
            with open(f"/proc/{self.process.pid}/status") as status:
                fields = dict(line.split(":", 1) for line in status)
            return int(fields["VmHWM"].split()[0]) * 1024
        except (OSError, KeyError):
            return None

    def cpu_s(self) -> float | None:
        """Processor time of all threads so far, in seconds; None if /proc does not have it."""
        try:
            with open(f"/proc/{self.process.pid}/stat") as stat:
                user, system = stat.read().rpartition(")")[2].split()[11:13]
            return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
        except OSError:
            return None

    def close(self) -> None:
        """Close the peer's input and wait for it to exit; kill it after 30 seconds."""
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            print(f"killing a peer that did not exit within 30 s: {self.process.args}", file=sys.stderr)
            self.process.kill()
            self.process.wait()
        self.log.close()

    def _ask(self, request: dict) -> dict:
        with contextlib.suppress(BrokenPipeError):  # if the peer has exited, _answer raises PeerFailed
            print(json.dumps(request), file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self.log.seek(0)
            said = [line.strip() for line in self.log if line.strip()]
            raise PeerFailed(f"exited with code {code}: {said[-1] if said else 'no output on stderr'}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerFailed(answer["error"])
        return answer
