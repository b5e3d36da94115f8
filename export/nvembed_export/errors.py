"""The errors an export can end with, and the exit code of each.

Messages are lower case and name the thing and both values: what was found and what was expected (or the limit).
"""

EXIT_OK = 0
EXIT_USAGE = 2
EXIT_CHECKPOINT = 3
EXIT_OUTPUT = 4
EXIT_INTERRUPTED = 130


class ExportError(Exception):
    """Any failure of the exporter that is not a defect of the exporter itself."""

    exit_code = EXIT_CHECKPOINT


class UsageError(ExportError):
    """An argument contradicts the checkpoint or another argument."""

    exit_code = EXIT_USAGE


class ConfigError(ExportError):
    """config.json is missing, is not valid, or describes a model the graph does not implement."""


class CheckpointError(ExportError):
    """The safetensors files or their index are missing, damaged or inconsistent."""


class TensorError(CheckpointError):
    """A tensor is missing, left over, or has the wrong shape or dtype."""


class WeightValueError(CheckpointError):
    """A weight is not finite, or does not fit the dtype it is exported to."""


class TokenizerError(ExportError):
    """The tokenizer is missing, damaged, or is not the kind NV-Embed's prompts rely on."""


class OutputError(ExportError):
    """The model folder cannot be written: it exists, the disk is full, permission is missing."""

    exit_code = EXIT_OUTPUT
