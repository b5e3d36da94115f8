"""w8a8 keeps channels apart whose values would leave the others without digits."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from running import Model, cosines
from seeded_checkpoint import CASES, write_checkpoint
from test_quantization import int8_linear, weights

from nvembed_export import large_channels
from nvembed_export.checkpoint import CROSS, FEED_FORWARD
from nvembed_export.errors import OutputError
from nvembed_export.export import ExportOptions, export
from nvembed_export.large_channels import RATIO, LargeChannels


def tokens(large: dict[int, float], width: int = 256) -> np.ndarray:
    """Tokens [9, width] of ±1, with some channels that are larger."""
    x = np.sign(np.random.default_rng(1).standard_normal((9, width)))
    for channel, factor in large.items():
        x[:, channel] *= factor
    return x


def observed(name: str, *batches: np.ndarray) -> LargeChannels:
    channels = LargeChannels()
    for x in batches:
        channels.observe(name, x)
    return channels


def test_channels_far_above_the_typical_one_are_large():
    found = observed("w", tokens({7: 2 * RATIO, 3: 1.1 * RATIO, 200: 0.9 * RATIO}))
    assert found.of("w") == (3, 7)
    assert found.of("another") == ()


def test_one_token_is_enough_and_a_token_of_zeros_is_none():
    x = tokens({})
    x[0], x[4, 9] = 0, -3 * RATIO
    assert observed("w", tokens({}), x).of("w") == (9,)


def test_few_channels_are_large_the_largest_of_them():
    found = observed("w", tokens({channel: RATIO * (2 + channel) for channel in range(100)}))
    assert found.of("w") == (96, 97, 98, 99), "one of 64"


def test_the_fused_pooler_has_the_channels_of_its_norms():
    channels = observed(f"{CROSS}.norm.weight", tokens({5: 2 * RATIO}))
    channels.observe(f"{FEED_FORWARD}.norm.weight", tokens({6: 2 * RATIO}))
    assert channels.of(f"{CROSS}.scores.weight") == (5,)
    assert channels.of(f"{FEED_FORWARD}.folded.weight") == (6,)


@pytest.mark.parametrize("weights_of_mean", [False, True])
def test_a_product_with_large_channels_is_as_good_as_one_without(tmp_path, weights_of_mean):
    rows, x = weights(70), np.random.default_rng(4).random((2, 5, 70)).astype(np.float32)
    large = x.copy()
    large[..., [3, 60]] *= 1000
    folders = [tmp_path / name for name in ("apart", "together")]
    for folder in folders:
        folder.mkdir()
    exact, scale = large @ rows.T.astype(np.float64), np.abs(rows).max() * np.sqrt(70)
    apart = int8_linear(folders[0], rows, weights_of_mean, (3, 60))(large)
    together = int8_linear(folders[1], rows, weights_of_mean)(large)
    error = [np.abs(found - exact).max() / scale for found in (apart, together)]
    assert error[0] < 0.01 < 0.5 < error[1], error


@pytest.fixture(scope="module")
def massive(tmp_path_factory):
    """A checkpoint with channels of the residual stream × 60, exported as it is and with all channels together."""
    folder = tmp_path_factory.mktemp("massive")
    spec = next(spec for spec in CASES if spec.name == "outliers")
    checkpoint, options = write_checkpoint(folder / "checkpoint", spec), ExportOptions(precision="w8a8", target="cpu")
    export(checkpoint, folder / "apart", options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_channels, "RATIO", np.inf)
        export(checkpoint, folder / "together", options)
    return folder


def least_cosine(folder) -> float:
    golden = json.loads((folder / "golden.json").read_text())["rows"]
    found = Model(folder)([(row["input_ids"], row["instruction_tokens"]) for row in golden])
    return cosines(found, np.asarray([row["embedding"] for row in golden])).min()


def test_massive_activations_cost_less_when_they_are_kept_apart(massive):
    apart, together = (1 - least_cosine(massive / name) for name in ("apart", "together"))
    print(f"1 - cosine of w8a8: {apart:.1e} with large channels apart, {together:.1e} with all together")
    assert apart < together / 3


def test_the_channels_of_a_graph_have_a_product_of_their_own(massive):
    graph = onnx.load(massive / "apart" / "model.onnx", load_external_data=False).graph
    shapes = {item.name: list(item.dims) for item in graph.initializer}
    large = {name: shape for name, shape in shapes.items() if name.endswith(".large")}
    assert large
    assert {node.input[1] for node in graph.node if node.op_type == "MatMul"} >= set(large)
    for name, (count, out) in large.items():
        width, columns = shapes[name.removesuffix(".large") + ".codes"]
        assert 1 <= count <= max(1, width // large_channels.SHARE)
        assert columns == out
    together = onnx.load(massive / "together" / "model.onnx", load_external_data=False).graph
    assert not [item.name for item in together.initializer if item.name.endswith((".large", ".small"))]


def test_a_disk_that_is_too_small_is_known_before_the_reference_is_computed(massive, tmp_path, monkeypatch):
    def computed(*_: object) -> None:
        raise AssertionError("the reference is computed first")

    monkeypatch.setattr("nvembed_export.export.golden_document", computed)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=1 << 40, used=1 << 40, free=1000))
    with pytest.raises(OutputError, match="1000 bytes free"):
        export(massive / "checkpoint", tmp_path / "out", ExportOptions(precision="w8a8", target="cpu"))
