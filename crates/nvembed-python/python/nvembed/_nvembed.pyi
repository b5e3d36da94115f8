from collections.abc import Callable
from os import PathLike
from typing import Any, final

VERSION: str
DEFAULT_TASK: str
__all__ = ["CODES", "DEFAULT_TASK", "VERSION", "DeviceRows", "Model", "Pending"]
CODES: dict[str, int]

@final
class DeviceRows:
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def device_id(self) -> int: ...
    @property
    def tokens(self) -> list[int]: ...
    @property
    def truncated(self) -> list[bool]: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...

@final
class Model:
    @staticmethod
    def open(folder: str | PathLike[str], options: dict[str, Any]) -> Model: ...
    @property
    def facts(self) -> dict[str, Any]: ...
    def embed(self, texts: list[str], instructions: list[str], options: dict[str, Any]) -> dict[str, Any]: ...
    def embed_on_device(self, texts: list[str], instructions: list[str], options: dict[str, Any]) -> DeviceRows: ...
    def submit(
        self,
        texts: list[str],
        instructions: list[str],
        options: dict[str, Any],
        on_done: Callable[[dict[str, Any] | None, BaseException | None], object],
    ) -> Pending: ...
    def tokenize(
        self, texts: list[str], instructions: list[str], options: dict[str, Any]
    ) -> list[tuple[list[int], int, bool]]: ...
    def warm_up(self, options: dict[str, Any]) -> int: ...

@final
class Pending:
    def cancel(self) -> None: ...
