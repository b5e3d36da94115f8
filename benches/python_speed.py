"""Tokens per second of the Python package over those of the Rust library, the same texts in one call, in turns.

    PYTHONPATH=… .venv/bin/python benches/python_speed.py --nvembed target/release/nvembed

Install the wheel (make wheel), or put an optimized module on PYTHONPATH. What came out is in docs/lab/python.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "corpus"))
from measure import texts

OURS = """
import sys, time, nvembed
texts = open(sys.argv[2]).read().splitlines()
model = nvembed.Embedder(sys.argv[1])
model.encode(texts)  # warms up, as bench does
begin = time.monotonic()
rows = model.encode(texts)
print(time.monotonic() - begin, len(rows))
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvembed", default="target/release/nvembed")
    parser.add_argument("--model", default="build/models/nv-embed-mini-fp32")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "texts.txt"
        file.write_text("\n".join(texts(arguments.count, 1)) + "\n")
        ratios = []
        for _ in range(arguments.rounds):
            command = [sys.executable, "-c", OURS, arguments.model, file]
            seconds, rows = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            assert int(rows) == arguments.count
            command = [arguments.nvembed, "bench", "-q", "-m", arguments.model, "--texts", file]
            command += ["--seconds", "1", "--min-calls", "1"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rust = json.loads(done.stdout.splitlines()[-1])["texts_per_s"]
            python = arguments.count / float(seconds)
            ratios.append(python / rust)
            print(f"Python {python:.0f} texts/s, Rust {rust:.0f}: {100 * ratios[-1]:.1f} %", flush=True)
            time.sleep(1)
    print(f"median {100 * sorted(ratios)[len(ratios) // 2]:.1f} %")


if __name__ == "__main__":
    main()
