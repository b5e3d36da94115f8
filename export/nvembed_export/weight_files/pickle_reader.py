"""Reads a pickle's structure without running any of its code.

A pickle is a program: its opcodes may call any function that can be imported. This machine knows the opcodes that
dictionaries of arrays are written with, and it never imports anything: a name in the file is looked up in a table of
our own functions, and a name that is not there is an error. The bytes of arrays are not read, only their places are
noted, so memory does not depend on their size.

Opcodes: https://github.com/python/cpython/blob/main/Lib/pickletools.py
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from nvembed_export.errors import CheckpointError

LONGEST_TEXT = 1 << 16  # of a string; names are short, and arrays are not strings
SHORT_BYTES = 64  # byte strings up to this length are kept, for what is not an array (dtypes, scalars)
MOST_OBJECTS = 1 << 18  # on the stack and in the memo together; a checkpoint of 300 tensors has a few thousand


@dataclass(frozen=True)
class Payload:
    """A byte string: where it is in the file. `content` is set for short ones only."""

    start: int
    length: int
    content: bytes | None = None


@dataclass(frozen=True)
class Global:
    """A name that the pickle refers to. It stands for our function, not for what Python would import."""

    name: str
    call: Callable[..., Any] | None = None


@dataclass
class Built:
    """An object that the pickle may give a state with BUILD."""

    state: Any = None
    kind: str = ""
    arguments: tuple = field(default_factory=tuple)


class _Mark:
    pass


_MARK = _Mark()


class PickleReader:
    """One pickle in a file, from the file's position on. `globals` maps "module.name" to a function of ours or None."""

    def __init__(
        self,
        stream: BinaryIO,
        size: int,
        what: str,
        globals: dict[str, Callable[..., Any] | None],
        persistent: Callable[[Any], Any] | None = None,
    ):
        self.stream, self.end, self.what = stream, stream.tell() + size, what
        self.globals, self.persistent = globals, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def read(self) -> Any:
        """The object that the pickle describes. Raises CheckpointError."""
        try:
            return self._run()
        except OSError as error:
            raise CheckpointError(f"{self.what}: cannot be read: {error.strerror}") from None
        except (IndexError, KeyError, TypeError, ValueError, AttributeError, struct.error, RecursionError) as error:
            raise CheckpointError(
                f"{self.what}: damaged pickle ({type(error).__name__} at byte {self._at()})"
            ) from None

    def _at(self) -> int:
        return self.stream.tell()

    def _run(self) -> Any:
        while True:
            code = self._take(1)[0]
            if code == 0x2E:  # STOP
                return self.stack.pop()
            step = _STEPS.get(code)
            if step is None:
                raise CheckpointError(
                    f"{self.what}: opcode {code:#04x} at byte {self._at() - 1} is not one that a checkpoint needs; "
                    "nothing was run"
                )
            step(self)
            if len(self.stack) + len(self.memo) > MOST_OBJECTS:
                raise CheckpointError(
                    f"{self.what}: more than {MOST_OBJECTS} objects, expected a dictionary of tensors"
                )

    def _take(self, count: int) -> bytes:
        if self._at() + count > self.end:
            raise CheckpointError(f"{self.what}: ends at byte {self.end} inside the pickle: truncated or damaged")
        data = self.stream.read(count)
        if len(data) != count:
            raise CheckpointError(f"{self.what}: ends inside the pickle: truncated or damaged")
        return data

    def _number(self, form: str) -> int:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _line(self) -> str:
        line = self.stream.readline(LONGEST_TEXT)
        if not line.endswith(b"\n") or self._at() > self.end:
            raise CheckpointError(f"{self.what}: ends inside the pickle: truncated or damaged")
        return line[:-1].decode("utf-8")

    def _text(self, length: int) -> None:
        if length > LONGEST_TEXT:
            raise CheckpointError(
                f"{self.what}: a string of {length} bytes at byte {self._at()}, the limit is {LONGEST_TEXT}; arrays "
                "that were saved as text (pickle protocol 2) are not read: save the file again with protocol 4"
            )
        self.stack.append(self._take(length).decode("utf-8", "surrogatepass"))

    def _bytes(self, length: int) -> None:
        start = self._at()
        if length <= SHORT_BYTES:
            self.stack.append(Payload(start, length, self._take(length)))
            return
        if length > self.end - start:
            raise CheckpointError(
                f"{self.what}: {length} bytes announced at byte {start}, but the file ends at byte {self.end}: "
                "truncated or damaged"
            )
        self.stream.seek(length, 1)
        self.stack.append(Payload(start, length))

    def _to_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise CheckpointError(f"{self.what}: damaged pickle (no mark before byte {self._at()})")

    def _global(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if full == "_codecs.encode":
            raise CheckpointError(
                f"{self.what}: arrays were saved as text (pickle protocol 2): save the file again with protocol 4"
            )
        if full not in self.globals:
            raise CheckpointError(
                f"{self.what}: the pickle names `{full}`, which a checkpoint does not need: it may run code when it is "
                "loaded; nothing was run"
            )
        self.stack.append(Global(full, self.globals[full]))

    def _reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or function.call is None or not isinstance(arguments, tuple):
            raise CheckpointError(f"{self.what}: damaged pickle (a call at byte {self._at()} of what cannot be called)")
        self.stack.append(function.call(*arguments))

    def _build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Built):
            target.state = state
        elif not isinstance(target, dict):  # PyTorch gives its dictionaries a `_metadata` that no tensor needs
            raise CheckpointError(f"{self.what}: damaged pickle (a state at byte {self._at()} for what has none)")

    def _set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise CheckpointError(f"{self.what}: damaged pickle (items at byte {self._at()} without a dictionary)")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int):
                raise CheckpointError(f"{self.what}: a key that is not a string, expected a dictionary of tensors")
            target[key] = value

    def _append(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise CheckpointError(f"{self.what}: damaged pickle (items at byte {self._at()} without a list)")
        self.stack[-1].extend(items)

    def _tuple(self, count: int) -> None:
        if len(self.stack) < count:
            raise CheckpointError(f"{self.what}: damaged pickle (too few objects at byte {self._at()})")
        items = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        self.stack.append(items)

    def _persistent(self) -> None:
        if self.persistent is None:
            raise CheckpointError(
                f"{self.what}: an object of another file at byte {self._at()}, expected arrays in this one"
            )
        self.stack.append(self.persistent(self.stack.pop()))

    def _stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise CheckpointError(f"{self.what}: damaged pickle (a name at byte {self._at()} that is not a string)")
        self._global(module, name)

    def _long(self, form: str) -> None:
        length = self._number(form)
        if not 0 <= length <= 16:
            raise CheckpointError(f"{self.what}: an integer of {length} bytes, the limit is 16")
        self.stack.append(int.from_bytes(self._take(length), "little", signed=True))


def _push(make: Callable[[PickleReader], Any]) -> Callable[[PickleReader], None]:
    return lambda reader: reader.stack.append(make(reader))


def _remember(number: Callable[[PickleReader], int]) -> Callable[[PickleReader], None]:
    def step(reader: PickleReader) -> None:
        reader.memo[number(reader)] = reader.stack[-1]

    return step


_STEPS: dict[int, Callable[[PickleReader], Any]] = {
    0x80: lambda r: r._take(1),  # PROTO
    0x95: lambda r: r._take(8),  # FRAME: a hint on buffering
    ord("("): _push(lambda r: _MARK),
    ord("0"): lambda r: r.stack.pop(),  # POP
    ord("N"): _push(lambda r: None),
    0x88: _push(lambda r: True),
    0x89: _push(lambda r: False),
    ord("J"): _push(lambda r: r._number("<i")),  # BININT
    ord("K"): _push(lambda r: r._number("<B")),  # BININT1
    ord("M"): _push(lambda r: r._number("<H")),  # BININT2
    ord("G"): _push(lambda r: r._number(">d")),  # BINFLOAT
    0x8A: lambda r: r._long("<B"),  # LONG1
    0x8B: lambda r: r._long("<i"),  # LONG4
    0x8C: lambda r: r._text(r._number("<B")),  # SHORT_BINUNICODE
    ord("X"): lambda r: r._text(r._number("<I")),  # BINUNICODE
    0x8D: lambda r: r._text(r._number("<Q")),  # BINUNICODE8
    ord("C"): lambda r: r._bytes(r._number("<B")),  # SHORT_BINBYTES
    ord("B"): lambda r: r._bytes(r._number("<I")),  # BINBYTES
    0x8E: lambda r: r._bytes(r._number("<Q")),  # BINBYTES8
    0x96: lambda r: r._bytes(r._number("<Q")),  # BYTEARRAY8
    ord("}"): _push(lambda r: {}),
    ord("]"): _push(lambda r: []),
    ord(")"): _push(lambda r: ()),
    ord("t"): _push(lambda r: tuple(r._to_mark())),
    0x85: lambda r: r._tuple(1),
    0x86: lambda r: r._tuple(2),
    0x87: lambda r: r._tuple(3),
    ord("s"): lambda r: r._set_items([*reversed((r.stack.pop(), r.stack.pop()))]),  # SETITEM
    ord("u"): lambda r: r._set_items(r._to_mark()),  # SETITEMS
    ord("a"): lambda r: r._append([r.stack.pop()]),
    ord("e"): lambda r: r._append(r._to_mark()),
    ord("q"): _remember(lambda r: r._number("<B")),  # BINPUT
    ord("r"): _remember(lambda r: r._number("<I")),  # LONG_BINPUT
    0x94: _remember(lambda r: len(r.memo)),  # MEMOIZE
    ord("h"): _push(lambda r: r.memo[r._number("<B")]),  # BINGET
    ord("j"): _push(lambda r: r.memo[r._number("<I")]),  # LONG_BINGET
    ord("c"): lambda r: r._global(r._line(), r._line()),  # GLOBAL
    0x93: lambda r: r._stack_global(),  # STACK_GLOBAL
    ord("R"): lambda r: r._reduce(),  # REDUCE
    ord("b"): lambda r: r._build(),  # BUILD
    ord("Q"): lambda r: r._persistent(),  # BINPERSID
}
