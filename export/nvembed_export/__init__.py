"""Turn an NV-Embed checkpoint into an ONNX model folder."""

__version__ = "0.1.0"
