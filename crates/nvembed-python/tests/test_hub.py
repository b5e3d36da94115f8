"""A checkpoint from the Hugging Face hub, by its own client, from a stand-in for the hub on this machine."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from conftest import CHECKPOINT, TEXTS
from nvembed import CheckpointError, Embedder

pytestmark = pytest.mark.wheel
MODEL, COMMIT, TOKEN = "someone/nv-embed-mini", "0123456789abcdef0123456789abcdef01234567", "hf_secret"


class Hub(BaseHTTPRequestHandler):
    """What the client asks of a repository: its list of files, and each file. Both need the token."""

    asked: list[str]

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(b"{}", 401, X_Error_Code="GatedRepo", X_Error_Message="accept the licence")
            return
        files = [path for path in CHECKPOINT.iterdir() if path.is_file()]
        if self.path.startswith(f"/api/models/{MODEL}/tree/"):
            tree = [{"type": "file", "path": path.name, "size": path.stat().st_size, "oid": "0"} for path in files]
            self.answer(json.dumps(tree).encode())
            return
        if self.path.startswith(f"/api/models/{MODEL}/"):
            siblings = [{"rfilename": path.name} for path in files]
            self.answer(json.dumps({"id": MODEL, "sha": COMMIT, "siblings": siblings}).encode())
            return
        name = self.path.rsplit("/", 1)[-1]
        content = next((path.read_bytes() for path in files if path.name == name), None)
        if content is None:
            self.answer(b"", 404)
            return
        digest = hashlib.sha256(content).hexdigest()
        self.answer(content, ETag=f'"{digest}"', X_Repo_Commit=COMMIT, Content_Type="application/octet-stream")

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    constants = pytest.importorskip("huggingface_hub.constants")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Hub.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    for name, value in {
        "ENDPOINT": address,
        "HUGGINGFACE_CO_URL_TEMPLATE": address + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_ENDPOINT", address)
    yield server
    server.shutdown()
    server.server_close()


def test_an_id_of_the_hub_is_downloaded_with_the_token_exported_once_and_opened(hub, tmp_path, capfd, model):
    options = {"precision": "fp32", "target": "any", "cache_folder": tmp_path / "cache", "token": TOKEN}
    first = Embedder.from_checkpoint(MODEL, **options)
    assert any("/resolve/" in path and path.endswith("model.safetensors") for path in Hub.asked), Hub.asked
    assert "licence of the weights" in capfd.readouterr().err
    np.testing.assert_array_equal(first.encode(TEXTS), model.encode(TEXTS))
    Embedder.from_checkpoint(MODEL, **options)
    assert "licence" not in capfd.readouterr().err, "exported once"


def test_without_the_token_or_the_hub_the_error_says_what_to_do(hub, tmp_path):
    with pytest.raises(CheckpointError, match="needs a token"):
        Embedder.from_checkpoint(MODEL, cache_folder=tmp_path / "cache")
    hub.shutdown()
    hub.server_close()
    with pytest.raises(CheckpointError, match="Without a network, copy the checkpoint and name its folder"):
        Embedder.from_checkpoint(MODEL, cache_folder=tmp_path / "cache", token=TOKEN)
