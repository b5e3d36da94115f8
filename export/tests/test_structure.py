"""The graph follows docs/guides/model-folder.md and uses only what every execution provider supports."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, shape_inference
from seeded_checkpoint import write_checkpoint

from nvembed_export.export import ExportOptions, export

ALLOWED = set(
    """Add Attention Cast CumSum Div Gather Gelu LayerNormalization MatMul Max Mul RMSNormalization ReduceSum
    Reshape RotaryEmbedding Sigmoid Softmax Split Sqrt Squeeze Sub Transpose Unsqueeze""".split()
)
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int4")
VARIANTS = [(precision, pooler) for precision in PRECISIONS for pooler in ("fused", "direct")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, small_spec):
    root = tmp_path_factory.mktemp("structure")
    checkpoint = write_checkpoint(root / "checkpoint", small_spec.but(layers=3))
    for precision, pooler in VARIANTS:
        export(checkpoint, root / f"{precision}-{pooler}", ExportOptions(precision=precision, pooler=pooler))
    return root


@pytest.fixture(scope="module", params=VARIANTS, ids="-".join)
def folder(request, folders):
    return folders / "-".join(request.param)


@pytest.fixture(
    scope="module", params=[("fp16", TensorProto.FLOAT16), ("bf16", TensorProto.BFLOAT16)], ids=lambda p: p[0]
)
def half(request, folders):
    """The graph of a 16-bit precision, and its narrow dtype."""
    name, narrow = request.param
    return TypedGraph(folders / f"{name}-fused" / "model.onnx"), narrow


class TypedGraph:
    """A graph with the dtype of every value and the node that produces it."""

    def __init__(self, path):
        self.model = shape_inference.infer_shapes(onnx.load(path, load_external_data=False), strict_mode=True)
        graph = self.model.graph
        values = [*graph.value_info, *graph.input, *graph.output]
        self.dtype = {value.name: value.type.tensor_type.elem_type for value in values}
        self.dtype |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        self.maker = {output: node for node in graph.node for output in node.output}

    def nodes(self, *op_types):
        return [node for node in self.model.graph.node if node.op_type in op_types]


def test_the_checker_accepts_the_graph(folder):
    onnx.checker.check_model(str(folder / "model.onnx"), full_check=True)


def test_only_standard_operators_of_opset_24_and_quantised_products(folder):
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    quantised = {"com.microsoft": 1} if "int" in folder.name else {}
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 24} | quantised
    assert model.ir_version == 12
    assert {node.op_type for node in model.graph.node if node.domain == ""} <= ALLOWED
    products = {(node.domain, node.op_type) for node in model.graph.node if node.domain}
    assert products == ({("com.microsoft", "MatMulNBits")} if quantised else set())
    assert not model.functions


def test_the_target_cpu_has_the_same_weights_and_its_own_attention(folders, tmp_path):
    export(folders / "checkpoint", tmp_path / "cpu", ExportOptions(precision="fp32", target="cpu", golden=False))
    manifest = json.loads((tmp_path / "cpu" / "nvembed.json").read_text())
    assert manifest["graph"]["target"] == "cpu"
    cpu = onnx.load(tmp_path / "cpu" / "model.onnx", load_external_data=False)
    assert {(node.domain, node.op_type) for node in cpu.graph.node if node.domain} == {
        ("com.microsoft", "MultiHeadAttention")
    }
    assert "Attention" not in {node.op_type for node in cpu.graph.node}
    portable = onnx.load(folders / "fp32-fused" / "model.onnx", load_external_data=False)
    weights = [{tensor.name for tensor in model.graph.initializer if tensor.external_data} for model in (cpu, portable)]
    assert weights[0] == weights[1]
    for node in cpu.graph.node:  # with a mask, ONNX Runtime would not use its blockwise kernel
        if node.domain:
            assert len(node.input) == 3


def test_the_target_openvino_uses_only_operators_that_openvino_supports_and_float32(folders, tmp_path):
    for precision in ("fp32", "bf16"):
        options = ExportOptions(precision=precision, target="openvino", golden=False)
        export(folders / "checkpoint", tmp_path / precision, options)
        manifest = json.loads((tmp_path / precision / "nvembed.json").read_text())
        assert (manifest["precision"], manifest["graph"]["target"]) == (precision, "openvino")
        model = onnx.load(tmp_path / precision / "model.onnx", load_external_data=False)
        onnx.checker.check_model(str(tmp_path / precision / "model.onnx"), full_check=True)
        nodes = {node.op_type for node in model.graph.node}
        assert not nodes & {"Attention", "RMSNormalization", "RotaryEmbedding"}
        assert not any(node.domain for node in model.graph.node)
        assert {tensor.data_type for tensor in model.graph.initializer} == {TensorProto.FLOAT, TensorProto.INT64}


def test_the_residual_stream_reaches_openvinos_output_through_sums_alone(folders, tmp_path):
    """So that OpenVINO computes it in float32 even in a bf16 model."""
    export(folders / "checkpoint", tmp_path / "model", ExportOptions("bf16", target="openvino", golden=False))
    graph = onnx.load(tmp_path / "model" / "model.onnx", load_external_data=False).graph
    makers = {name: node for node in graph.node for name in node.output}
    sums = {"Add", "Mul", "Div", "Max", "ReduceSum", "ReduceL2", "Gather", "Squeeze"}
    ahead, residual = ["embeddings"], []
    while ahead:
        node = makers.get(ahead.pop())
        if node is not None and node.op_type in sums:
            residual.append(node)
            ahead += node.input
    assert any(node.op_type == "Gather" and node.input[0].endswith("embed_tokens.weight") for node in residual)


def test_inputs_and_output_match_the_contract(folder):
    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph

    def describe(value):
        dims = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        return value.name, value.type.tensor_type.elem_type, dims

    masks = [(name, TensorProto.INT64, ["batch", "sequence"]) for name in ("input_ids", "attention_mask", "pool_mask")]
    assert [describe(value) for value in graph.input] == masks
    dtype = TensorProto.FLOAT16 if "fp16" in folder.name else TensorProto.FLOAT
    assert [describe(value) for value in graph.output] == [("embeddings", dtype, ["batch", 32])]


def test_attention_is_bidirectional_and_has_lengths_but_no_mask(folder):
    graph = TypedGraph(folder / "model.onnx")
    nodes = graph.nodes("Attention")
    assert len(nodes) == 3
    for node in nodes:
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        assert attributes == {"is_causal": 0, "q_num_heads": 4, "kv_num_heads": 2}
        assert list(node.input[3:6]) == ["", "", ""]
        assert graph.maker[node.input[6]].op_type == "ReduceSum"


def test_norms_compute_their_statistics_in_fp32(folder):
    graph = TypedGraph(folder / "model.onnx")
    norms = graph.nodes("RMSNormalization", "LayerNormalization")
    assert len(norms) == 3 * 2 + 1 + (2 if "fused" in folder.name else 3)
    for node in norms:
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        assert attributes["stash_type"] == TensorProto.FLOAT
        assert attributes["axis"] == -1
        assert {graph.dtype[name] for name in [*node.input, *node.output]} == {TensorProto.FLOAT}


def test_fp32_graph_has_no_16_bit_value_and_no_needless_cast(folders):
    graph = TypedGraph(folders / "fp32-fused" / "model.onnx")
    assert not {TensorProto.FLOAT16, TensorProto.BFLOAT16} & set(graph.dtype.values())
    assert len(graph.nodes("Cast")) == 1  # pool_mask


def test_16_bit_graph_keeps_the_residual_stream_in_fp32(half):
    """Walks back from the pooler's input to the embedding table: one Add per sublayer, all fp32."""
    graph, _ = half
    final = next(node for node in graph.nodes("RMSNormalization") if node.input[1] == "embedding_model.norm.weight")
    value, additions = final.input[0], 0
    while graph.maker[value].op_type == "Add":
        node = graph.maker[value]
        assert [graph.dtype[name] for name in (*node.input, value)] == [TensorProto.FLOAT] * 3
        assert graph.maker[node.input[1]].op_type == "Cast"
        value, additions = node.input[0], additions + 1
    assert additions == 2 * 3
    assert graph.maker[value].op_type == "Cast"
    assert graph.maker[graph.maker[value].input[0]].op_type == "Gather"


def test_16_bit_graph_multiplies_and_attends_in_its_dtype(half):
    graph, narrow = half
    for node in graph.nodes("MatMul", "Attention", "RotaryEmbedding", "Sigmoid", "Gelu"):
        wide = node.op_type == "MatMul" and node.name.startswith("latent_attention_model/mean/MatMul")
        wide = wide and node.input[1] != "latent_attention_model.cross_attend_blocks.1.fn.net.2.weight"
        expected = TensorProto.FLOAT if wide else narrow
        dtypes = [graph.dtype[name] for name in node.input if name]
        assert set(dtypes) - {TensorProto.INT64} == {expected}, node.name


def test_16_bit_graph_computes_softmax_mean_and_length_in_fp32(half):
    graph, _ = half
    for node in graph.nodes("Softmax", "Sqrt"):
        assert graph.dtype[node.input[0]] == TensorProto.FLOAT
    sums = [node for node in graph.nodes("ReduceSum") if graph.dtype[node.input[0]] != TensorProto.INT64]
    assert len(sums) == 3
    assert {graph.dtype[node.input[0]] for node in sums} == {TensorProto.FLOAT}


def test_every_weight_is_external_aligned_and_used(folder):
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    used = {name for node in model.graph.node for name in node.input}
    end, size = 0, (folder / "model.onnx.data").stat().st_size
    for tensor in model.graph.initializer:
        assert tensor.name in used
        if tensor.data_location != TensorProto.EXTERNAL:
            assert int(np.prod(tensor.dims)) <= 4
            continue
        place = {entry.key: entry.value for entry in tensor.external_data}
        offset, length = int(place["offset"]), int(place["length"])
        assert place["location"] == "model.onnx.data"
        assert offset % (65536 if length >= 1 << 20 else 4096) == 0
        assert offset >= end
        end = offset + length
    assert end == size
    assert (folder / "model.onnx").stat().st_size < 1 << 20


def test_fused_pooler_drops_the_projections_it_replaces(folders):
    names = {
        pooler: {
            tensor.name
            for tensor in onnx.load(
                folders / f"fp16-{pooler}" / "model.onnx", load_external_data=False
            ).graph.initializer
        }
        for pooler in ("fused", "direct")
    }
    replaced = ("to_q", "to_kv", "to_out", "latents", "norm_context")
    assert not any(part in name for name in names["fused"] for part in replaced)
    assert all(any(part in name for name in names["direct"]) for part in replaced)


def quantization_of(graph, bits):
    """The attributes of a graph's quantised projections, which must all be the same."""
    facts = []
    for node in graph.nodes("MatMulNBits"):
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        facts.append({key: attributes[key] for key in ("bits", "block_size", "accuracy_level")})
        facts[-1]["symmetric"] = len(node.input) == 3
    assert all(other == facts[0] for other in facts)
    assert facts[0]["bits"] == bits
    return facts[0] | {"activations": "float32"}


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantised_graph_keeps_norms_wide_and_its_embedding_table_in_fp16(folders, precision):
    graph = TypedGraph(folders / f"{precision}-fused" / "model.onnx")
    assert len(graph.nodes("MatMulNBits")) == 3 * 7 + 4
    assert len(graph.nodes("MatMul")) == 1  # the mean, which has no weight
    for name, dtype in graph.dtype.items():
        if name.endswith("embed_tokens.weight"):
            assert dtype == TensorProto.FLOAT16
        elif "norm" in name and name.endswith("weight"):
            assert dtype == TensorProto.FLOAT


def test_w8a8_graph_quantises_tokens_once_for_products_that_share_them(tmp_path, small_spec):
    checkpoint = write_checkpoint(tmp_path / "checkpoint", small_spec.but(layers=3))
    export(checkpoint, tmp_path / "model", ExportOptions(precision="w8a8", target="cpu"))
    graph = TypedGraph(tmp_path / "model" / "model.onnx")
    assert len(graph.nodes("MatMulIntegerToFloat")) == 3 * 7 + 4
    assert len(graph.nodes("QuantizeLinear")) == 3 * 4 + 4  # before q, k and v; o; gate and up; down
    others = [node for node in graph.nodes("MatMul") if not node.input[1].endswith(".large")]
    assert len(others) == 2  # the means of hidden states and activations, which have no weight
    for node in graph.nodes("MatMulIntegerToFloat"):
        kinds = [graph.dtype[name] for name in node.input]
        wanted = [TensorProto.UINT8, TensorProto.INT8, TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.UINT8]
        assert kinds == wanted
    manifest = json.loads((tmp_path / "model" / "nvembed.json").read_text())
    assert (manifest["precision"], manifest["graph"]["target"]) == ("w8a8", "cpu")
    facts = {"bits": 8, "block_size": None, "symmetric": True, "accuracy_level": None, "activations": "float32"}
    assert manifest["quantization"] == facts


@pytest.mark.parametrize("symmetric", [True, False])
def test_quantised_graph_with_fp16_activations_has_fp16_scales_and_output(tmp_path, small_spec, symmetric):
    checkpoint = write_checkpoint(tmp_path / "checkpoint", small_spec)
    options = ExportOptions(precision="int4", activations="fp16", symmetric=symmetric, golden=False)
    export(checkpoint, tmp_path / "model", options)
    graph = TypedGraph(tmp_path / "model" / "model.onnx")
    for node in graph.nodes("MatMulNBits"):
        kinds = [graph.dtype[name] for name in (*node.input, *node.output)]
        zeros = [] if symmetric else [TensorProto.UINT8]
        assert kinds == [TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.FLOAT16, *zeros, TensorProto.FLOAT16]
    assert graph.dtype["embeddings"] == TensorProto.FLOAT16
    manifest = json.loads((tmp_path / "model" / "nvembed.json").read_text())
    assert (manifest["quantization"]["activations"], manifest["quantization"]["symmetric"]) == ("float16", symmetric)


def test_manifest_describes_the_files(folder):
    import hashlib

    manifest = json.loads((folder / "nvembed.json").read_text())
    precision, pooler = folder.name.split("-")

    def digest(file):
        return hashlib.sha256((folder / file).read_bytes()).hexdigest()

    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["golden.json", "model.onnx", "model.onnx.data", "nvembed.json", "tokenizer.json"]
    )
    assert manifest["schema_version"] == 1
    assert manifest["model"] == {"name": "checkpoint", "source": "example/small", "license": "apache-2.0"}
    assert (manifest["precision"], manifest["pooler"], manifest["max_length"]) == (precision, pooler, 512)
    bits = {"int8": 8, "int4": 4}.get(precision)
    assert manifest["quantization"] == (bits and quantization_of(TypedGraph(folder / "model.onnx"), bits))
    assert manifest["architecture"] == {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 48,
        "vocab_size": 384,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "num_latents_value": 5,
        "num_cross_heads": 2,
        "cross_dim_head": 8,
        "feed_forward_dim": 128,
        "output_normalize": True,
    }
    graph = manifest["graph"]
    assert graph["sha256"] == digest("model.onnx")
    assert graph["data_sha256"] == digest("model.onnx.data")
    assert graph["data_bytes"] == (folder / "model.onnx.data").stat().st_size
    assert graph["opset"] == 24
    assert [entry["name"] for entry in graph["inputs"]] == ["input_ids", "attention_mask", "pool_mask"]
    dtype = "float16" if precision == "fp16" else "float32"
    assert graph["outputs"] == [{"name": "embeddings", "dtype": dtype, "shape": ["batch", 32]}]
    assert manifest["tokenizer"] == {
        "file": "tokenizer.json",
        "sha256": digest("tokenizer.json"),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    assert manifest["prompt"] == {"query_template": "Instruct: {task}\nQuery: ", "suffix": "</s>"}
    assert manifest["golden"] == {"file": "golden.json", "sha256": digest("golden.json")}


def test_rotary_tables_have_max_length_rows(tmp_path, small_spec):
    checkpoint = write_checkpoint(tmp_path / "checkpoint", small_spec)
    export(checkpoint, tmp_path / "model", ExportOptions(max_length=33, golden=False))
    model = onnx.load(tmp_path / "model" / "model.onnx", load_external_data=False)
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    assert shapes["rotary_emb.cos"] == shapes["rotary_emb.sin"] == [33, 4]
    assert json.loads((tmp_path / "model" / "nvembed.json").read_text())["max_length"] == 33
