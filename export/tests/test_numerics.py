"""The exported graph, run by ONNX Runtime, computes NV-Embed: against torch, fused against direct, alone or batched.

PyTorch's answers are the committed ones, or with --live computed anew (`make test-torch`).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import questions
import tolerances
from onnx.reference import ReferenceEvaluator
from packing import pack, tokenize
from running import Model, cosines
from seeded_checkpoint import CASES, Spec, random_tensors, write_checkpoint, write_weights

from nvembed_export.checkpoint import Checkpoint
from nvembed_export.config import load_config
from nvembed_export.export import ExportOptions, export
from nvembed_export.golden import reference_embeddings
from nvembed_export.precision import make_precision
from nvembed_export.quantization import dequantize, quantize_rows


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to unit length, so that bounds also apply to a model that does not normalise."""
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture(scope="module", params=CASES, ids=lambda spec: spec.name)
def case(request, tmp_path_factory, torch_says):
    """One random checkpoint, exported in every form, with the reference's answer."""
    spec, folder = request.param, tmp_path_factory.mktemp(request.param.name)
    question = questions.RANDOM[spec.name]
    checkpoint = question.write(folder / "checkpoint")
    rows = question.rows(checkpoint)
    reference = torch_says(question, checkpoint, rows)
    models, folders = {}, {}
    for precision, pooler in product(("fp32", "fp16", "bf16", "int8", "int4"), ("fused", "direct")):
        target = folder / f"{precision}-{pooler}"
        export(checkpoint, target, ExportOptions(precision=precision, pooler=pooler, golden=False))
        models[precision, pooler], folders[precision, pooler] = Model(target), target
    for precision, pooler in (("fp32", "fused"), ("w8a8", "fused"), ("w8a8", "direct")):
        target = folder / f"{precision}-{pooler}-cpu"
        export(checkpoint, target, ExportOptions(precision=precision, pooler=pooler, target="cpu", golden=False))
        models[precision, "cpu" if precision == "fp32" else pooler] = Model(target)
    for pooler in ("fused", "direct"):
        target = folder / f"{pooler}-openvino"
        export(checkpoint, target, ExportOptions(precision="fp32", pooler=pooler, target="openvino", golden=False))
        models["openvino", pooler] = Model(target)
    return SimpleNamespace(spec=spec, rows=rows, models=models, folders=folders, reference=reference)


def test_fp32_graph_equals_the_torch_reference(case, measured):
    found = case.models["fp32", "fused"](case.rows)
    worst, bound = np.abs(unit(found) - unit(case.reference)).max(), tolerances.fp32(case.spec.layers)
    measured(f"{case.spec.name:18} fp32 against torch, largest difference  {worst:.2e} (bound {bound:.1e})")
    assert worst <= bound
    assert np.abs(np.linalg.norm(found, axis=-1) / np.linalg.norm(case.reference, axis=-1) - 1).max() <= bound


def test_fp16_graph_stays_close_to_the_torch_reference(case, measured):
    for pooler in ("fused", "direct"):
        least = cosines(case.models["fp16", pooler](case.rows), case.reference).min()
        measured(f"{case.spec.name:18} fp16 {pooler} against torch, least cosine  {least:.7f}")
        assert least >= tolerances.FP16_COSINE


def test_bf16_graph_stays_close_to_the_torch_reference(case, measured):
    """With fp32 sums between bf16 values, because ONNX Runtime's CPU provider has no bf16 products."""
    for pooler in ("fused", "direct"):
        least = cosines(case.models["bf16", pooler](case.rows), case.reference).min()
        measured(f"{case.spec.name:18} bf16 {pooler} against torch, least cosine  {least:.7f}")
        assert least >= tolerances.BF16_COSINE


def test_quantised_graphs_stay_close_to_the_torch_reference(case, measured):
    bounds = {"int8": tolerances.INT8_COSINE, "int4": tolerances.INT4_COSINE, "w8a8": tolerances.W8A8_COSINE}
    for name, bound in bounds.items():
        for pooler in ("fused", "direct"):
            least = cosines(case.models[name, pooler](case.rows), case.reference).min()
            measured(f"{case.spec.name:18} {name} {pooler} against torch, least cosine  {least:.7f}")
            assert least >= bound


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_weights_that_codes_can_express_lose_nothing(tmp_path, precision):
    """Takes the rounding away and leaves the graph: as near to the formulas as fp32, if products are taken in fp32.

    The formulas are those of golden.json, which equal torch's (test_golden.py): these weights follow the exporter's
    own rounding, and an answer for them would have to be committed anew with every change of it.
    """
    spec = Spec(
        "on-the-grid", 13, 96, 2, 4, 2, None, 80, 7, 2, 24, dtype="F32"
    )  # rows of 48, 80, 96, so that some blocks are not full
    checkpoint, tensors = write_checkpoint(tmp_path / "checkpoint", spec), random_tensors(spec)
    q = replace(make_precision(precision).quantization, block_size=64)
    for name, array in tensors.items():
        if "embed_tokens" in name:
            tensors[name] = array.astype(np.float16).astype(np.float32)
        elif array.ndim == 2 and "latents" not in name:
            codes = quantize_rows(array, q, np.dtype(np.float32))
            tensors[name] = dequantize(*codes, q, array.shape[1]).astype(np.float32)
    write_weights(checkpoint, tensors, "F32")
    options = ExportOptions(precision=precision, block_size=64, accuracy_level=1, pooler="direct", golden=False)
    export(checkpoint, tmp_path / "model", options)
    rows, config = tokenize(checkpoint / "tokenizer.json", questions.TEXTS), load_config(checkpoint)
    reference = reference_embeddings(Checkpoint.open(checkpoint, config), config, rows)
    difference = np.abs(Model(tmp_path / "model")(rows) - reference).max()
    assert difference <= tolerances.fp32(spec.layers)


def test_onnx_reference_runtime_agrees(case, measured):
    """A second runtime, which rounds after every narrow operation (ONNX Runtime's CPU kernels may keep more digits)."""
    if case.spec.hidden > 128:
        pytest.skip("ONNX's reference runtime is too slow for this size")
    rows = case.rows[:4]
    bounds = {"fp16": tolerances.FP16_COSINE, "bf16": tolerances.BF16_COSINE_ROUNDING_ALL}
    for precision in ("fp32", *bounds):
        model = onnx.load(case.folders[precision, "fused"] / "model.onnx")
        inputs = dict(zip(("input_ids", "attention_mask", "pool_mask"), pack(rows), strict=True))
        found = ReferenceEvaluator(model).run(None, inputs)[0].astype(np.float64)
        if precision == "fp32":
            worst = np.abs(unit(found) - unit(case.reference[:4])).max()
            measured(f"{case.spec.name:18} fp32 in ONNX's reference runtime        {worst:.2e}")
            assert worst <= tolerances.fp32(case.spec.layers)
        else:
            least = cosines(found, case.reference[:4]).min()
            measured(f"{case.spec.name:18} {precision} in ONNX's reference runtime, cosine {least:.7f}")
            assert least >= bounds[precision]


def test_the_target_cpu_equals_the_torch_reference(case, measured):
    found = case.models["fp32", "cpu"](case.rows)
    worst, bound = np.abs(unit(found) - unit(case.reference)).max(), tolerances.fp32(case.spec.layers)
    measured(f"{case.spec.name:18} target cpu against torch, largest difference {worst:.2e} (bound {bound:.1e})")
    assert worst <= bound


def test_the_target_openvino_equals_the_torch_reference(case, measured):
    for pooler in ("fused", "direct"):
        found = case.models["openvino", pooler](case.rows)
        worst, bound = np.abs(unit(found) - unit(case.reference)).max(), tolerances.fp32(case.spec.layers)
        measured(f"{case.spec.name:18} target openvino, {pooler}, against torch  {worst:.2e} (bound {bound:.1e})")
        assert worst <= bound


@pytest.mark.parametrize("packed", [("fp32", "cpu"), ("openvino", "fused"), ("openvino", "direct")], ids="-".join)
def test_packed_tokens_ignore_padding(case, packed):
    model = case.models[packed]
    together = unit(model(case.rows, width=max(len(ids) for ids, _ in case.rows) + 17))
    alone = unit(np.concatenate([model([row]) for row in case.rows]))
    assert np.abs(together - alone).max() <= tolerances.BATCH_INVARIANCE


@pytest.fixture
def small_answers(tmp_path, torch_says):
    """The small checkpoint, and the answers to its rows by row."""
    question = questions.SMALL_ROWS
    checkpoint = question.write(tmp_path / "checkpoint")
    reference = torch_says(question, checkpoint, question.rows(checkpoint))
    exact = len(questions.EXACTLY_MAX_LENGTH)
    return SimpleNamespace(checkpoint=checkpoint, exactly_max_length=reference[:exact], uneven=reference[exact:])


@pytest.mark.parametrize("target", ["cpu", "openvino"])
def test_a_packed_batch_may_have_more_tokens_than_the_longest_row(tmp_path, small_answers, target):
    options = ExportOptions(precision="fp32", target=target, max_length=8, golden=False)
    export(small_answers.checkpoint, tmp_path / "model", options)
    found = unit(Model(tmp_path / "model")(questions.UNEVEN))
    assert np.abs(found - unit(small_answers.uneven)).max() <= tolerances.fp32(questions.SMALL.layers)


@pytest.mark.parametrize("pooler", ["fused", "direct"])
@pytest.mark.parametrize("target", ["cpu", "openvino"])
def test_packed_tokens_skip_padding_and_in_the_end_tokens_not_pooled(tmp_path, small_spec, target, pooler):
    checkpoint = write_checkpoint(tmp_path / "checkpoint", small_spec.but(layers=3))
    options = ExportOptions(precision="fp32", target=target, pooler=pooler, golden=False)
    export(checkpoint, tmp_path / "model", options)
    model = onnx.load(tmp_path / "model" / "model.onnx")
    weights = {tensor.name for tensor in model.graph.initializer}
    weights |= {node.output[0] for node in model.graph.node if node.op_type == "Transpose" and node.input[0] in weights}
    products = [
        node
        for node in model.graph.node
        if node.op_type == "MatMul" and "layers." in node.name and node.input[1] in weights
    ]
    assert len(products) == 3 * 7
    model.graph.output.extend(onnx.ValueInfoProto(name=node.output[0]) for node in products)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = [([1, 5, 6, 7, 2], 2), ([1, 9, 2], 0), ([1, 8, 8, 8, 8, 8, 2], 6)]
    inputs = dict(zip(("input_ids", "attention_mask", "pool_mask"), pack(rows, width=9), strict=True))
    tokens, pooled = (int(inputs[name].sum()) for name in ("attention_mask", "pool_mask"))
    assert (tokens, pooled) == (15, 7)
    found = session.run([node.output[0] for node in products], inputs)
    for index, (node, value) in enumerate(zip(products, found, strict=True)):
        last = index >= 2 * 7 + 3  # from the last layer's o_proj on
        assert value.shape[:2] == (1, pooled if last else tokens), node.name


def test_fused_pooler_equals_direct_pooler(case, measured):
    fused, direct = (unit(case.models["fp32", pooler](case.rows)) for pooler in ("fused", "direct"))
    worst = np.abs(fused - direct).max()
    measured(f"{case.spec.name:18} fused against direct, largest difference {worst:.2e}")
    assert worst <= tolerances.FUSED_AGAINST_DIRECT


def test_a_row_does_not_depend_on_its_batch(case, measured):
    model = case.models["fp32", "fused"]
    together = unit(model(case.rows))
    alone = unit(np.concatenate([model([row]) for row in case.rows]))
    reversed_rows = unit(model(case.rows[::-1]))[::-1]
    padded_more = unit(model(case.rows, width=max(len(ids) for ids, _ in case.rows) + 17))
    worst = max(np.abs(other - together).max() for other in (alone, reversed_rows, padded_more))
    measured(f"{case.spec.name:18} alone, reordered, padded more           {worst:.2e}")
    assert worst <= tolerances.BATCH_INVARIANCE


def test_padding_ids_do_not_matter(case):
    model, width = case.models["fp32", "fused"], max(len(ids) for ids, _ in case.rows) + 3
    input_ids, attention_mask, pool_mask = pack(case.rows, width)
    feeds = {"attention_mask": attention_mask, "pool_mask": pool_mask}
    a, b = (
        model.session.run(None, feeds | {"input_ids": np.where(attention_mask == 1, input_ids, pad)})[0]
        for pad in (2, 99)
    )
    assert np.array_equal(a, b)


def test_every_part_of_the_input_matters(case):
    """Guards the tests above: a model that ignores part of its input would hide mistakes."""
    model = case.models["fp32", "fused"]
    ids = list(range(20, 44))
    base = unit(model([(ids, 0)]))
    for other in ((ids[::-1], 0), (ids, 5), (ids[:-1], 0)):
        assert np.abs(unit(model([other])) - base).max() > 100 * tolerances.fp32(case.spec.layers)


def test_rows_may_be_exactly_max_length_long(tmp_path, small_answers):
    """The last position of the rotary tables is used, and one more token is an error rather than a wrong answer."""
    options = ExportOptions(precision="fp32", max_length=questions.MAX_LENGTH, golden=False)
    export(small_answers.checkpoint, tmp_path / "model", options)
    model, rows = Model(tmp_path / "model"), questions.EXACTLY_MAX_LENGTH
    difference = np.abs(model(rows) - small_answers.exactly_max_length).max()
    assert difference <= tolerances.fp32(questions.SMALL.layers)
    with pytest.raises(Exception, match="RotaryEmbedding"):
        model([([*rows[0][0], 50], 0)])


def largest_residual(folder, rows) -> float:
    """Of what the last layer of an exported folder gives on."""
    model = onnx.load(folder / "model.onnx")
    name = [node.output[0] for node in model.graph.node if node.name.endswith("/mlp/Add")][-1]
    model.graph.output.append(onnx.ValueInfoProto(name=name))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = dict(zip(("input_ids", "attention_mask", "pool_mask"), pack(rows), strict=True))
    return float(np.abs(session.run([name], inputs)[0]).max())


def test_residual_beyond_the_range_of_fp16_stays_finite(tmp_path, torch_says):
    """Only an fp32 residual stream can hold it."""
    question = questions.BEYOND_FP16
    checkpoint = question.write(tmp_path / "checkpoint")
    rows = question.rows(checkpoint)
    export(checkpoint, tmp_path / "fp32", ExportOptions(precision="fp32", golden=False))
    assert largest_residual(tmp_path / "fp32", rows) > float(np.finfo(np.float16).max)
    export(checkpoint, tmp_path / "fp16", ExportOptions(golden=False))
    found = Model(tmp_path / "fp16")(rows)
    assert np.isfinite(found).all()
    assert cosines(found, torch_says(question, checkpoint, rows)).min() >= tolerances.FP16_COSINE
