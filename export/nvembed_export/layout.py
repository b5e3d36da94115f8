"""From the tensors of a file to those of NV-Embed: their names, and which way round their matrices are stored.

Two families of names are known: those of NVIDIA's checkpoints, and those of PaddleNLP's NVEncodeModel
(paddlenlp/transformers/nv_embed). One prefix that all names share is left out, as wrappers write it (`model.`,
`base_model.model.`, `module.`, `_orig_mod.`). Paddle's Linear stores [in, out], PyTorch's [out, in]. Which of the two a
file has is seen in the shapes of all matrices together, not guessed from a name.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nvembed_export.arrays import copy_transposed
from nvembed_export.errors import TensorError
from nvembed_export.weight_files import StoredTensor

BACKBONE, POOLER = "embedding_model", "latent_attention_model"
EMBEDDINGS = f"{BACKBONE}.embed_tokens.weight"
PADDLE_POOLER = "latent_model"
PADDLE_BACKBONES = ("", "mistral.", "model.")  # before a backbone's names: none, or the attribute that holds it
READ_BYTES = 8 << 20  # of a matrix that is transposed, in one read
KEPT_WHOLE = 2  # transposed matrices kept in memory: the folding reads rows of two in turn

_PADDLE_BLOCK = re.compile(
    r"cross_attend_blocks_([01])_(?:fn_)?(norm_context|norm|to_q|to_kv|to_out|net_0|net_2)\.(\w+)"
)


@dataclass(frozen=True)
class Named:
    """The tensors by NV-Embed's names, in the files' shapes; what was left out of the names; their family."""

    tensors: dict[str, StoredTensor]
    prefix: str
    is_paddle: bool


def name_tensors(tensors: dict[str, StoredTensor]) -> Named:
    """Find the family of names and the prefix. Names that belong to no family stay as they are. Raises TensorError."""
    marker = next((name for name in tensors if f"{PADDLE_POOLER}.cross_attend_blocks_" in name), None)
    if marker is not None:
        prefix = marker[: marker.index(f"{PADDLE_POOLER}.")]
        return _named(tensors, prefix, is_paddle=True)
    marker = next((name for name in tensors if name == EMBEDDINGS or name.endswith(f".{EMBEDDINGS}")), None)
    prefix = marker.removesuffix(EMBEDDINGS) if marker else ""
    return _named(tensors, prefix, is_paddle=False)


def _named(tensors: dict[str, StoredTensor], prefix: str, is_paddle: bool) -> Named:
    others = [name for name in tensors if not name.startswith(prefix)]
    if others:
        raise TensorError(
            f"{len(tensors) - len(others)} tensors have `{prefix}` in front, but {len(others)} have not, such as "
            f"`{others[0]}`; a prefix is left out only if all names have it"
        )
    result: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        short = name.removeprefix(prefix)
        if is_paddle:
            short = _from_paddle(short)
        if short in result:
            raise TensorError(f"tensors `{result[short].name}` and `{name}` are both `{short}`, expected one of them")
        result[short] = tensor
    return Named(result, prefix, is_paddle)


def _from_paddle(name: str) -> str:
    """NVIDIA's name of a tensor of PaddleNLP's NVEncodeModel."""
    if name == f"{PADDLE_POOLER}.latents.weight":
        return f"{POOLER}.latents"
    if name.startswith(f"{PADDLE_POOLER}."):
        match = _PADDLE_BLOCK.fullmatch(name.removeprefix(f"{PADDLE_POOLER}."))
        if not match:
            return name
        block, part, kind = match.groups()
        part = part.replace("net_", "net.")
        part = part if part.startswith("norm") else f"fn.{part}"
        return f"{POOLER}.cross_attend_blocks.{block}.{part}.{kind}"
    for prefix in PADDLE_BACKBONES[1:]:
        name = name.removeprefix(prefix)
    return f"{BACKBONE}.{name}"


def is_transposed(found: dict[str, StoredTensor], expected: dict[str, tuple[int, ...]]) -> bool:
    """Whether the matrices are stored [in, out]. Square ones do not tell; all others must agree. Raises TensorError."""
    straight, turned = [], []
    for name, shape in expected.items():
        if name == EMBEDDINGS or len(shape) != 2 or shape[0] == shape[1]:
            continue
        if found[name].shape == shape:
            straight.append(name)
        elif found[name].shape == shape[::-1]:
            turned.append(name)
    if straight and turned:
        raise TensorError(
            f"tensor `{straight[0]}` is stored [out, in] and `{turned[0]}` [in, out], expected one way for all matrices"
        )
    return bool(turned)


class TransposedTensor:
    """A matrix that the file stores as [in, out], read as [out, in].

    Rows of it are columns of the file, which lie far apart. So it is read as a whole, in order, and kept by `kept`.
    """

    def __init__(self, stored: StoredTensor, kept: KeptArrays):
        self.stored, self.kept = stored, kept
        self.name, self.file, self.dtype, self.shape = stored.name, stored.file, stored.dtype, stored.shape[::-1]

    def rows(self, start: int, stop: int) -> np.ndarray:
        """As StoredTensor.rows. The array must not be written to."""
        part = self.kept.get(self, self._read)[start:stop]
        return (part.astype("<u4") << np.uint32(16)).view("<f4") if self.dtype == "BF16" else part

    def _read(self) -> np.ndarray:
        """The whole matrix in the file's dtype; bfloat16 as its bits."""
        rows, width = self.stored.shape
        whole = np.empty((width, rows), {"F16": "<f2", "BF16": "<u2", "F32": "<f4"}[self.dtype])
        step = max(64, READ_BYTES // (width * whole.itemsize) // 64 * 64)
        for start in range(0, rows, step):
            block = self.stored.rows(start, min(start + step, rows))
            if self.dtype == "BF16":
                block = (block.view("<u4") >> np.uint32(16)).astype("<u2")
            copy_transposed(whole, start, block)
        return whole


class KeptArrays:
    """The last few arrays that were made, so that neither each block of rows reads a matrix nor all stay in memory."""

    def __init__(self, limit: int = KEPT_WHOLE):
        self.limit = limit
        self.arrays: OrderedDict[object, np.ndarray] = OrderedDict()
        self.lock = threading.Lock()  # a thread makes the next weight while another one is written

    def get(self, owner: object, make: Callable[[], np.ndarray]) -> np.ndarray:
        with self.lock:
            if owner not in self.arrays:
                while len(self.arrays) >= self.limit:  # before the next is made, so that they never are one more
                    self.arrays.popitem(last=False)
                self.arrays[owner] = make()
            self.arrays.move_to_end(owner)
            return self.arrays[owner]
