"""Real clients against `nvembed serve`.

Each must get the numbers of `nvembed embed`, or be refused with a message that says what to set.

    make test-clients    # installs them, and requires all
    python clients.py --nvembed target/debug/nvembed --model build/models/nv-embed-mini-fp32 [--require openai,...]

A client that is not installed is skipped, and said to be, unless --require names it. Exits with 1 if one fails.
"""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.update(
    OPENAI_API_KEY="unused",
    NVIDIA_API_KEY="nvapi-unused",
    LITELLM_LOG="ERROR",
    LITELLM_LOCAL_MODEL_COST_MAP="True",
    HAYSTACK_TELEMETRY_ENABLED="False",
    NO_PROXY="127.0.0.1",
)

QUESTION = "who wrote the odyssey?"
TASK = "Given a question, retrieve passages that answer the question"
MODEL = "nv-embed-mini"

TESTS = []


def client(package: str, *, node: bool = False):
    """Registers a test of a client. It gets the server's address and returns a query and a passage."""

    def register(function):
        TESTS.append((package, node, function))
        return function

    return register


class Refused(Exception):
    """The client was refused, as it should be, with this message."""


@client("openai")
def openai_default(url: str):
    """base64, as openai sends it unless told otherwise; the model's name says what the text is."""
    from openai import OpenAI

    api = OpenAI(base_url=f"{url}/v1")
    query = api.embeddings.create(model=f"{MODEL}-query", input=QUESTION).data[0]
    assert query.truncated is False, query.model_extra
    assert query.tokens > 5, query.model_extra
    return query.embedding, api.embeddings.create(model=f"{MODEL}-passage", input=[QUESTION]).data[0].embedding


@client("openai")
def openai_extra_body(url: str):
    from openai import OpenAI

    api = OpenAI(base_url=f"{url}/v1", timeout=30)

    def embed(**fields):
        return api.embeddings.create(model=MODEL, input=QUESTION, user="u", extra_body=fields, encoding_format="float")

    return embed(task=TASK).data[0].embedding, embed(input_type="passage").data[0].embedding


@client("openai")
def openai_errors(url: str):
    """A client reads message, code and param, and does not try again what cannot succeed."""
    from openai import BadRequestError, NotFoundError, OpenAI

    api = OpenAI(base_url=f"{url}/v1")

    def refusal(kind: type, **fields):
        try:
            api.embeddings.create(**fields)
        except kind as error:
            return error
        raise AssertionError(f"{fields} was answered")

    unknown = refusal(NotFoundError, model="gpt-4", input="a")
    assert (unknown.code, unknown.param) == ("model_not_found", "model"), unknown
    ids = refusal(BadRequestError, model=MODEL, input=[[1, 2, 3], [4]])
    assert ids.param == "input", ids
    assert ids.request_id, ids
    raise Refused(ids.body["message"])


@client("langchain-openai")
def langchain_openai(url: str):
    from langchain_openai import OpenAIEmbeddings

    def embeddings(kind: str):
        return OpenAIEmbeddings(base_url=f"{url}/v1", model=f"{MODEL}-{kind}", check_embedding_ctx_length=False)

    return embeddings("query").embed_query(QUESTION), embeddings("passage").embed_documents([QUESTION])[0]


@client("langchain-nvidia-ai-endpoints")
def langchain_nvidia(url: str):
    from langchain_nvidia_ai_endpoints import NVIDIAEmbeddings

    embeddings = NVIDIAEmbeddings(base_url=f"{url}/v1", model=MODEL, truncate="END")
    return embeddings.embed_query(QUESTION), embeddings.embed_documents([QUESTION])[0]


@client("llama-index-embeddings-openai-like")
def llama_index_openai_like(url: str):
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding

    def embeddings(kind: str):
        return OpenAILikeEmbedding(model_name=f"{MODEL}-{kind}", api_base=f"{url}/v1", api_key="unused")

    return embeddings("query").get_query_embedding(QUESTION), embeddings("passage").get_text_embedding(QUESTION)


@client("llama-index-embeddings-nvidia")
def llama_index_nvidia(url: str):
    """Its synchronous get_query_embedding sends input_type passage: the model's name says it right."""
    from llama_index.embeddings.nvidia import NVIDIAEmbedding

    def embeddings(model: str):
        return NVIDIAEmbedding(base_url=f"{url}/v1", model=model, truncate="END")

    query = embeddings(f"{MODEL}-query").get_query_embedding(QUESTION)
    return query, embeddings(MODEL).get_text_embedding(QUESTION)


@client("llama-index-embeddings-text-embeddings-inference")
def llama_index_tei(url: str):
    """It writes the instruction into the text: --instructions-in-text."""
    from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

    instruction = f"Instruct: {TASK}\nQuery: "
    embeddings = TextEmbeddingsInference(model_name=MODEL, base_url=url, query_instruction=instruction, timeout=30)
    return embeddings.get_query_embedding(QUESTION), embeddings.get_text_embedding(QUESTION)


@client("haystack-ai")
def haystack_openai(url: str):
    from haystack import Document
    from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
    from haystack.utils import Secret

    common = {"api_key": Secret.from_token("unused"), "api_base_url": f"{url}/v1"}
    query = OpenAITextEmbedder(model=f"{MODEL}-query", **common).run(QUESTION)["embedding"]
    documents = OpenAIDocumentEmbedder(model=f"{MODEL}-passage", progress_bar=False, **common)
    return query, documents.run([Document(content=QUESTION)])["documents"][0].embedding


@client("nvidia-haystack")
def haystack_nvidia(url: str):
    from haystack import Document
    from haystack_integrations.components.embedders.nvidia import NvidiaDocumentEmbedder, NvidiaTextEmbedder

    query, documents = (kind(model=MODEL, api_url=f"{url}/v1") for kind in (NvidiaTextEmbedder, NvidiaDocumentEmbedder))
    query.warm_up()
    documents.warm_up()
    embedded = documents.run([Document(content=QUESTION)])["documents"][0].embedding
    return query.run(QUESTION)["embedding"], embedded


def litellm(url: str, provider: str):
    import litellm

    def embed(**fields):
        model = f"{provider}/{fields.pop('model', MODEL)}"
        answer = litellm.embedding(model=model, api_base=f"{url}/v1", api_key="unused", input=[QUESTION], **fields)
        return answer.data[0]["embedding"]

    return embed


@client("litellm")
def litellm_openai(url: str):
    embed = litellm(url, "openai")
    return embed(model=f"{MODEL}-query"), embed(model=f"{MODEL}-passage")


@client("litellm")
def litellm_hosted_vllm(url: str):
    embed = litellm(url, "hosted_vllm")
    return embed(model=f"{MODEL}-query"), embed(model=f"{MODEL}-passage")


@client("litellm")
def litellm_nvidia_nim(url: str):
    embed = litellm(url, "nvidia_nim")
    return embed(input_type="query", truncate="END"), embed(input_type="passage", truncate="END")


@client("huggingface_hub")
def hugging_face_hub(url: str):
    from huggingface_hub import InferenceClient

    api = InferenceClient(url)
    query = api.feature_extraction(QUESTION, prompt_name="query", truncate=True, normalize=True)
    return query[0].tolist(), api.feature_extraction(QUESTION)[0].tolist()


@client("cohere")
def cohere_v2(url: str):
    import cohere

    api = cohere.ClientV2(api_key="unused", base_url=url)

    def embed(kind: str):
        answer = api.embed(model=MODEL, texts=[QUESTION], input_type=kind, embedding_types=["float"])
        return answer.embeddings.float_[0]

    return embed("search_query"), embed("search_document")


@client("openai", node=True)
def openai_node(url: str):
    """base64 by default: a list of numbers in the answer would be read as garbage."""
    here = Path(__file__).parent
    command = ["node", str(here / "clients.mjs"), f"{url}/v1", MODEL, QUESTION]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return answer["query"], answer["passage"]


def expected(nvembed: str, model: str) -> tuple[list[float], list[float]]:
    """What `nvembed embed` says, as 32-bit floats in decimal."""

    def embed(*arguments: str):
        command = [nvembed, "embed", "-m", model, "-q", *arguments]
        output = subprocess.run(command, input=QUESTION, check=True, capture_output=True, text=True).stdout
        return json.loads(output)["embedding"]

    return embed("--task", TASK), embed()


def same(found: list[float], wanted: list[float]) -> bool:
    """Equal as 32-bit floats, which some clients hold as 64-bit floats."""
    from struct import pack

    return len(found) == len(wanted) and all(pack("f", a) == pack("f", b) for a, b in zip(found, wanted, strict=True))


def version(package: str, node: bool) -> str | None:
    if node:
        path = Path(__file__).parents[4] / "build/clients-node/node_modules" / package / "package.json"
        return json.loads(path.read_text())["version"] if path.is_file() else None
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


class Server:
    """`nvembed serve` on a port that the system chooses."""

    def __init__(self, nvembed: str, model: str, *options: str):
        command = [nvembed, "serve", "-m", model, "--listen", "127.0.0.1:0", "--drain-delay", "0", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            entry = json.loads(line)
            if "addresses" in entry:
                self.url = f"http://{entry['addresses']}"
            if entry["message"] == "ready":
                return
        raise SystemExit(f"the server did not start: exit code {self.process.wait()}")

    def end(self) -> None:
        self.process.terminate()
        log = self.process.communicate(timeout=60)[1]
        assert self.process.returncode == 0, self.process.returncode
        assert "odyssey" not in log, "a text is in the log"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nvembed", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--require", default="", help="packages that must be installed, or all")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    arguments = parser.parse_args()
    wanted = expected(arguments.nvembed, arguments.model)
    server = Server(arguments.nvembed, arguments.model, "--instructions-in-text")
    required, failed = arguments.require.split(","), 0
    for package, node, test in TESTS:
        found = version(package, node)
        name = f"{package}{' (node)' if node else ''}"
        if found is None:
            is_needed = name in required or "all" in required
            failed += is_needed
            outcome = "FAILED: not installed" if is_needed else "SKIPPED: not installed"
        else:
            try:
                query, passage = test(server.url)
                good = same(query, wanted[0]) and same(passage, wanted[1])
                outcome = "same numbers" if good else "FAILED: other numbers"
                failed += not good
            except Refused as refusal:
                outcome = f"refused: {refusal}"
            except Exception as error:  # a client may raise anything
                outcome = f"FAILED: {type(error).__name__}: {str(error)[:300]}"
                failed += 1
        row = (name, found or "", test.__name__, outcome.replace("\n", " "))
        print("| {} | {} | {} | {} |".format(*row) if arguments.markdown else "{:<50}{:<10}{:<26}{}".format(*row))
    server.end()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
