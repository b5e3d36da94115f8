"""The exporter's memory does not grow with the checkpoint; the CPU graph's does not grow quadratically with length."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.numpy
import tolerances
from seeded_checkpoint import BACKBONE, Spec, config_values, random_tensors, write_checkpoint, write_weights

from nvembed_export.export import ExportOptions, export

MIB = 1 << 20
PROBE = """
import sys
from pathlib import Path
from nvembed_export.export import ExportOptions, export

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])

before = peak()
# Short golden rows: their memory does not depend on depth and would hide that of the weights.
export(Path(sys.argv[1]), Path(sys.argv[2]), ExportOptions(precision=sys.argv[3], target="cpu", max_length=16))
print(before, peak())
"""


def deep_checkpoint(directory, layers: int) -> int:
    """Write a checkpoint of many layers with the same random weights; returns its size in bytes."""
    spec = Spec("deep", 0, 640, 1, 8, 2, None, 2240, 64, 4, 160)
    tensors = random_tensors(spec)
    prefix = f"{BACKBONE}.layers.0."
    layer = {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
    for index in range(1, layers):
        tensors |= {f"{BACKBONE}.layers.{index}.{name}": array for name, array in layer.items()}
    write_checkpoint(directory, spec.but(layers=1))
    (directory / "config.json").write_text(json.dumps(config_values(spec.but(layers=layers))))
    write_weights(directory, tensors, "F16")
    return (directory / "model.safetensors").stat().st_size


def as_paddle(checkpoint) -> None:
    """Store the weights as a pickle of numpy arrays, [in, out], as PaddleNLP does."""
    stored = safetensors.numpy.load_file(checkpoint / "model.safetensors")
    turned = {n: a.T.copy() if a.ndim == 2 and "embed_tokens" not in n else a for n, a in stored.items()}
    (checkpoint / "model_state.pdparams").write_bytes(pickle.dumps(turned, protocol=4))
    (checkpoint / "model.safetensors").unlink()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize(
    ("precision", "form"),
    [*((precision, "safetensors") for precision in ("fp16", "fp32", "int8", "int4", "w8a8")), ("fp16", "pdparams")],
)
def test_peak_memory_does_not_grow_with_the_checkpoint(tmp_path, precision, form, measured):
    sizes, peaks = [], []
    for layers in (4, 40 if form == "safetensors" else 20):
        checkpoint = tmp_path / f"checkpoint-{layers}"
        sizes.append(deep_checkpoint(checkpoint, layers))
        if form == "pdparams":
            as_paddle(checkpoint)
        command = [sys.executable, "-c", PROBE, str(checkpoint), str(tmp_path / f"out-{layers}"), precision]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        before, peak = (int(word) * 1024 for word in result.stdout.split())
        peaks.append(peak)
        measured(
            f"memory {precision} from {form}, {layers:2} layers: checkpoint {sizes[-1] / MIB:6.1f} MiB, "
            f"peak {peak / MIB:6.1f} MiB ({(peak - before) / MIB:.1f} above the imports)"
        )
    assert peaks[1] - peaks[0] <= tolerances.MEMORY_GROWTH * (sizes[1] - sizes[0])


RUN = """
import sys
import numpy as np
import onnxruntime

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])

session = onnxruntime.InferenceSession(sys.argv[1] + "/model.onnx", providers=["CPUExecutionProvider"])
ids = np.full((1, int(sys.argv[2])), 20)
before = peak()
session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids), "pool_mask": np.ones_like(ids)})
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_memory_of_the_cpu_graph_is_linear_in_the_length(tmp_path, measured):
    spec = Spec("long", 1, 64, 1, 8, 2, None, 96, 7, 2, 24, positions=8192)
    checkpoint = write_checkpoint(tmp_path / "checkpoint", spec)
    growth = {}
    for target in ("any", "cpu"):
        options = ExportOptions(precision="fp32", target=target, golden=False, max_length=8192)
        export(checkpoint, tmp_path / target, options)
        used = []
        for length in (2048, 8192):
            command = [sys.executable, "-c", RUN, str(tmp_path / target), str(length)]
            result = subprocess.run(command, capture_output=True, text=True, check=True)
            used.append(int(result.stdout) * 1024)
        growth[target] = used[1] / used[0]
        measured(f"target {target}: {used[0] / MIB:.0f} MiB for 2,048 tokens, {used[1] / MIB:.0f} MiB for 8,192")
    assert growth["cpu"] <= tolerances.LINEAR_GROWTH < growth["any"]
