"""Writes the checkpoints in this folder with PaddleNLP's own NVEncodeModel, and its embeddings of a few rows.

    pip install paddlepaddle==3.3.1 --pre paddlenlp==3.0.0b4 aistudio-sdk==0.2.6
    python export/tests/paddle/make.py

The files are committed, because PaddlePaddle is too large to be downloaded for every test. The values are those of
`seeded_checkpoint`, in float16 or bfloat16. The embeddings are computed in float32 from the same values.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import paddle
import paddlenlp
import paddlenlp.transformers.nv_embed.modeling as modeling
from of_paddle import CASES, PaddleCase, values
from paddlenlp.transformers.model_utils import PretrainedModel

# The tokenizer is not part of this: ids go in.
modeling.AutoTokenizer = SimpleNamespace(from_pretrained=lambda *_, **__: SimpleNamespace(pad_token="</s>"))


def nvidias_name(name: str) -> str:
    """NVIDIA's name of PaddleNLP's parameter."""
    if name == "latent_model.latents.weight":
        return "latent_attention_model.latents"
    for ours, theirs in (
        ("latent_attention_model.cross_attend_blocks.0.fn.", "latent_model.cross_attend_blocks_0_fn_"),
        ("latent_attention_model.cross_attend_blocks.1.fn.net.", "latent_model.cross_attend_blocks_1_fn_net_"),
        ("latent_attention_model.cross_attend_blocks.0.", "latent_model.cross_attend_blocks_0_"),
        ("latent_attention_model.cross_attend_blocks.1.", "latent_model.cross_attend_blocks_1_"),
    ):
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return f"embedding_model.{name}"


def write(case: PaddleCase) -> None:
    spec = case.spec
    config = modeling.PretrainedConfig(
        vocab_size=spec.vocab,
        hidden_size=spec.hidden,
        intermediate_size=spec.intermediate,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.kv_heads,
        max_position_embeddings=spec.positions,
        rms_norm_eps=spec.eps,
        rope_theta=spec.theta,
        hidden_act="silu",
        initializer_range=0.02,
        attention_dropout=0.0,
        sliding_window=4096,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
        dtype=case.dtype,
    )
    paddle.set_default_dtype("float32")
    model = modeling.NVEncodeModel(config, "", "", "")
    expected, state = values(case), model.state_dict()
    for name, parameter in state.items():
        array = expected[nvidias_name(name)]
        is_linear = parameter.ndim == 2 and "embed_tokens" not in name
        parameter.set_value(np.ascontiguousarray(array.T if is_linear else array))
    assert len(state) == len(expected)
    model.eval()
    rows = []
    for ids, skipped in case.rows:
        mask = paddle.ones([1, len(ids)], dtype="int64")
        hidden = model.m_forward(paddle.to_tensor([ids]), attention_mask=mask)[0]
        mask[:, :skipped] = 0
        embedding = model.latent_model(hidden, mask).numpy()[0]
        rows.append({"input_ids": ids, "instruction_tokens": skipped, "embedding": [float(x) for x in embedding]})
    folder = case.folder
    shutil.rmtree(folder, ignore_errors=True)
    PretrainedModel.save_pretrained(model.to(dtype=case.dtype), str(folder), max_shard_size=case.shard_size)
    versions = {"paddlepaddle": paddle.__version__, "paddlenlp": paddlenlp.__version__, "numpy": np.__version__}
    answer = {"made_by": versions, "rows": rows}
    (folder / "embeddings.json").write_text(json.dumps(answer, indent=1))


if __name__ == "__main__":
    paddle.set_device("cpu")
    with paddle.no_grad():
        for case in CASES:
            write(case)
