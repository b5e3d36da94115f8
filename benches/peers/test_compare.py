"""Tests the comparison on nv-embed-mini, with the packages of the other tests. Asserts no times.

Tests marked `torch` compare with PyTorch: `make test-torch` runs them, `make test-peers` runs the others. The peers
that need more packages (candle, OpenVINO, the plain export) run only in `make peers`.
"""

from __future__ import annotations

import json
import sys

import compare
import limits
import numpy as np
import peers
import process
import pytest
import rows
import table
import texts
import worker
from int8_on_cpu import products_are_exact

MINI = peers.ROOT / "models" / "nv-embed-mini"
MODELS = peers.ROOT / "build" / "models"

# A peer that also pools the instruction, the usual mistake.
MISTAKEN = """
import peer_nvembed
right = peer_nvembed.Model.embed
peer_nvembed.Model.embed = lambda self, prompts: right(self, [("", "".join(prompt)) for prompt in prompts])
peer_nvembed.main()
"""
ENDS = "sys.exit('no such weights')"
NANS = """
import numpy, worker
worker.serve(lambda: (lambda prompts: numpy.full((len(prompts), 256), numpy.nan), {}))
"""


def script(folder, name: str, source: str, *arguments: str) -> peers.Peer:
    file = folder / f"{name}.py"
    file.write_text(f"import sys\nsys.path.insert(0, {str(peers.HERE)!r})\n{source}")
    return peers.Peer(name, "fp32", (sys.executable, str(file), *arguments))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Rows, document and output of a small run with correct and wrong peers."""
    folder = tmp_path_factory.mktemp("peers")
    for precision in ("fp32", "w8a8"):
        (folder / f"nvembed-{precision}").symlink_to(MODELS / f"nv-embed-mini-{precision}")
    arguments = ("{models}/nvembed-fp32", "--library", str(peers.LIBRARY), "--threads", "{threads}")
    mistaken = script(folder, "mistaken", MISTAKEN, *arguments)
    chosen = [peer for peer in peers.PEERS if peer.name in ("nvembed fp32", "nvembed w8a8")]
    chosen += [peer for peer in peers.PEERS if peer.name in ("PyTorch fp32", "PyTorch, latents kept bf16")]
    layers = peers.python("peer_pytorch.py", "{checkpoint}", "--part", "backbone")
    chosen.append(peers.Peer("layers alone", "fp32", layers, part="backbone"))
    chosen += [mistaken, script(folder, "ends", ENDS), script(folder, "nans", NANS)]
    document, output = folder / "document.md", folder / "rows.jsonl"
    document.write_text("before\n<!-- small: written by compare.py -->\nold\n<!-- end of small -->\nafter\n")
    arguments = [MINI, folder, "-o", output, "--cells", "1x16", "2x24", "--rounds", "2", "--seconds", "0.01"]
    arguments += ["--write", document, "small"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "PEERS", tuple(chosen))
        assert compare.main([str(argument) for argument in arguments]) == 0
    return [json.loads(line) for line in output.read_text().splitlines()], document.read_text(), output


def of(found, name: str) -> list[dict]:
    result = [row for row in found[0] if row["peer"] == name]
    assert len(result) == 4, "two cells in two rounds"
    return result


@pytest.mark.torch
@pytest.mark.parametrize("name", ["nvembed fp32", "nvembed w8a8", "PyTorch fp32", "PyTorch, latents kept bf16"])
def test_peers_that_compute_the_model_are_timed(found, name):
    if name == "nvembed w8a8" and not products_are_exact():
        assert {row["status"] for row in of(found, name)} == {"failed"}
        assert "has no VNNI" in of(found, name)[0]["error"]
        pytest.skip("this processor has no VNNI: nvembed refuses w8a8")
    for row in of(found, name):
        assert row["status"] == "ok", row["error"]
        assert row["workload"]["kind"] == "shape"
        assert row["tokens"] == {"1x16": 16, "2x24": 48}[rows.workload_name(row)]
        assert row["calls"] >= 2
        assert row["cores_used"] is not None
        assert row["tokens_per_s"] == pytest.approx(1e3 * row["tokens"] / row["latency_ms"]["p50"])


@pytest.mark.torch
@pytest.mark.parametrize(("name", "status"), [("mistaken", "wrong"), ("nans", "failed"), ("ends", "failed")])
def test_a_wrong_answer_is_reported_with_its_cosine_and_not_timed(found, name, status):
    for row in of(found, name):
        assert row["status"] == status
        assert row["tokens_per_s"] is None
        assert row["latency_ms"] is None
    assert f"- {name}: {status}: " in found[1]
    line = next(line for line in found[1].splitlines() if line.startswith(f"| {name} ‡"))
    assert line.split("|")[3:5] == [" – ", " – "]
    wanted = {"mistaken": "the largest absolute difference is", "nans": "are not finite", "ends": "no such weights"}
    assert wanted[name] in of(found, name)[0]["error"]


@pytest.mark.torch
def test_the_layers_alone_are_a_smaller_task_that_is_checked_and_not_ranked(found):
    assert [row["status"] for row in of(found, "layers alone")] == ["ok"] * 4
    line = next(line for line in found[1].splitlines() if line.startswith("| (layers alone)"))
    assert ";" not in line  # no ratio


@pytest.mark.torch
def test_the_table_stands_between_its_markers_with_ratios_and_what_it_was_made_with(found):
    document = found[1]
    assert document.startswith("before\n<!-- small")
    assert document.endswith("<!-- end of small -->\nafter\n")
    assert "old" not in document
    assert "rounds: 2" in document
    assert f"commit {found[0][0]['commit']};" in document
    assert document.count("| PyTorch fp32 | ") == 1
    ratio = table.ratios(found[0], "PyTorch fp32", "1x16", ["nvembed fp32"])
    assert f"; {table.spread(ratio)} |" in document


@pytest.mark.torch
def test_nvembed_reads_the_rows(found):
    command = [peers.PROGRAM, "bench", "compare", found[2], found[2]]
    done = compare.subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "PyTorch" in done.stdout
    assert "mistaken" not in done.stdout  # wrong peers have no speed


def test_ratios_are_taken_round_by_round():
    def row(peer, round_, speed, status="ok"):
        fields = {"peer": peer, "round": round_, "tokens_per_s": speed, "status": status}
        return fields | {"workload": rows.shape(1, 8), "rate_per_s": None}

    made = [row("a", 0, 10), row("b", 0, 5), row("a", 1, 30), row("b", 1, 10), row("b", 2, 1), row("c", 0, 40)]
    assert table.ratios(made, "b", "1x8", ["a"]) == [2, 3]
    assert table.ratios(made, "b", "1x8", ["a", "c"]) == [8, 3]
    assert table.spread([2, 3, 7]) == "3.00 (2.00–7.00)"
    assert table.ratios(made, "b", "1x8", ["d"]) == []


def test_a_workload_is_named_as_nvembed_bench_names_it():
    texts_of_a_file = {"workload": {"kind": "texts"}, "rate_per_s": None}
    assert rows.workload_name({"workload": rows.shape(8, 128), "rate_per_s": None}) == "8x128"
    assert rows.workload_name(texts_of_a_file) == "texts"
    assert rows.workload_name(texts_of_a_file | {"rate_per_s": 20.0}) == "texts at 20/s"


def test_a_limit_applies_to_its_own_measure():
    wanted = np.array([[0.6, 0.8], [1.0, 0.0]])
    found = limits.distances(np.array([[0.6, 0.8], [0.8, 0.6]], np.float32), wanted)
    assert found == pytest.approx({"largest_difference": 0.6, "cosine_distance": 0.2})
    assert limits.problem(found, {"cosine_distance": 0.3}) is None
    assert limits.problem(found, {"largest_difference": 0.7}) is None
    assert limits.problem(found, {"largest_difference": 0.3}) == (
        "the largest absolute difference is 6.00e-01, the limit is 3e-01"
    )
    nans = limits.distances(np.full((2, 2), np.nan), wanted)
    assert all(limits.problem(nans, {measure: 1.0}) for measure in limits.MEASURES)


@pytest.mark.parametrize(
    ("printed", "message"),
    [("", "printed no tolerances"), ('{"tolerances": {"fp32": {"length": 1}}}', "the tolerance of fp32 is")],
)
def test_a_program_that_prints_no_limits_is_an_error(printed, message, tmp_path):
    program = tmp_path / "nvembed"
    program.write_text(f"#!/bin/sh\necho '{printed}'\n")
    program.chmod(0o755)
    with pytest.raises(ValueError, match=message):
        limits.read(program)


def test_missing_markers_are_an_error(tmp_path):
    document = tmp_path / "document.md"
    document.write_text("<!-- small: written by compare.py -->\n")
    with pytest.raises(ValueError, match="end of small"):
        table.write_between(document, "small", "x")
    assert document.read_text() == "<!-- small: written by compare.py -->\n"


def test_a_peer_that_does_not_exist_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as caught:
        compare.parse(["checkpoint", "models", "-o", "rows.jsonl", "--peers", "candle", "llama"])
    assert caught.value.code == 2
    assert "no name contains `llama`; the peers are nvembed fp32; " in capsys.readouterr().err


def test_texts_have_exactly_the_tokens_of_their_cell():
    made = texts.cells([(1, 32), (3, 128)], MINI / "tokenizer.json")
    counts = [[int(row.sum()) for row in worker.Texts(MINI).batch(cell.prompts)[1]] for cell in made]
    assert counts == [[32], [128, 128, 128]]
    assert len({prompt for cell in made for prompt in cell.prompts}) == 4


def test_peers_are_grouped_by_memory_and_none_is_lost():
    large = [peers.Peer(str(number), "fp32", (), memory=4.0) for number in range(5)]
    assert compare.groups(large, 10**9, 10e9) == [large[:2], large[2:4], large[4:]]
    assert compare.groups(large, 10**9, 1.0) == [[peer] for peer in large]


def test_percentiles_are_those_of_nvembed_bench():
    found = rows.latency([float(number) for number in range(10, 0, -1)])
    assert found == {"min": 1, "p50": 5, "p90": 9, "p99": 10, "max": 10}


def test_a_row_says_how_many_cores_were_used():
    cell = texts.Cell(2, 8, ())
    assert rows.speed(cell, [400.0, 600.0], 1.5)["cores_used"] == 1.5
    assert rows.speed(cell, [400.0, 600.0])["cores_used"] is None


def test_the_fastest_way_is_chosen_for_each_shape(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(worker.time, "perf_counter", lambda: clock[0])

    def way(name, seconds):
        def run(array):
            calls.append(name)
            clock[0] += seconds[array.shape]

        return run

    first, second = {(1, 2): 0.1, (1, 3): 0.3}, {(1, 2): 0.2, (1, 3): 0.2}
    fastest = worker.Fastest({"first": way("first", first), "second": way("second", second)})
    for shape, wanted in [((1, 2), "first"), ((1, 3), "second")]:
        fastest(np.zeros(shape))
        calls.clear()
        fastest(np.zeros(shape))
        assert calls == [wanted]


def test_a_peer_that_cannot_be_started_says_why():
    with pytest.raises(process.PeerFailed, match="did not start"):
        process.PeerProcess(["/no/such/program"], 1)
