"""The command line: output on stdout and stderr, and exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from seeded_checkpoint import random_tensors, write_checkpoint, write_safetensors

from nvembed_export.cli import EPILOG, main, parser

README = Path(__file__).resolve().parents[1] / "README.md"


def manifest(out) -> dict:
    return json.loads((out / "nvembed.json").read_text())


def test_success_prints_the_folder_and_the_licence(small, out, capsys):
    assert main([str(small), str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{out}\n"
    assert "licence of the weights: apache-2.0" in printed.err
    assert "commercial" not in printed.err
    assert manifest(out)["precision"] == "fp16"


def test_weights_that_are_not_for_commercial_use_are_reported(small, out, capsys):
    (small / "README.md").unlink()
    assert main([str(small), str(out)]) == 0
    assert "cc-by-nc-4.0 - not for commercial use" in capsys.readouterr().err
    assert manifest(out)["model"]["license"] == "cc-by-nc-4.0"


@pytest.mark.parametrize(
    ("license", "told"),
    [
        ("apache-2.0", ""),
        ("cc-by-4.0", ""),
        ("cc-by-nc-4.0", "licence of the weights: cc-by-nc-4.0 - not for commercial use\n"),
        ("CC-BY-NC-SA-4.0", "licence of the weights: cc-by-nc-sa-4.0 - not for commercial use\n"),
    ],
)
def test_quiet_prints_only_the_folder_and_a_licence_that_restricts_use(small, out, capsys, license, told):
    assert main([str(small), str(out), "--no-golden", "--quiet", "--license", license]) == 0
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == (f"{out}\n", told)


def test_what_was_decided_about_the_files_is_printed_even_with_quiet(small, out, capsys, small_spec):
    tensors = random_tensors(small_spec)
    write_safetensors(small / "model.safetensors", {f"model.{name}": array for name, array in tensors.items()})
    assert main([str(small), str(out), "--no-golden", "--quiet"]) == 0
    assert capsys.readouterr().err == "nvembed-export: note: all tensor names begin with `model.`, which was left out\n"


def test_name_licence_golden_length_and_pooler_can_be_chosen(small, out):
    options = ["--name", "mine", "--license", "MIT", "--no-golden", "--max-length", "64", "--precision", "fp32"]
    assert main([str(small), str(out), "--pooler", "direct", *options]) == 0
    found = manifest(out)
    assert found["model"] == {"name": "mine", "source": "example/small", "license": "mit"}
    assert (found["golden"], found["max_length"], found["pooler"]) == (None, 64, "direct")
    assert not (out / "golden.json").exists()


@pytest.mark.parametrize(
    ("name", "positions", "expected"),
    [
        ("NV-Embed-v1", 32768, 4096),
        ("NV-Embed-v2", 32768, 32768),
        ("NV-Embed-v2", 1024, 1024),
        ("other", 32768, 4096),
        ("other", 100, 100),
    ],
)
def test_default_length_depends_on_name_and_positions(tmp_path, out, small_spec, name, positions, expected):
    checkpoint = write_checkpoint(tmp_path / "checkpoint", small_spec.but(name=name, positions=positions))
    assert main([str(checkpoint), str(out), "--no-golden"]) == 0
    assert manifest(out)["max_length"] == expected


def test_bad_checkpoint_exits_with_3(small, out, capsys):
    (small / "config.json").unlink()
    assert main([str(small), str(out)]) == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("nvembed-export: ")
    assert printed.err.count("\n") == 1


def test_existing_output_exits_with_4(small, out):
    assert main([str(small), str(out), "--no-golden"]) == 0
    assert main([str(small), str(out), "--no-golden"]) == 4
    assert main([str(small), str(out), "--no-golden", "--force"]) == 0


@pytest.mark.parametrize("arguments", [[], ["a"], ["a", "b", "--precision", "fp8"], ["a", "b", "--max-length", "x"]])
def test_usage_error_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_length_beyond_the_model_exits_with_2(small, out):
    assert main([str(small), str(out), "--max-length", "100000"]) == 2


@pytest.mark.parametrize("streams", [["stdout"], ["stderr"], ["stdout", "stderr"]], ids="+".join)
def test_closed_pipe_is_not_a_failure(small, out, streams):
    """As in `nvembed-export ... | true`, also with 2>&1."""
    reader, writer = os.pipe()
    os.close(reader)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | dict.fromkeys(streams, writer)
    command = [sys.executable, "-m", "nvembed_export", str(small), str(out), "--no-golden"]
    try:
        result = subprocess.run(command, text=True, **pipes)
    finally:
        os.close(writer)
    assert result.returncode == 0
    assert "Error" not in (result.stderr or "")
    assert manifest(out)["golden"] is None
    assert "stdout" in streams or result.stdout == f"{out}\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_path_that_the_terminal_cannot_show_is_no_failure(small, out, encoding):
    target = out.with_name("模型2")
    command = [sys.executable, "-m", "nvembed_export", str(small), str(target), "--no-golden"]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (result.returncode, "Traceback" in result.stderr) == (0, False)
    assert result.stdout.endswith("\\u6a21\\u578b2\n")
    assert manifest(target)["precision"] == "fp16"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_message_that_cannot_be_written_is_no_failure(small, out, stream):
    with open("/dev/full", "w") as full:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {stream: full}
        command = [sys.executable, "-m", "nvembed_export", str(small), str(out), "--no-golden"]
        result = subprocess.run(command, text=True, **pipes)
    assert result.returncode == 0
    assert "Traceback" not in (result.stderr or "")
    assert (out / "nvembed.json").exists()


def test_help_has_examples_and_exit_codes():
    result = subprocess.run([sys.executable, "-m", "nvembed_export", "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    assert "examples:" in result.stdout
    assert "exit codes:" in result.stdout


@pytest.mark.parametrize("text", [EPILOG, README.read_text(encoding="utf-8")], ids=["help", "readme"])
def test_examples_parse_and_include_the_target_cpu(text):
    commands = re.findall(r"^ *nvembed-export (.+)$", text, re.MULTILINE)
    chosen = [parser().parse_args(command.split()) for command in commands]
    assert [args.precision for args in chosen if args.target == "cpu"] == ["fp32"]


def test_exporter_does_not_import_torch():
    code = "import sys, nvembed_export.cli; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
