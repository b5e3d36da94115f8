"""The files that hold a checkpoint's tensors: safetensors, PyTorch's zip files and Paddle's pickles.

Each format has a reader that returns where every tensor is stored. None of them runs code from a file.
"""

from nvembed_export.weight_files.folder import Found, read_folder
from nvembed_export.weight_files.pytorch import read_pytorch
from nvembed_export.weight_files.safetensors_file import read_safetensors
from nvembed_export.weight_files.stored import DTYPE_BYTES, StoredTensor

__all__ = ["DTYPE_BYTES", "Found", "StoredTensor", "read_folder", "read_pytorch", "read_safetensors"]
