"""Reads the pickle inside a torch checkpoint as plain values. Runs nothing.

A pickle is a program for a small stack machine. This is that machine with only the
opcodes that a state dict needs, and instead of importing what a pickle names it
compares the name with a short list. What comes out are dicts, tuples, numbers,
text and `TensorRef`; a pickle that wants more is refused.

Memory is bounded by the input: no opcode allocates more than the bytes it brings,
and the memo is a dict, so a high index costs nothing.

Source: CPython Lib/pickletools.py (opcodes); PyTorch torch/_utils.py
(`_rebuild_tensor_v2`, `_rebuild_parameter`), torch/serialization.py (persistent ids).
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from wizard_edge.gguf_types import GgmlType

# Our own bounds: torch writes about 40 opcodes and 250 bytes for each tensor, and no
# file of the family has more than 1,000. An opcode costs up to 150 bytes of memory.
MAX_SIZE = 4 << 20
MAX_OPCODES = 1 << 18
MAX_TEXT = 1 << 12
_MAX_COUNT = 1 << 48

STORAGE_TYPES: Mapping[tuple[str, str], GgmlType] = {
    ("torch", "FloatStorage"): GgmlType.F32,
    ("torch", "HalfStorage"): GgmlType.F16,
    ("torch", "BFloat16Storage"): GgmlType.BF16,
}


@dataclass(frozen=True, slots=True)
class StorageRef:
    """A storage of `length` elements, stored under `key`."""

    type: GgmlType
    key: str
    length: int


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A view into a storage; offset and strides count elements."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class PickleRefused(ValueError):
    """The pickle is malformed or asks for something that no checkpoint needs."""


@dataclass(frozen=True, slots=True)
class _Name:
    module: str
    name: str


class _Mark:
    """Where a group of values on the stack begins."""


_MARK = _Mark()


def read_state_dict(data: bytes) -> dict[str, TensorRef]:
    """Read the pickle of a state dict.

    Raises: PickleRefused, saying at which byte.
    """
    if len(data) > MAX_SIZE:
        raise PickleRefused(f"{len(data)} bytes, at most {MAX_SIZE} are expected")
    value = _Machine(data).run()
    if not isinstance(value, dict):
        raise PickleRefused("it holds no dict of tensors")
    for name, tensor in value.items():
        if not isinstance(tensor, TensorRef):
            raise PickleRefused(f"{name[:80]!r} is no tensor")
    return value


class _Machine:
    """The stack, the memo and the position in the program."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0
        self._stack: list[object] = []
        self._memo: dict[int, object] = {}

    def run(self) -> object:
        for _ in range(MAX_OPCODES):
            at = self._position
            code = self._take(1)
            if code == b".":
                return self._end()
            step = _STEPS.get(code)
            try:
                if step is None:
                    raise PickleRefused(f"opcode {_opcode_name(code)} is not allowed")
                step(self)
            except PickleRefused as err:
                raise PickleRefused(f"{err} (byte {at})") from None
        raise PickleRefused(f"more than {MAX_OPCODES} opcodes")

    def _end(self) -> object:
        if self._position != len(self._data):
            raise PickleRefused(f"bytes follow its end (byte {self._position})")
        value = self._pop()
        if self._stack:
            raise PickleRefused("values are left on its stack")
        return value

    def _take(self, size: int) -> bytes:
        end = self._position + size
        if end > len(self._data):
            raise PickleRefused(f"it ends too early (byte {len(self._data)})")
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def _number(self, layout: struct.Struct) -> int:
        value: int = layout.unpack(self._take(layout.size))[0]
        return value

    def _text(self, size: int) -> str:
        if size > MAX_TEXT:
            raise PickleRefused(f"a text of {size} bytes, at most {MAX_TEXT} expected")
        try:
            return self._take(size).decode("utf-8")
        except UnicodeDecodeError:
            raise PickleRefused("a text that is not UTF-8") from None

    def _line(self) -> str:
        end = self._data.find(b"\n", self._position, self._position + MAX_TEXT)
        if end < 0:
            raise PickleRefused("a name without an end")
        text = self._text(end - self._position)
        self._position += 1
        return text

    def push(self, value: object) -> None:
        self._stack.append(value)

    def _pop(self) -> object:
        if not self._stack or self._stack[-1] is _MARK:
            raise PickleRefused("its stack is empty")
        return self._stack.pop()

    def _top(self) -> object:
        if not self._stack or self._stack[-1] is _MARK:
            raise PickleRefused("its stack is empty")
        return self._stack[-1]

    def _pop_to_mark(self) -> list[object]:
        values: list[object] = []
        while self._stack:
            value = self._stack.pop()
            if value is _MARK:
                values.reverse()
                return values
            values.append(value)
        raise PickleRefused("a mark is missing on its stack")

    def _pop_many(self, count: int) -> list[object]:
        values = [self._pop() for _ in range(count)]
        values.reverse()
        return values

    def protocol(self) -> None:
        version = self._take(1)[0]
        if version > 5:
            raise PickleRefused(f"pickle protocol {version} is unknown")

    def frame(self) -> None:
        self._take(8)

    def mark(self) -> None:
        self.push(_MARK)

    def tuple_to_mark(self) -> None:
        self.push(tuple(self._pop_to_mark()))

    def long(self) -> None:
        self.push(int.from_bytes(self._take(self._take(1)[0]), "little", signed=True))

    def double(self) -> None:
        self.push(_DOUBLE.unpack(self._take(8))[0])

    def text(self) -> None:
        self.push(self._text(self._number(_U32)))

    def short_text(self) -> None:
        self.push(self._text(self._take(1)[0]))

    def name(self) -> None:
        self.push(_Name(self._line(), self._line()))

    def name_from_stack(self) -> None:
        module, name = self._pop_many(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleRefused("a name that is no text")
        self.push(_Name(module, name))

    def remember(self, layout: struct.Struct) -> None:
        self._memo[self._number(layout)] = self._top()

    def remember_next(self) -> None:
        self._memo[len(self._memo)] = self._top()

    def recall(self, layout: struct.Struct) -> None:
        index = self._number(layout)
        if index not in self._memo:
            raise PickleRefused(f"memo {index} was never filled")
        self.push(self._memo[index])

    def storage(self) -> None:
        self.push(_storage(self._pop()))

    def call(self) -> None:
        target, arguments = self._pop_many(2)
        if not isinstance(target, _Name) or not isinstance(arguments, tuple):
            raise PickleRefused("a call of something that is no name")
        build = _CALLS.get((target.module, target.name))
        if build is None:
            name = f"{target.module}.{target.name}"
            raise PickleRefused(f"it wants to call {name[:80]!r}: nothing was run")
        self.push(build(arguments))

    def set_state(self) -> None:
        # A state dict carries `_metadata` this way; nothing in it is needed.
        self._pop()
        if not isinstance(self._top(), dict):
            raise PickleRefused("it sets the state of something that is no dict")

    def set_item(self) -> None:
        self._fill(self._pop_many(2))

    def set_items(self) -> None:
        self._fill(self._pop_to_mark())

    def _fill(self, items: list[object]) -> None:
        target = self._top()
        if not isinstance(target, dict) or len(items) % 2:
            raise PickleRefused("it fills something that is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):
                raise PickleRefused("a key that is no text")
            if key in target:
                raise PickleRefused(f"key {key[:80]!r} is there twice")
            target[key] = value


def _storage(value: object) -> StorageRef:
    match value:
        case ("storage", _Name() as kind, str() as key, str(), int() as length):
            pass
        case _:
            raise PickleRefused("a persistent id that is no storage")
    storage_type = STORAGE_TYPES.get((kind.module, kind.name))
    if storage_type is None:
        raise PickleRefused(f"storages of {kind.module}.{kind.name} cannot be read")
    if type(length) is not int or not 0 <= length < _MAX_COUNT:
        raise PickleRefused("a storage whose length makes no sense")
    return StorageRef(storage_type, key, length)


def _tensor(arguments: tuple[object, ...]) -> TensorRef:
    # storage, offset, shape, strides, requires_grad, hooks[, metadata]
    match arguments[:4]:
        case (StorageRef() as storage, int() as offset, tuple() as shape, tuple() as s):
            if len(arguments) in (6, 7):
                sizes, strides = _sizes(shape), _sizes(s)
                is_place = type(offset) is int and 0 <= offset < _MAX_COUNT
                if is_place and len(sizes) == len(strides):
                    return TensorRef(storage, offset, sizes, strides)
    raise PickleRefused("a tensor that makes no sense")


def _sizes(values: tuple[object, ...]) -> tuple[int, ...]:
    sizes = tuple(
        value for value in values if type(value) is int and 0 <= value < _MAX_COUNT
    )
    if len(sizes) != len(values) or len(sizes) > 8:
        raise PickleRefused("a shape or stride that makes no sense")
    return sizes


def _parameter(arguments: tuple[object, ...]) -> TensorRef:
    # data, requires_grad, hooks
    if len(arguments) == 3 and isinstance(arguments[0], TensorRef):
        return arguments[0]
    raise PickleRefused("a parameter that holds no tensor")


def _ordered_dict(arguments: tuple[object, ...]) -> dict[str, object]:
    if arguments:
        raise PickleRefused("an OrderedDict made from arguments")
    return {}


def _opcode_name(code: bytes) -> str:
    letter = code.decode("latin-1")
    names = (op.name for op in pickletools.opcodes if op.code == letter)
    return next(names, repr(code))


_U8 = struct.Struct("<B")
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_I32 = struct.Struct("<i")
_DOUBLE = struct.Struct(">d")

_CALLS: Mapping[tuple[str, str], Callable[[tuple[object, ...]], object]] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}

_STEPS: Mapping[bytes, Callable[[_Machine], None]] = {
    b"\x80": _Machine.protocol,
    b"\x95": _Machine.frame,
    b"(": _Machine.mark,
    b"}": lambda machine: machine.push({}),
    b")": lambda machine: machine.push(()),
    b"t": _Machine.tuple_to_mark,
    b"\x85": lambda machine: machine.push(tuple(machine._pop_many(1))),
    b"\x86": lambda machine: machine.push(tuple(machine._pop_many(2))),
    b"\x87": lambda machine: machine.push(tuple(machine._pop_many(3))),
    b"N": lambda machine: machine.push(None),
    b"\x88": lambda machine: machine.push(True),
    b"\x89": lambda machine: machine.push(False),
    b"J": lambda machine: machine.push(machine._number(_I32)),
    b"K": lambda machine: machine.push(machine._number(_U8)),
    b"M": lambda machine: machine.push(machine._number(_U16)),
    b"\x8a": _Machine.long,
    b"G": _Machine.double,
    b"X": _Machine.text,
    b"\x8c": _Machine.short_text,
    b"c": _Machine.name,
    b"\x93": _Machine.name_from_stack,
    b"q": lambda machine: machine.remember(_U8),
    b"r": lambda machine: machine.remember(_U32),
    b"\x94": _Machine.remember_next,
    b"h": lambda machine: machine.recall(_U8),
    b"j": lambda machine: machine.recall(_U32),
    b"Q": _Machine.storage,
    b"R": _Machine.call,
    b"b": _Machine.set_state,
    b"s": _Machine.set_item,
    b"u": _Machine.set_items,
}
