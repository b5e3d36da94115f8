"""The other end of worker.py: a peer's process, started and asked."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile

import numpy as np


class PeerFailed(Exception):
    """The peer did not start, ended, or answered with an error; the message is what it said."""


class PeerProcess:
    """A peer that is running. Its memory is that of the operating system's count for this process."""

    def __init__(self, arguments: list[str], threads: int):
        environment = os.environ | {
            name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
        }
        # Beside the answers a peer may say what it likes; the end of it is its last word.
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
            raise PeerFailed(f"{arguments[0]} does not start: {error}") from error
        try:
            ready = self._answer()
        except PeerFailed:
            self.close()
            raise
        self.open_s, self.versions = ready["open_s"], ready["versions"]

    def embed(self, prompts) -> np.ndarray:
        """[N, D] rows, as the peer gave them."""
        return np.array(self._ask({"prompts": prompts})["embeddings"])

    def time(self, prompts, seconds: float, min_calls: int) -> list[float]:
        """Milliseconds of each call; nothing warms up, so the prompts must have been embedded before."""
        return self._ask({"prompts": prompts, "seconds": seconds, "min_calls": min_calls})["times_ms"]

    def peak_memory(self) -> int | None:
        """The largest resident memory so far, in bytes, where Linux tells."""
        try:
            with open(f"/proc/{self.process.pid}/status") as status:
                fields = dict(line.split(":", 1) for line in status)
            return int(fields["VmHWM"].split()[0]) * 1024
        except (OSError, KeyError):
            return None

    def cpu_s(self) -> float | None:
        """Processor time used so far, all threads together, in seconds, where Linux tells."""
        try:
            with open(f"/proc/{self.process.pid}/stat") as stat:
                user, system = stat.read().rpartition(")")[2].split()[11:13]
            return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
        except OSError:
            return None

    def close(self) -> None:
        """End the process."""
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            print("a peer did not end by itself and is killed", file=sys.stderr)
            self.process.kill()
            self.process.wait()
        self.log.close()

    def _ask(self, request: dict) -> dict:
        with contextlib.suppress(BrokenPipeError):  # if it has ended, the missing answer says so
            print(json.dumps(request), file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self.log.seek(0)
            said = [line.strip() for line in self.log if line.strip()]
            raise PeerFailed(f"ended with code {code}: {said[-1] if said else 'said nothing'}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerFailed(answer["error"])
        return answer
