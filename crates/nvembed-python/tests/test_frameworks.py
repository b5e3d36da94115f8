"""MTEB, LangChain and sentence-transformers, as `make test-wheel` installs them."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import CHECKPOINT, MODEL, ROOT, TASK, TEXTS
from nvembed import Embedder

pytestmark = pytest.mark.wheel


def faq():
    lines = (ROOT / "tests/eval/faq.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return {f"q{i}": row["query"] for i, row in enumerate(rows)}, {
        f"p{i}": row["passage"] for i, row in enumerate(rows)
    }


def test_mteb_gives_what_nvembed_eval_gives(tmp_path):
    mteb = pytest.importorskip("mteb")
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from nvembed.mteb import NvEmbed

    queries, passages = faq()

    class Faq(AbsTaskRetrieval):
        metadata = mteb.TaskMetadata(
            name="NvEmbedFaq",
            description="The committed questions.",
            dataset={"path": "none/none", "revision": "1"},
            type="Retrieval",
            category="t2t",
            modalities=["text"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
            prompt={"query": TASK},
        )

        def load_data(self, **unused):
            self.dataset = {"default": {}}
            self.dataset["default"]["test"] = {
                "queries": Dataset.from_list([{"id": key, "text": text} for key, text in queries.items()]),
                "corpus": Dataset.from_list([{"id": key, "text": text, "title": ""} for key, text in passages.items()]),
                "relevant_docs": {key: {f"p{key[1:]}": 1} for key in queries},
                "top_ranked": None,
            }
            self.data_loaded = True

    result = mteb.evaluate(NvEmbed(MODEL), Faq(), cache=None, overwrite_strategy="always")
    found = result.task_results[0].scores["test"][0]

    lines = {
        "queries.jsonl": [json.dumps({"id": key, "text": text}) for key, text in queries.items()],
        "corpus.jsonl": [json.dumps({"id": key, "text": text}) for key, text in passages.items()],
        "qrels.tsv": [f"{key}\t0\tp{key[1:]}\t1" for key in queries],
    }
    for name, content in lines.items():
        (tmp_path / name).write_text("\n".join(content) + "\n")
    command = [ROOT / "target/debug/nvembed", "eval", "-q", "-m", MODEL, "--dtype", "f32", "--json", "--task", TASK]
    for name in lines:
        command += [f"--{name.split('.')[0]}", tmp_path / name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    wanted = json.loads(done.stdout)["lines"][0]
    # MTEB rounds to five digits.
    assert found["ndcg_at_10"] == pytest.approx(wanted["ndcg@10"]["value"], abs=1e-5)
    assert found["recall_at_10"] == pytest.approx(wanted["recall@10"]["value"], abs=1e-5)
    assert found["mrr_at_10"] == pytest.approx(wanted["mrr@10"]["value"], abs=1e-5)


def embeddings_of_langchain():
    from langchain_core.embeddings import Embeddings

    class NvEmbedEmbeddings(Embeddings):
        def __init__(self, model: str, **options):
            self.model = Embedder(model, **options)

        def embed_documents(self, texts):
            return self.model.encode_document(texts).tolist()

        def embed_query(self, text):
            return self.model.encode_query(text).tolist()

        async def aembed_documents(self, texts):
            return (await self.model.aencode_document(texts)).tolist()

        async def aembed_query(self, text):
            return (await self.model.aencode_query(text)).tolist()

    return NvEmbedEmbeddings


try:
    from langchain_tests.integration_tests import EmbeddingsIntegrationTests
except ImportError:
    EmbeddingsIntegrationTests = None

if EmbeddingsIntegrationTests is not None:

    class TestLangChain(EmbeddingsIntegrationTests):
        """The lines in docs/guides/python.md, by LangChain's own tests."""

        @property
        def embeddings_class(self):
            return embeddings_of_langchain()

        @property
        def embedding_model_params(self):
            return {"model": str(MODEL)}


def test_tensors_share_memory():
    torch = pytest.importorskip("torch")
    rows = Embedder(MODEL).encode(TEXTS, convert_to_tensor=True)
    assert isinstance(rows, torch.Tensor)
    assert rows.shape == (5, 256)


def pipeline_of_sentence_transformers(folder):
    """Its own tokenization and prompt lengths, around the reference in PyTorch; and the lengths that it counts."""
    torch = pytest.importorskip("torch")
    st = pytest.importorskip("sentence_transformers")
    from sentence_transformers.base.modules.transformer import Transformer
    from transformers import PreTrainedTokenizerFast

    sys.path.insert(0, str(ROOT / "export/tests"))
    from reference_torch import ReferenceModel

    reference = ReferenceModel(CHECKPOINT)
    reference.backbone.float().save_pretrained(folder)
    reference = ReferenceModel(CHECKPOINT)
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_file=str(CHECKPOINT / "tokenizer.json"), **special).save_pretrained(folder)
    counted, change = [], [0]

    class Backbone(Transformer):
        def forward(self, features, **unused):
            pooled = features["attention_mask"].clone()
            counted.append(int(features.get("prompt_length", 0)))
            pooled[:, : max(0, counted[-1] + change[0])] = 0
            rows = reference.embed(features["input_ids"].numpy(), features["attention_mask"].numpy(), pooled.numpy())
            return {**features, "sentence_embedding": torch.from_numpy(rows)}

    module = Backbone(str(folder), transformer_task="feature-extraction")
    return st.SentenceTransformer(modules=[module], device="cpu"), counted, change


def test_sentence_transformers_is_equal_where_its_mask_is_right(tmp_path):
    theirs, counted, change = pipeline_of_sentence_transformers(tmp_path)
    ours = Embedder(MODEL)
    texts = [f"{text}" for text in TEXTS if text]
    with_eos = [f"{text}</s>" for text in texts]  # as the model card's example adds it
    passages = np.abs(theirs.encode(with_eos) - ours.encode_document(texts)).max()
    prompt = f"Instruct: {TASK}\nQuery: "
    queries = np.abs(theirs.encode(with_eos, prompt=prompt) - ours.encode(texts, prompt=prompt)).max()
    of_prompt = ours.tokenize(texts, prompt=prompt)
    instruction = int((of_prompt["attention_mask"] - of_prompt["pool_mask"])[0].sum())
    # It counts <s> with the prompt, and so leaves the first token of the text out of the mean.
    assert counted[-1] == instruction + 1
    change[0] = -1
    mended = np.abs(theirs.encode(with_eos, prompt=prompt) - ours.encode(texts, prompt=prompt)).max()
    print(f"largest difference: passages {passages:.1e}, queries {queries:.1e}, with the mask mended {mended:.1e}")
    assert passages <= 1e-5
    assert mended <= 1e-5
    assert queries > 1e-2
