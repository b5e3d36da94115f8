"""`nvembed prepare` compiles for a GPU that this machine has not, with the plugin of TensorRT-RTX. No engine is run.

The plugin links to CUDA's driver, for which the shim stands, and ONNX Runtime offers it a device of a list of PCI
devices that with_gpu.sh makes, in a mount namespace: that needs root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from exported import TENSORRT_WIDE

ROOT = Path(__file__).resolve().parents[3]
NVEMBED = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug/nvembed"
WITH_GPU = ROOT / "tests/gpu/shim/with_gpu.sh"
RTX = ["--provider", "nv-tensorrt-rtx"]
MINI = ["nv-embed-mini-tensorrt-fp16-fused", "nv-embed-mini-tensorrt-bf16-fused"]


@pytest.fixture(scope="module")
def nvembed(shim):
    """Runs the program with a GPU in the list of devices; the plugin is found in this virtual environment."""
    if subprocess.run([WITH_GPU, "true"], capture_output=True).returncode != 0:
        pytest.skip("no mount namespace: unshare -m is not permitted")
    (library,) = ROOT.glob(".venv/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.*")
    environment = os.environ | {"LD_LIBRARY_PATH": str(shim), "VIRTUAL_ENV": sys.prefix}

    def run(*arguments, capability=89):
        command = [WITH_GPU, "/usr/bin/env", NVEMBED, *arguments, "--library", library]
        environment["CUDA_SHIM_CC"] = str(capability)
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    return run


def prepare(nvembed, model, cache, target="sm89"):
    """The cache by a relative path, which the plugin would write into the graph."""
    return nvembed("prepare", "-m", model.folder, *RTX, "--target-gpu", target, "--cache", os.path.relpath(cache))


def engine_of(entry: Path) -> Path:
    """The engine of a compiled graph, which is one node with all inputs, and names it by its plain name."""
    graph = onnx.load(entry / "model.onnx", load_external_data=False).graph
    (node,) = graph.node
    assert (node.op_type, node.domain) == ("EPContext", "com.microsoft")
    assert sorted(node.input) == sorted(tensor.name for tensor in graph.input)
    assert sorted(node.input) == ["attention_mask", "input_ids", "pool_mask"]
    assert list(node.output) == ["embeddings"]
    name = next(onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == "ep_cache_context").decode()
    assert "/" not in name
    return entry / name


@pytest.mark.parametrize("model", [*MINI, *TENSORRT_WIDE], indirect=True)
def test_a_graph_is_compiled_into_one_node(nvembed, model, tmp_path, measured):
    start = time.time()
    prepared = prepare(nvembed, model, tmp_path)
    assert prepared.returncode == 0, prepared.stderr
    engine = engine_of(Path(prepared.stdout.strip())).stat().st_size
    weights = model.manifest["graph"]["data_bytes"]
    assert engine > 0.99 * weights
    measured(f"{model.folder.name} prepared for sm89: {engine / 1e6:.0f} MB in {time.time() - start:.1f} s")


@pytest.mark.parametrize("model", MINI[:1], indirect=True)
def test_what_was_compiled_for_a_gpu_is_found_on_such_a_gpu_in_another_folder(nvembed, model, tmp_path):
    prepared = prepare(nvembed, model, tmp_path / "made")
    assert prepared.returncode == 0, prepared.stderr
    shutil.move(tmp_path / "made", tmp_path / "shipped")
    texts = tmp_path / "texts"
    texts.write_text("rain\n")
    arguments = ["embed", "-m", model.folder, *RTX, "--cache", tmp_path / "shipped", texts]
    entry = Path(prepared.stdout.strip()).name
    # The plugin looks at the device itself, and the shim's is none: this is as far as it goes.
    found = nvembed(*arguments)
    assert f"shipped/{entry}/model.onnx" in found.stderr, found.stderr
    assert "is not supported" in found.stderr, found.stderr
    other = nvembed(*arguments, capability=86)
    assert other.returncode == 5, other.stderr
    assert "no nv-tensorrt-rtx engine was prepared" in other.stderr


@pytest.mark.parametrize("model", MINI[:1], indirect=True)
def test_targets_are_named(nvembed, model, tmp_path):
    refused = prepare(nvembed, model, tmp_path, "sm90")
    assert refused.returncode == 2, refused.stderr
    assert "one of sm86, sm89, sm120, sm121" in refused.stderr
