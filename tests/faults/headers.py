"""Safetensors files with headers that lie, built by script.

Source: https://huggingface.co/docs/safetensors/index, section Format.
"""

from __future__ import annotations

import json
import struct

from tests.converters.checkpoints import safetensors_bytes, stored_type
from tests.faults.small import small_weights

NORM = "model.norm.weight"
HEAD = "lm_head.weight"

Header = dict[str, dict[str, object]]


def good_header() -> tuple[Header, bytes]:
    """Return the header and the bytes of the small checkpoint's weights."""
    header: Header = {}
    end = 0
    weights = small_weights()
    for tensor, values in weights.items():
        header[tensor] = {
            "dtype": stored_type(values),
            "shape": list(values.shape),
            "data_offsets": [end, end + values.nbytes],
        }
        end += values.nbytes
    return header, b"".join(values.tobytes() for values in weights.values())


def hostile_safetensors() -> dict[str, bytes]:
    """Return weight files by what is wrong with them; 40 and more."""
    header, data = good_header()
    good = safetensors_bytes(header, data)
    first, last = _offsets(header, NORM)
    size = len(good)

    def changed(**values: object) -> bytes:
        spoilt = {name: dict(entry) for name, entry in header.items()}
        spoilt[NORM] |= values
        return safetensors_bytes(spoilt, data)

    def raw(text: str | bytes) -> bytes:
        encoded = text.encode() if isinstance(text, str) else text
        return struct.pack("<Q", len(encoded)) + encoded + data

    plain = json.dumps(header)
    entry = json.dumps(header[NORM])
    deep = "[" * 980 + "]" * 980
    return {
        "overlap by one element": changed(data_offsets=[first - 2, last - 2]),
        "the range of another": changed(data_offsets=_offsets(header, HEAD)),
        "a range of all": changed(data_offsets=[0, len(data)]),
        "out of the file": changed(data_offsets=[first + size, last + size]),
        "out of the file by 2^60": changed(data_offsets=[first, last + (1 << 60)]),
        "an end beyond 2^64": changed(data_offsets=[first, 1 << 70]),
        "an end before its start": changed(data_offsets=[last, first]),
        "a start below zero": changed(data_offsets=[-64, 0]),
        "offsets as text": changed(data_offsets=[str(first), str(last)]),
        "offsets as fractions": changed(data_offsets=[float(first), float(last)]),
        "offsets as truth values": changed(data_offsets=[False, True]),
        "one offset": changed(data_offsets=[first]),
        "three offsets": changed(data_offsets=[first, last, last]),
        "no offsets": changed(data_offsets=None),
        "offsets as an object": changed(data_offsets={"0": first, "1": last}),
        "offsets 980 lists deep": raw(
            plain.replace(entry, f'{{"data_offsets":{deep}}}')
        ),
        "a shape larger than its range": changed(shape=[33]),
        "a shape smaller than its range": changed(shape=[31]),
        "a shape below zero": changed(shape=[-32]),
        "a shape whose product wraps": changed(shape=[1 << 33, 1 << 31]),
        "a shape of 2^60": changed(shape=[1 << 60]),
        "a shape of 4000 digits": changed(shape=[10**4_000]),
        "a shape of 100 dimensions": changed(shape=[1] * 99 + [32]),
        "a shape of a million dimensions": changed(shape=[1] * 1_000_000),
        "a shape of text": changed(shape=["32"]),
        "a shape of fractions": changed(shape=[32.0]),
        "a shape of truth values": changed(shape=[True]),
        "a shape that is a number": changed(shape=32),
        "a shape 980 lists deep": raw(
            plain.replace(entry, entry.replace("[32]", deep))
        ),
        "no shape": changed(shape=None),
        "an unknown type": changed(dtype="F17"),
        "a type of eight bits": changed(dtype="F8_E4M3"),
        "whole numbers": changed(dtype="I16"),
        "a type that is a number": changed(dtype=1),
        "a type 980 lists deep": raw(
            plain.replace(entry, entry.replace('"F16"', deep))
        ),
        "an entry that is a list": raw(plain.replace(entry, "[]")),
        "an entry that is null": raw(plain.replace(entry, "null")),
        "a tensor twice": raw(plain[:-1] + f',"{NORM}":{entry}}}'),
        "a key of an entry twice": raw(
            plain.replace(entry, entry[:-1] + ',"dtype":"F16"}')
        ),
        "the metadata twice": raw('{"__metadata__":{},"__metadata__":{},' + plain[1:]),
        "a name that is a path": safetensors_bytes(
            {"../../x" if n == NORM else n: e for n, e in header.items()}, data
        ),
        "a name with escapes": safetensors_bytes(
            {"\x1b[2J" if n == NORM else n: e for n, e in header.items()}, data
        ),
        "a name of half a letter": raw(plain.replace(NORM, "\\ud800")),
        "a name of a million letters": raw(plain.replace(NORM, "n" * 1_000_000)),
        "a name of nothing": raw(plain.replace(NORM, "")),
        "NaN": raw(plain.replace("[32]", "NaN", 1)),
        "minus infinity": raw(plain.replace("[32]", "-Infinity", 1)),
        "no JSON": raw("x" * 100),
        "JSON that ends too early": raw(plain[:-1]),
        "JSON with bytes behind it": raw(plain + "}"),
        "a list": raw("[" + plain + "]"),
        "a number of 100000 digits": raw('{"a":' + "9" * 100_000 + "}"),
        "a list 100000 deep": raw("[" * 100_000),
        "a million empty lists": raw('{"a":[' + "[]," * 2_000_000 + "0]}"),
        "a million empty objects": raw('{"a":[' + "{}," * 2_000_000 + "0]}"),
        "a million keys": raw('{"a":0' + ',"b":0' * 1_000_000 + "}"),
        "100000 tensors": raw(
            "{"
            + ",".join(
                f'"{n:x}":{{"dtype":"F16","shape":[0],"data_offsets":[0,0]}}'
                for n in range(100_000)
            )
            + "}"
        ),
        "a byte order mark": raw(b"\xef\xbb\xbf" + plain.encode()),
        "invalid UTF-8": raw(plain.encode().replace(b"model.norm", b"model.n\xffrm")),
        "UTF-16": raw(plain.encode("utf-16")),
        "no header": struct.pack("<Q", 0) + data,
        "a header of blanks": raw(" " * 1_000),
        "a header longer than the file": struct.pack("<Q", size) + good[8:],
        "a header of 8 MiB that is not there": struct.pack("<Q", 8 << 20) + good[8:],
        "a header of 100 MB": struct.pack("<Q", 100_000_000) + good[8:],
        "a header of 2^63": struct.pack("<Q", 1 << 63) + good[8:],
        "a header of 2^64 - 1": b"\xff" * 8 + good[8:],
        "cut inside the header": good[:40],
        "cut inside a tensor": good[:-1],
        "a byte too many": good + b"\0",
        "seven bytes": good[:7],
        "an empty file": b"",
        "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid x\n",
        "a zip": b"PK\x03\x04" + bytes(60),
        "a pickle": b"\x80\x02cos\nsystem\n(X\x04\x00\x00\x00truetR.",
    }


def _offsets(header: Header, tensor: str) -> list[int]:
    offsets = header[tensor]["data_offsets"]
    assert isinstance(offsets, list)
    return list(offsets)
