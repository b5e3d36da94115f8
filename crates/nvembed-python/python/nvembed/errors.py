"""What can go wrong, by what to do about it. Decide by class or by `code`, never by the text."""

from __future__ import annotations

from nvembed._nvembed import CODES


class NvEmbedError(Exception):
    """An error of nvembed. Its text names the value, the limit and the next step."""

    #: The kind's number, the same in Rust, C and Python; 0 for what only Python knows.
    code: int = 0
    #: Seconds after which there may be room, of an OverloadedError.
    retry_after: float | None = None


class LibraryError(NvEmbedError, ImportError):
    """No usable ONNX Runtime library."""


class ProviderError(NvEmbedError, RuntimeError):
    """The execution provider is not in the library, could not be started, or cannot run this model."""


class ModelError(NvEmbedError, ValueError):
    """The model folder is missing, incomplete, damaged, or of another version."""


class InputError(NvEmbedError, ValueError):
    """A text cannot be embedded."""


class TooLongError(InputError):
    """A text is longer than the limit, and was not to be cut."""


class OptionError(NvEmbedError, ValueError):
    """An argument is out of range, unknown, or would be ignored."""


class InferenceError(NvEmbedError, RuntimeError):
    """ONNX Runtime failed during a run."""


class CancelledError(NvEmbedError):
    """The request was given up."""


class CacheError(NvEmbedError, OSError):
    """The cache folder cannot be written."""


class DeviceError(NvEmbedError, RuntimeError):
    """A GPU failed."""


class DeadlineExceededError(NvEmbedError, TimeoutError):
    """The timeout passed, or will pass before the texts can be embedded."""


class OverloadedError(NvEmbedError, RuntimeError):
    """The queue has no room; try again after `retry_after` seconds."""


class ClosedError(NvEmbedError, RuntimeError):
    """The queue was closed."""


class SystemRefusedError(NvEmbedError, OSError):
    """The system refused a thread, a file descriptor, or memory."""


class ForkedError(NvEmbedError, RuntimeError):
    """The model was opened in another process, whose threads were not forked."""


class CheckpointError(NvEmbedError, ValueError):
    """The checkpoint cannot be exported."""


_CLASSES: dict[str, type[NvEmbedError]] = {
    ("System" if cls is SystemRefusedError else cls.__name__.removesuffix("Error")): cls
    for cls in (*NvEmbedError.__subclasses__(), TooLongError)
}
for _kind, _code in CODES.items():
    _CLASSES[_kind].code = _code


def make(kind: str, message: str, retry_after: float | None) -> NvEmbedError:
    """The exception of a kind of error of the library."""
    error = _CLASSES.get(kind, NvEmbedError)(message)
    error.retry_after = retry_after
    return error


def forked(opened_in: int, here: int) -> ForkedError:
    """The exception of a model that is used in a child of the process that opened it."""
    return ForkedError(
        f"this model was opened in process {opened_in} and is used in {here}, which was forked from it: ONNX Runtime's "
        "threads do not survive a fork. Open it in the child, or start children with "
        "multiprocessing.get_context('spawn'), to which an Embedder can be sent"
    )
