"""nvembed as a process: `peer_nvembed.py MODEL_FOLDER --library libnvembed.so`. See worker.py.

Uses the C interface, whose overhead is negligible compared with a call. nvembed itself tokenizes the texts.
"""

from __future__ import annotations

import argparse
import ctypes
from ctypes import byref, c_char_p, c_int32, c_size_t, c_void_p
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import worker

# nvembed_metadata in crates/nvembed-capi/include/nvembed.h
LIBRARY_VERSION = 5


class String(ctypes.Structure):
    """nvembed_string"""

    _fields_ = [("data", c_char_p), ("length", c_size_t)]


class Prompt(ctypes.Structure):
    """nvembed_prompt"""

    _fields_ = [("instruction", String), ("text", String)]


class Output(ctypes.Structure):
    """nvembed_output"""

    _fields_ = [
        ("struct_size", c_size_t),
        ("data", c_void_p),
        ("capacity", c_size_t),
        ("row_stride", c_size_t),
        ("dtype", c_int32),
        ("memory", c_int32),
        ("token_counts", c_void_p),
        ("truncated", c_void_p),
    ]


class Library:
    """libnvembed.so. A call that fails raises RuntimeError with nvembed's message."""

    def __init__(self, path: Path):
        self.c = ctypes.CDLL(str(path))
        self.c.nvembed_error_message.restype = self.c.nvembed_version.restype = c_char_p
        self.c.nvembed_error_message.argtypes = [c_void_p]
        if self.c.nvembed_abi_version() < 1:
            raise RuntimeError(f"{path}: C ABI version is {self.c.nvembed_abi_version()}, expected at least 1")

    def call(self, name: str, *arguments) -> None:
        error = c_void_p()
        if getattr(self.c, name)(*arguments, byref(error)) != 0:
            message = self.c.nvembed_error_message(error).decode()
            self.c.nvembed_error_free(error)
            raise RuntimeError(f"{name}: {message}")

    def version(self) -> str:
        return self.c.nvembed_version().decode()


class Model:
    """An open model."""

    def __init__(self, library: Library, folder: Path, provider: str, onnxruntime: Path, threads: int):
        self.library, self.handle = library, c_void_p()
        options, path = c_void_p(), str(folder).encode()
        library.call("nvembed_model_options_new", byref(options))
        for name, value in (("library", str(onnxruntime)), ("provider", provider)):
            library.call(f"nvembed_model_options_set_{name}", options, value.encode(), c_size_t(len(value.encode())))
        library.call("nvembed_model_options_set_intra_threads", options, c_size_t(threads))
        library.call("nvembed_model_options_set_parallel_prepacking", options, c_int32(1))
        library.call("nvembed_model_open", path, c_size_t(len(path)), options, byref(self.handle))
        dimension = c_size_t()
        library.call("nvembed_model_dimension", self.handle, byref(dimension))
        self.dimension = dimension.value

    def embed(self, prompts) -> np.ndarray:
        """[N, D] float32."""
        rows = np.empty((len(prompts), self.dimension), np.float32)
        parts = [[part.encode() for part in prompt] for prompt in prompts]
        array = (Prompt * len(prompts))(*(Prompt(*(String(part, len(part)) for part in pair)) for pair in parts))
        output = Output(struct_size=ctypes.sizeof(Output), data=rows.ctypes.data, capacity=rows.size)
        self.library.call("nvembed_embed", self.handle, array, c_size_t(len(prompts)), None, byref(output), None)
        return rows

    def metadata(self, field: int) -> str:
        buffer, length = ctypes.create_string_buffer(4096), c_size_t()
        call = self.library.call
        call("nvembed_model_metadata", self.handle, c_int32(field), buffer, c_size_t(len(buffer)), byref(length))
        return buffer.value.decode()


def onnxruntime_folder(venv: Path | None) -> Path:
    """The folder of ONNX Runtime's library: of the wheel that the other peers import, or in another environment."""
    if venv is None:
        return Path(find_spec("onnxruntime").origin).parent / "capi"
    return next(venv.glob("lib/python3*/site-packages/onnxruntime/capi"))


def open_model(args):
    library = Library(args.library)
    model = Model(library, args.folder, args.provider, onnxruntime_folder(args.onnxruntime_venv), args.threads)
    versions = {"nvembed": library.version(), "onnxruntime": model.metadata(LIBRARY_VERSION), "threads": args.threads}
    return model.embed, versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--library", type=Path, required=True)
    parser.add_argument("--provider", default="cpu")
    parser.add_argument(
        "--onnxruntime-venv", type=Path, help="virtual environment with ONNX Runtime (default: the one Python imports)"
    )
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    worker.serve(lambda: open_model(args))


if __name__ == "__main__":
    main()
