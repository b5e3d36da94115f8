"""The errors an export can raise, and their exit codes.

Messages are lower case and give the value found, the value or limit expected and, where there is one, the next step.
"""

EXIT_OK = 0
EXIT_USAGE = 2
EXIT_CHECKPOINT = 3
EXIT_OUTPUT = 4
EXIT_INTERRUPTED = 130


class ExportError(Exception):
    """Base of all errors that are not bugs in the exporter."""

    exit_code = EXIT_CHECKPOINT


class UsageError(ExportError):
    """An argument contradicts the checkpoint or another argument."""

    exit_code = EXIT_USAGE


class ConfigError(ExportError):
    """config.json is missing or invalid, or describes a model the graph does not implement."""


class CheckpointError(ExportError):
    """The files of the weights or their index are missing, damaged or inconsistent, or hold more than tensors."""


class TensorError(CheckpointError):
    """A tensor is missing or unexpected, or has the wrong shape or dtype."""


class WeightValueError(CheckpointError):
    """A weight is not finite, or exceeds the range of the dtype it is exported to."""


class TokenizerError(ExportError):
    """The tokenizer is missing or damaged, or is not of the kind NV-Embed's prompts rely on."""


class OutputError(ExportError):
    """The model folder cannot be written: it exists, the disk is full, or permission is missing."""

    exit_code = EXIT_OUTPUT
