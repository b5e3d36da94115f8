"""Engines for many machines give what one process gives: two actors of Ray, one killed; a run that goes on; Daft.

make test-clusters
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.dataset as dataset
import pyarrow.parquet as parquet
import pytest
import ray
import ray_data

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("NVEMBED", str(ROOT / "target/debug/nvembed"))
MODEL = os.environ.get("NVEMBED_MODEL", str(ROOT / "build/models/nv-embed-mini-fp32"))
ROWS, FILES = 480, 8
# Batches differ, and with them the last bit of f32; then f16 may round the other way.
TOLERANCE = 2**-10


class Watched(ray_data.Embed):
    """Tells when a batch begins, so that the test can kill it in the middle."""

    def __init__(self, model, notes, **options):
        super().__init__(model, **options)
        self.notes = Path(notes)

    def __call__(self, batch):
        with (self.notes / str(os.getpid())).open("a") as file:
            file.write(f"{len(batch)}\n")
        return super().__call__(batch)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    lines = (ROOT / "tests/eval/faq.jsonl").read_text().splitlines()[:ROWS]
    rows = [json.loads(line)["passage"] for line in lines]
    for file in range(FILES):
        ids = range(file, ROWS, FILES)
        table = pyarrow.table({"id": list(ids), "text": [rows[row] for row in ids]})
        parquet.write_table(table, folder / f"{file}.parquet")
    return folder


@pytest.fixture(scope="module")
def expected(texts, tmp_path_factory):
    """Of one process: `nvembed corpus`."""
    out = tmp_path_factory.mktemp("expected")
    command = [PROGRAM, "corpus", "-q", "-m", MODEL, "--out", out, "--input", *sorted(texts.iterdir())]
    subprocess.run(list(map(str, command)), check=True, cwd=ROOT)
    return embeddings(out)


def embeddings(folder):
    """Identifiers and f16 rows, by identifier. An identifier that is there twice is an error."""
    table = dataset.dataset(sorted(map(str, Path(folder).glob("*.parquet")))).to_table(columns=["id", "embedding"])
    table = table.sort_by("id")
    rows = np.array(table["embedding"].to_pylist(), dtype=np.float16)
    return table["id"].to_pylist(), rows


def check(folder, expected):
    ids, rows = embeddings(folder)
    assert ids == expected[0] == list(range(ROWS))
    assert np.abs(rows.astype(np.float32) - expected[1].astype(np.float32)).max() <= TOLERANCE


@pytest.fixture(scope="module")
def cluster():
    # Ray's own processes do not get the test's PYTHONPATH.
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    environment = {"PYTHONPATH": path, "VIRTUAL_ENV": os.environ.get("VIRTUAL_ENV", "")}
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": environment})
    yield
    ray.shutdown()


def test_an_actor_that_is_killed_costs_nothing(cluster, texts, expected, tmp_path):
    notes, killed = tmp_path / "notes", []
    notes.mkdir()

    def kill():
        # Both actors are at work, and one is in its second batch.
        while not killed:
            begun = {path: path.read_text().count("\n") for path in notes.iterdir()}
            if len(begun) >= 2 and max(begun.values()) >= 2:
                victim = max(begun, key=begun.get)
                os.kill(int(victim.name), signal.SIGKILL)
                killed.append(victim.name)
            time.sleep(0.02)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    out = str(tmp_path / "out")
    ray_data.embed(MODEL, str(texts), out, actors=2, batch=30, actor=Watched, notes=str(notes))
    assert killed
    assert len(list(notes.iterdir())) >= 3, "another actor took the place of the killed one"
    check(out, expected)


def test_a_run_that_ended_early_goes_on(cluster, texts, expected, tmp_path):
    notes, out, checkpoint = tmp_path / "notes", str(tmp_path / "out"), str(tmp_path / "checkpoint")
    notes.mkdir()
    few = tmp_path / "few"
    few.mkdir()
    for file in sorted(texts.iterdir())[:3]:
        (few / file.name).symlink_to(file)
    options = {"actors": 1, "batch": 60, "actor": Watched, "notes": str(notes)}
    context = ray.data.DataContext.get_current()

    def run(source):
        ray_data.embed(MODEL, str(source), out, checkpoint=checkpoint, **options)
        begun = [int(line) for path in notes.iterdir() for line in path.read_text().split()]
        for path in notes.iterdir():
            path.unlink()
        return sum(begun)

    # A run over the first files stands for one that ended there: its checkpoint must stay.
    keep = ray_data.CheckpointConfig
    ray_data.CheckpointConfig = lambda **given: keep(**given, delete_checkpoint_on_success=False)
    try:
        assert run(few) == 3 * ROWS // FILES
        assert run(texts) == 5 * ROWS // FILES, "what is there is not embedded again"
    finally:
        ray_data.CheckpointConfig, context.checkpoint_config = keep, None
    check(out, expected)


def test_the_jobs_of_the_manifest_are_valid_and_share_a_corpus(texts, expected, tmp_path):
    import yaml

    manifest = ROOT / "crates/nvembed-corpus/deploy/kubernetes.yaml"
    subprocess.run([sys.executable, "-m", "kubernetes_validate", "--strict", manifest], check=True)
    plan, job = yaml.safe_load_all(manifest.read_text())
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 8
    commands = [one["spec"]["template"]["spec"]["containers"][0]["args"][0] for one in (plan, job)]
    shared = commands[0].split(" --input")[1].removesuffix(" --plan")
    assert shared in commands[1], "both have the same options"

    def start(command, index):
        for old, new in {
            "nvembed corpus": f"{PROGRAM} corpus -q --intra-threads 1",
            "/model": MODEL,
            "--provider cuda": "",
            "/data/texts": str(texts),
            "/data/embeddings": str(tmp_path),
            "/cache": str(tmp_path / ".cache"),
            "--text body": "",
            "--id doc_id": "",
            "--shard-rows 16384": "--shard-rows 100",
            "/8": "/2",
        }.items():
            command = command.replace(old, new)
        environment = os.environ | {"JOB_COMPLETION_INDEX": str(index)}
        return subprocess.Popen(["sh", "-c", command], env=environment, cwd=ROOT)

    assert start(commands[0], 0).wait() == 0
    assert not list(tmp_path.glob("*.parquet"))
    for pod in [start(commands[1], index) for index in range(2)]:
        assert pod.wait() == 0
    ids, rows = embeddings(tmp_path)
    assert sorted(ids) == expected[0]
    check(tmp_path, expected)


def test_daft(texts, expected, tmp_path):
    import daft_udf

    daft_udf.embed(MODEL, f"{texts}/*.parquet", str(tmp_path), width=256)
    check(tmp_path, expected)
