from collections.abc import Callable
from os import PathLike
from typing import Any, final

VERSION: str
DEFAULT_TASK: str
__all__ = ["CODES", "DEFAULT_TASK", "VERSION", "Model", "Pending"]
CODES: dict[str, int]

@final
class Model:
    @staticmethod
    def open(folder: str | PathLike[str], options: dict[str, Any]) -> Model: ...
    @property
    def facts(self) -> dict[str, Any]: ...
    def embed(self, texts: list[str], instructions: list[str], options: dict[str, Any]) -> dict[str, Any]: ...
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
