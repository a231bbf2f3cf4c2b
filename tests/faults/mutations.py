"""Seeded ways to spoil bytes, JSON values, protobuf messages and pickles."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from random import Random

from tests.converters.checkpoints import name, number, tensor_pickle, text

# What a value becomes: JSON text, some of it no JSON.
_LITERALS = (
    *("null", "true", "false", "0", "-1", "1", "2", "7", "1.5", "-0.0", "1e999"),
    *("-1e999", "NaN", "Infinity", str(1 << 31), str(1 << 63), str(1 << 64), "9" * 400),
    *('""', '"x"', '"-1"', '"\\ud800"', '"\\u0000"', '"../../x"', '"/etc/passwd"'),
    *("[]", "{}", "[0]", "[1,2,3]", '{"a":1}', '{"a":1,"a":2}', "[[[[]]]]", "]", "{"),
    *(
        "[" * 400 + "]" * 400,
        "[" * 980 + "]" * 980,
        '"' + "x" * 5_000 + '"',
        "9" * 5_000,
    ),
    *('"\x00"', "'x'", "0x10", "01", "+1", "1_000", "\ufeff1", "//", '"\u202e"', "1e5"),
)
_EDGES = (0, 1, 2, 3, 7, 8, 127, 128, 255, 1 << 15, 1 << 16, 1 << 31, 1 << 32, 1 << 40)
_MORE_EDGES = (1 << 47, 1 << 48, 1 << 62, 1 << 63, (1 << 64) - 1)


def mutate_bytes(random: Random, data: bytes) -> bytes:
    """Flip, overwrite, insert, cut out, repeat or cut off bytes, one to four times."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(changed) + 1)
        size = random.choice((1, 1, 1, 2, 4, 8, 30))
        match random.randrange(7):
            case 0 if at < len(changed):
                changed[at] ^= 1 << random.randrange(8)
            case 1:
                changed[at : at + size] = random.randbytes(size)
            case 2:
                changed[at:at] = random.randbytes(size)
            case 3:
                del changed[at : at + size]
            case 4:
                changed[at:at] = changed[at : at + size]
            case 5:
                layout = random.choice(("<H", "<I", "<Q", ">I"))
                width = struct.calcsize(layout)
                edge = random.choice(_EDGES + _MORE_EDGES) % (1 << 8 * width)
                changed[at : at + width] = struct.pack(layout, edge)
            case _:
                if random.random() < 0.1:
                    del changed[at:]
    return bytes(changed)


def mutate_json(random: Random, value: object) -> bytes:
    """Write a JSON value with one to three values, keys or bytes of it spoilt."""
    if random.random() < 0.2:
        return mutate_bytes(random, json.dumps(value).encode())
    total = _count(value)
    chosen = {random.randrange(total) for _ in range(random.randint(1, 3))}
    writer = _Writer(random, chosen)
    written = writer.write(value).encode("utf-8", "surrogatepass")
    return written if random.random() < 0.95 else mutate_bytes(random, written)


def _count(value: object) -> int:
    if isinstance(value, Mapping):
        return 1 + sum(map(_count, value.values()))
    if isinstance(value, list):
        return 1 + sum(map(_count, value))
    return 1


class _Writer:
    """Writes JSON and spoils the values whose numbers were chosen."""

    def __init__(self, random: Random, chosen: set[int]) -> None:
        self._random = random
        self._chosen = chosen
        self._number = -1

    def write(self, value: object) -> str:
        self._number += 1
        is_chosen = self._number in self._chosen
        if is_chosen and (
            not isinstance(value, Mapping | list) or self._random.random() < 0.2
        ):
            return self._spoil(value)
        if isinstance(value, Mapping):
            items = [f"{json.dumps(key)}:{self.write(v)}" for key, v in value.items()]
            return "{" + ",".join(self._disturb(items, is_chosen)) + "}"
        if isinstance(value, list):
            items = [self.write(item) for item in value]
            return "[" + ",".join(self._disturb(items, is_chosen)) + "]"
        return json.dumps(value)

    def _spoil(self, value: object) -> str:
        if type(value) is int and self._random.random() < 0.5:
            step = self._random.choice((-64, -2, -1, 1, 2, 64))
            return str(self._random.choice((value + step, value * 2, -value, value**9)))
        return self._random.choice(_LITERALS)

    def _disturb(self, items: list[str], is_chosen: bool) -> Sequence[str]:
        if not is_chosen or not items:
            return items
        at = self._random.randrange(len(items))
        match self._random.randrange(5):
            case 0:
                return items[:at] + items[at + 1 :]
            case 1:
                return [*items, items[at]]
            case 2:
                key = self._random.choice(_LITERALS[18:])
                return [*items, f"{key}:{self._random.choice(_LITERALS)}"]
            case 3:
                return [*items, '"a":' + self._random.choice(_LITERALS)]
            case _:
                self._random.shuffle(items)
                return items


def random_program(random: Random) -> bytes:
    """Write a pickle of opcodes drawn at random, most with sensible arguments."""
    length = random.randrange(1, 40)
    body = b"".join(_opcode(random) for _ in range(length))
    return b"\x80\x02" + body + random.choice((b".", b"s.", b"u.", b""))


def _opcode(random: Random) -> bytes:
    draw = random.random()
    if draw < 0.45:
        return random.choice(_OPCODES)
    if draw < 0.6:
        return text(random.choice(("a", "w", "storage", "0", "cpu", "os", "system")))
    if draw < 0.7:
        return number(random.choice((0, 1, 2, 4, 6, -1, 1 << 40, 1 << 70)))
    if draw < 0.8:
        return name(*random.choice(_NAMES))
    if draw < 0.9:
        sizes = random.choice(((2, 3), (6,), (), (1, 1, 6), (7,)))
        return tensor_pickle(random.choice("01"), "F16", sizes, length=6)
    return bytes([random.randrange(256)]) + random.randbytes(random.randrange(9))


_NAMES = (
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch", "HalfStorage"),
    ("torch", "LongStorage"),
    ("os", "system"),
    ("builtins", "exec"),
)
_SINGLE = b"(}]).tsuRbQ0122NnoceaiINT\x81\x85\x86\x87\x88\x89\x93\x94"
_OPCODES = (
    *(bytes([code]) for code in _SINGLE),
    *(b"q\x00", b"q\x01", b"h\x00", b"h\x01", b"(t", b")R", b"}b"),
)


def mutate_fields(random: Random, message: bytes) -> bytes:
    """Spoil a protobuf message by its top-level fields: drop, repeat, swap, bend."""
    fields = _fields(message)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(fields))
        match random.randrange(6):
            case 0:
                del fields[at]
            case 1:
                fields.insert(at, random.choice(fields))
            case 2:
                other = random.randrange(len(fields))
                fields[at], fields[other] = fields[other], fields[at]
            case 3:
                # The score of a piece stands in its last six bytes, before its kind.
                score = random.choice(("nan", "inf", "-inf", "1e38", "-0.0"))
                kind = random.choice((0, 1, 2, 3, 4, 5, 6, 7, 99))
                bent = fields[at][:-6] + struct.pack("<f", float(score))
                fields[at] = bent + bytes([24, kind])
            case 4:
                fields[at] = mutate_bytes(random, fields[at])
            case _:
                letters = random.choice((b"", b"\xff", b"\0", b"</s>", b"x" * 90))
                content = b"\x0a" + bytes([len(letters)]) + letters
                fields.insert(at, b"\x0a" + bytes([len(content)]) + content)
        if not fields:
            break
    return b"".join(fields)


def _fields(message: bytes) -> list[bytes]:
    """Cut a message of short length-delimited fields into these."""
    fields, at = [], 0
    while at < len(message):
        end = at + 2 + message[at + 1]
        fields.append(message[at:end])
        at = end
    return fields
