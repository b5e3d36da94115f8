"""What the exporter says of a folder's distance from its golden embeddings."""

from __future__ import annotations

import json

import pytest
from int8_on_cpu import products_are_exact

from nvembed_export import distance
from nvembed_export.cli import main
from nvembed_export.distance import Distance, golden_distance
from nvembed_export.export import ExportOptions, export


@pytest.fixture(scope="module")
def folder(mini, tmp_path_factory):
    return export(mini, tmp_path_factory.mktemp("distance") / "model", ExportOptions(precision="int8")).folder


def change_golden(folder, change):
    path = folder / "golden.json"
    content = path.read_text()
    document = json.loads(content)
    change(document["rows"])
    path.write_text(json.dumps(document))
    return lambda: path.write_text(content)


def test_the_distance_of_a_right_folder_is_measured_and_within_its_tolerance(folder):
    found = golden_distance(folder)
    assert found.is_within_tolerance
    assert 1e-7 < found.cosine_distance < 1e-3, found
    assert "1 - cosine" in str(found)
    assert "tolerance 1e-03" in str(found)


def test_the_worst_row_decides(folder):
    restore = change_golden(folder, lambda rows: rows[5]["embedding"].reverse())
    try:
        assert not golden_distance(folder).is_within_tolerance
    finally:
        restore()


def test_a_distance_that_is_no_number_is_beyond_every_tolerance():
    for precision in distance.TOLERANCES:
        assert not Distance(float("nan"), float("nan"), precision).is_within_tolerance
        assert Distance(0.0, 0.0, precision).is_within_tolerance


def test_the_command_prints_the_distance_and_warns_beyond_the_tolerance_even_when_quiet(
    mini, tmp_path, capsys, monkeypatch
):
    assert main([str(mini), str(tmp_path / "a"), "--precision", "fp16"]) == 0
    said = capsys.readouterr().err
    assert "golden embeddings on the CPU provider: largest difference" in said
    assert "warning" not in said
    monkeypatch.setitem(distance.TOLERANCES, "fp16", (distance.COSINE_DISTANCE, 1e-12))
    assert main([str(mini), str(tmp_path / "b"), "--precision", "fp16", "--quiet"]) == 0
    said = capsys.readouterr().err
    assert "nvembed-export: warning: golden embeddings" in said
    assert "--no-self-check" in said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--no-golden"], "--no-golden"),
        (["--precision", "bf16"], "nvembed verify --provider cuda"),
        (["--target", "openvino", "--precision", "fp32"], "nvembed verify --provider openvino"),
        (["--target", "cuda", "--precision", "fp16"], "nvembed verify --provider cuda"),
    ],
)
def test_why_it_is_not_measured_is_said(mini, tmp_path, capsys, options, says):
    assert main([str(mini), str(tmp_path / "a"), *options]) == 0
    said = capsys.readouterr().err
    assert "golden distance not measured: " in said
    assert says in said


def test_a_session_that_memory_has_no_room_for_is_not_opened(folder, monkeypatch):
    monkeypatch.setattr(distance, "_free_memory", lambda: 1000)
    assert "free" in golden_distance(folder)


def test_8_bit_products_are_not_asked_for_where_they_are_wrong(mini, tmp_path):
    export(mini, tmp_path / "model", ExportOptions(precision="w8a8", target="cpu"))
    found = golden_distance(tmp_path / "model")
    if products_are_exact():
        assert 1e-7 < found.cosine_distance < 1e-3, found
    else:
        assert "VNNI" in found
