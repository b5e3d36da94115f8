"""Where pip put ONNX Runtime and its plugins.

Nothing is imported: their Python modules would load the library themselves.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

INSTALL = {
    "cpu": "cpu",
    "cuda": "cuda",
    "tensorrt": "cuda",
    "openvino": "openvino",
    "nv-tensorrt-rtx": "tensorrt-rtx",
}


def _folder(package: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


def library() -> Path | None:
    """The folder of libonnxruntime in this environment."""
    folder = _folder("onnxruntime")
    folder = folder / "capi" if folder else None
    return folder if folder and any(folder.glob("libonnxruntime*")) else None


def plugin(provider: str) -> Path | None:
    """The library of a provider that comes as a plugin."""
    if provider != "nv-tensorrt-rtx":
        return None
    folder = _folder("onnxruntime_ep_nv_tensorrt_rtx")
    found = sorted(folder.glob("libonnxruntime_providers_nv_tensorrt_rtx*")) if folder else []
    return found[0] if found else None


def advice(provider: str) -> str:
    """What to install for a provider."""
    extra = INSTALL.get(provider)
    return f"pip install 'nvembed[{extra}]'" if extra else "install the ONNX Runtime that has this provider"
