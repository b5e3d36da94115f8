"""NV-Embed embeddings on ONNX Runtime, with the names of SentenceTransformer.

from nvembed import Embedder

model = Embedder("models/nv-embed-v2-int8")
queries = model.encode_query(["who wrote the odyssey?"])        # [1, 4096] float32
passages = model.encode_document(["The Odyssey is attributed to Homer."])
print(model.similarity(queries, passages))
"""

from nvembed._nvembed import DEFAULT_TASK, DeviceRows
from nvembed._nvembed import VERSION as __version__
from nvembed.embedder import Embedder
from nvembed.errors import (
    CacheError,
    CancelledError,
    CheckpointError,
    ClosedError,
    DeadlineExceededError,
    DeviceError,
    ForkedError,
    InferenceError,
    InputError,
    LibraryError,
    ModelError,
    NvEmbedError,
    OptionError,
    OverloadedError,
    ProviderError,
    SystemRefusedError,
    TooLongError,
)
from nvembed.exporting import export

__all__ = [
    "DEFAULT_TASK",
    "CacheError",
    "CancelledError",
    "CheckpointError",
    "ClosedError",
    "DeadlineExceededError",
    "DeviceError",
    "DeviceRows",
    "Embedder",
    "ForkedError",
    "InferenceError",
    "InputError",
    "LibraryError",
    "ModelError",
    "NvEmbedError",
    "OptionError",
    "OverloadedError",
    "ProviderError",
    "SystemRefusedError",
    "TooLongError",
    "__version__",
    "export",
]
