"""Compare nvembed with its peers: `compare.py CHECKPOINT MODELS -o ROWS.jsonl`. README.md describes the method.

In each round, as many peers as fit into memory are open at once and take turns at every cell; then the next group
follows. Embeddings are compared with a float64 reference before a cell is timed; wrong ones are reported, not timed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import limits
import numpy as np
import rows as results
import table
from peers import PEERS, PROGRAM, Peer
from process import PeerFailed, PeerProcess
from texts import AWKWARD, Cell, cells

HERE = Path(__file__).resolve().parent


class Reference:
    """The float64 embeddings of the awkward texts and of the texts of every cell."""

    def __init__(self, checkpoint: Path, cells: list[Cell], threads: int):
        batches = [[prompt] for prompt in AWKWARD] + [list(cell.prompts) for cell in cells]
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "reference.npz"
            command = [sys.executable, HERE / "reference.py", checkpoint, str(threads), out]
            subprocess.run(command, input=json.dumps(batches), text=True, check=True)
            found = dict(np.load(out))
        self.name = "PyTorch in float64"
        self.answers = {}
        for part, answers in found.items():
            ends = np.cumsum([len(AWKWARD), *(cell.rows for cell in cells)])
            names = ["awkward", *(cell.name for cell in cells)]
            self.answers[part] = dict(zip(names, np.split(answers, ends[:-1]), strict=True))

    def distances(self, part: str, name: str, found: np.ndarray) -> dict[str, float]:
        """How far the rows are from the reference. Raises PeerFailed for a wrong shape and for non-finite values."""
        wanted = self.answers[part][name]
        if found.shape != wanted.shape:
            raise PeerFailed(f"the embeddings of {name} have shape {found.shape}, expected {wanted.shape}")
        if not np.isfinite(found).all():
            raise PeerFailed(f"the embeddings of {name} are not finite")
        return limits.distances(found, wanted)


class Opened:
    """A peer's process in a round, or the reason there is none."""

    def __init__(self, peer: Peer, args, reference: Reference, limit: limits.Limit):
        self.peer, self.reference, self.limit = peer, reference, limit
        self.process, self.problem, self.cosine = None, None, None
        try:
            values = {"checkpoint": args.checkpoint, "models": args.models, "threads": args.threads}
            self.process = PeerProcess(peer.arguments(**values), args.threads)
            self._check("awkward", AWKWARD)
        except PeerFailed as failure:
            self.problem = self.problem or ("failed", str(failure))

    def measure(self, cell: Cell, args) -> dict:
        """The values of a row: the embeddings are compared first, and timed only if they are correct."""
        values = {"cosine_min": self.cosine, "verified_against": self.reference.name}
        if self.problem is None:
            try:
                self._check(cell.name, cell.prompts)  # this call is also the warm-up
                values["cosine_min"] = self.cosine
                if self.problem is None:
                    before = self.process.cpu_s()
                    times = self.process.time(cell.prompts, args.seconds, args.min_calls)
                    used = None if before is None else self.process.cpu_s() - before
                    values |= results.speed(cell, times, used)
            except PeerFailed as failure:
                self.problem = ("failed", str(failure))
        if self.problem is not None:
            values |= dict(zip(("status", "error"), self.problem, strict=True))
        if self.process is not None:
            versions = self.process.versions
            values |= {
                "open_s": self.process.open_s,
                "peak_memory_bytes": self.process.peak_memory(),
                "versions": versions,
                "onnxruntime": versions.get("onnxruntime"),
            }
        return values

    def close(self) -> None:
        if self.process is not None:
            self.process.close()

    def _check(self, name: str, prompts) -> None:
        found = self.reference.distances(self.peer.part, name, self.process.embed(prompts))
        cosine = 1 - found["cosine_distance"]
        self.cosine = cosine if self.cosine is None else min(self.cosine, cosine)
        reason = limits.problem(found, self.limit)
        if reason is not None:
            distant = f"the embeddings of {name} are too far from {self.reference.name}"
            self.problem = ("wrong", f"{distant}: {reason}; not timed")


def groups(peers: list[Peer], checkpoint_bytes: int, budget: float) -> list[list[Peer]]:
    """Split peers, in order, into groups that fit into `budget` bytes of memory together."""
    result, used = [], 0.0
    for peer in peers:
        need = peer.memory * checkpoint_bytes + 0.5e9  # the interpreter and its libraries
        if not result or used + need > budget:
            result.append([])
            used = 0.0
        result[-1].append(peer)
        used += need
    return result


def rounds(args, peers: list[Peer], work: list[Cell], reference: Reference, allowed: dict) -> Iterator[dict]:
    """Yield every row. Each round starts further down the list of peers, so that no peer is always first."""
    size = sum(file.stat().st_size for file in args.checkpoint.glob("*.safetensors"))
    model = json.loads((args.checkpoint / "config.json").read_text()).get("_name_or_path", args.checkpoint.name)
    for round_ in range(args.rounds):
        start = round_ * max(1, len(peers) // args.rounds) % len(peers)
        for group in groups(peers[start:] + peers[:start], size, args.memory * 1e9):
            opened = []
            try:
                for peer in group:
                    opened.append(Opened(peer, args, reference, allowed[peer.limit_of or peer.precision]))
                for cell in work:
                    for one in opened:
                        values = one.measure(cell, args)
                        workload = results.shape(cell.rows, cell.length)
                        yield results.row(one.peer, model, workload, round_, **values)
            finally:
                for one in opened:
                    one.close()


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    peers = [peer for peer in PEERS if any(word in peer.name for word in args.peers)] if args.peers else list(PEERS)
    work = cells(args.cells, args.checkpoint / "tokenizer.json")
    if not PROGRAM.is_file():
        sys.exit(f"{PROGRAM} is missing: run `make install-for-tests`")
    facts, allowed = results.facts(args.threads), limits.read(PROGRAM)
    print(f"{len(peers)} peers, {len(work)} cells, {args.rounds} rounds; reference first", file=sys.stderr)
    reference = Reference(args.checkpoint, work, args.threads)
    found = []
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with args.output.open("w", encoding="utf-8") as file:
        for row in rounds(args, peers, work, reference, allowed):
            found.append(row | facts)
            print(json.dumps(found[-1], allow_nan=False), file=file, flush=True)
            speed = f"{row['tokens_per_s']:.0f} tokens/s" if row["tokens_per_s"] else f"{row['status']}: {row['error']}"
            print(f"{row['round']} {results.workload_name(row):>6} {row['peer']}: {speed}", file=sys.stderr)
    found.sort(key=lambda row: [peer.name for peer in PEERS].index(row["peer"]))
    report = f"{table.heading(found)}\n\n{table.table(found)}"
    print(report)
    if args.write:
        table.write_between(args.write[0], args.write[1], report)
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    def shape(text: str) -> tuple[int, int]:
        rows, length = (int(part) for part in text.split("x"))
        if not (1 <= rows <= 1024 and 8 <= length <= 4096):
            raise argparse.ArgumentTypeError(f"got {text}, expected 1 to 1024 rows of 8 to 4096 tokens")
        return rows, length

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="folder with safetensors, config.json and tokenizer.json")
    parser.add_argument("models", type=Path, help="folder with the models exported from the checkpoint")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file of rows; replaced if it exists")
    parser.add_argument("--peers", nargs="*", metavar="WORD", help="only peers whose name contains one of these words")
    parser.add_argument(
        "--cells",
        nargs="+",
        type=shape,
        metavar="ROWSxTOKENS",
        default=[(1, 32), (1, 128), (1, 512), (8, 128)],
        help="batches to time (default: 1x32 1x128 1x512 8x128)",
    )
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="minimum time per cell, peer and round (default: %(default)s)"
    )
    parser.add_argument(
        "--min-calls", type=int, default=2, help="minimum calls per cell, peer and round (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of every peer (default: %(default)s)")
    parser.add_argument(
        "--memory", type=float, default=12.0, metavar="GB", help="for all open peers together (default: %(default)s)"
    )
    parser.add_argument(
        "--write", nargs=2, metavar=("FILE", "NAME"), help="also replace the table between the markers of NAME in FILE"
    )
    args = parser.parse_args(arguments)
    for word in args.peers or []:
        if not any(word in peer.name for peer in PEERS):
            parser.error(f"--peers: no name contains `{word}`; the peers are {'; '.join(peer.name for peer in PEERS)}")
    if args.write:
        args.write = Path(args.write[0]), args.write[1]
    return args


if __name__ == "__main__":
    sys.exit(main())
