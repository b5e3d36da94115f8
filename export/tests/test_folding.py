"""The constants of the fused pooler, in float64, against the formulas they replace."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances
from seeded_checkpoint import CROSS, FEED_FORWARD, POOLER, random_tensors, write_checkpoint

import nvembed_export.checkpoint
import nvembed_export.latent_attention
from nvembed_export.checkpoint import Checkpoint
from nvembed_export.config import load_config
from nvembed_export.latent_attention import Folding


@pytest.fixture(params=[32 << 20, 600], ids=["one block", "many blocks"])
def folding(request, monkeypatch, tmp_path, small_spec):
    """With the usual block size every weight is a single block; the small one splits each into uneven blocks."""
    for module in (nvembed_export.checkpoint, nvembed_export.latent_attention):
        monkeypatch.setattr(module, "BLOCK_BYTES", request.param)
    spec = small_spec.but(dtype="F32", cross_dim=11)
    directory = write_checkpoint(tmp_path / "checkpoint", spec)
    config = load_config(directory)
    tensors = {name: array.astype(np.float64) for name, array in random_tensors(spec).items()}
    return Folding(Checkpoint.open(directory, config), config), tensors


def layer_norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def test_scores_and_values_equal_the_cross_attention(folding):
    folded, w = folding
    x = layer_norm(np.random.default_rng(0).standard_normal((6, 32)))
    norm, context = f"{CROSS}.norm", f"{CROSS}.norm_context"
    q = (x * w[f"{norm}.weight"] + w[f"{norm}.bias"]) @ w[f"{CROSS}.fn.to_q.weight"].T
    latents = layer_norm(w[f"{POOLER}.latents"]) * w[f"{context}.weight"] + w[f"{context}.bias"]
    k, v = np.split(latents @ w[f"{CROSS}.fn.to_kv.weight"].T, 2, axis=-1)
    heads = [slice(0, 11), slice(11, 22)]
    scores = np.concatenate([q[:, head] @ k[:, head].T / np.sqrt(11) for head in heads], axis=1)
    float64 = np.dtype(np.float64)
    found = x @ folded.scores_weight().array(float64).T + folded.scores_bias().array(float64)
    assert np.abs(found - scores).max() <= tolerances.FOLDING * np.abs(scores).max()
    weights = np.random.default_rng(1).standard_normal((6, 10))
    out = np.concatenate([weights[:, i * 5 : i * 5 + 5] @ v[:, head] for i, head in enumerate(heads)], axis=1)
    out = out @ w[f"{CROSS}.fn.to_out.weight"].T
    found = weights @ folded.values_weight().array(float64).T
    assert np.abs(found - out).max() <= tolerances.FOLDING * np.abs(out).max()


def test_feed_forward_equals_norm_and_projection(folding):
    folded, w = folding
    x = layer_norm(np.random.default_rng(0).standard_normal((6, 32)))
    norm, net = f"{FEED_FORWARD}.norm", f"{FEED_FORWARD}.fn.net.0"
    expected = (x * w[f"{norm}.weight"] + w[f"{norm}.bias"]) @ w[f"{net}.weight"].T + w[f"{net}.bias"]
    float64 = np.dtype(np.float64)
    # The bias is read first, because it must not depend on the weight having been read before.
    bias = folded.feed_forward_bias().array(float64)
    found = x @ folded.feed_forward_weight().array(float64, transposed=True) + bias
    assert np.abs(found - expected).max() <= tolerances.FOLDING * np.abs(expected).max()
