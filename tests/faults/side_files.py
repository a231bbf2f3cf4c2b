"""Config, index and tokenizer files as somebody hostile writes them, by script.

Source: sentencepiece src/sentencepiece_model.proto, ModelProto (field numbers).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from tests.converters.checkpoints import sentencepiece_model
from tests.faults.small import SMALL

DEEP = "[" * 980 + "]" * 980
CONFIG = "config.json"
SETTINGS = "tokenizer_config.json"
ADDED = "added_tokens.json"
PIECES = "tokenizer.model"


@dataclass(frozen=True, slots=True)
class Spoilt:
    """A side file's bytes, and what a message has to name; "" is the file.

    `is_harmless` where nothing forbids it, as long as it costs no more than others.
    """

    file: str
    data: bytes
    said: str = ""
    is_harmless: bool = False


def broken_json(file: str, good: Mapping[str, object]) -> dict[str, Spoilt]:
    """Return spoilings that no JSON file survives, whatever is in it."""
    text = json.dumps(good)
    bodies: dict[str, bytes] = {
        "100000 lists deep": b"[" * 100_000,
        "980 lists deep": f'{{"x":{DEEP},{text[1:]}'.encode(),
        "100000 objects deep": b'{"a":' * 100_000,
        "a number of 10^7 digits": b'{"a":' + b"9" * 10_000_000 + b"}",
        "a number of 5000 digits": b'{"a":' + b"9" * 5_000 + b"}",
        "NaN": (text[:-1] + ',"a":NaN}').encode(),
        "Infinity": (text[:-1] + ',"a":[-Infinity]}').encode(),
        "a key twice": (text[:-1] + f",{text[1:]}").encode(),
        "an inner key twice": (text[:-1] + ',"a":{"b":1,"b":2}}').encode(),
        "a byte order mark": b"\xef\xbb\xbf" + text.encode(),
        "invalid UTF-8": text.encode()[:-1] + b',"\xff":1}',
        "UTF-16": text.encode("utf-16"),
        "a NUL": text.encode() + b"\0",
        "cut": text.encode()[:-1],
        "two values": (text + text).encode(),
        "a list": f"[{text}]".encode(),
        "a text": b'"x"',
        "null": b"null",
        "a comment": b"// x\n" + text.encode(),
        "four million lists": b'{"a":[' + b"[]," * 4_000_000 + b"0]}",
        "a million keys": b'{"a":0' + b',"b":0' * 1_000_000 + b"}",
        "17 MB of blanks": text.encode() + b" " * (17 << 20),
        "nothing": b"",
    }
    return {
        f"{file}: {title}": Spoilt(file, data, file) for title, data in bodies.items()
    }


def hostile_configs(good: Mapping[str, object]) -> dict[str, Spoilt]:
    """Return config.json with values below zero, huge, and of the wrong type."""
    found = broken_json(CONFIG, good)
    counts = (
        *("hidden_size", "intermediate_size", "num_attention_heads"),
        *("num_hidden_layers", "num_key_value_heads", "vocab_size"),
        "max_position_embeddings",
    )
    wrong: list[tuple[str, str]] = [
        ("below zero", "-1"),
        ("zero", "0"),
        ("2^31", str(1 << 31)),
        ("2^64", str(1 << 64)),
        ("4000 digits", "9" * 4_000),
        ("a fraction", "32.5"),
        ("1e999", "1e999"),
        ("a text", '"32"'),
        ("a truth value", "true"),
        ("a list", "[32]"),
        ("980 lists", DEEP),
        ("an object", "{}"),
    ]
    for key in counts:
        for title, text in wrong:
            found[f"{CONFIG}: {key} is {title}"] = _config(good, {key: text}, key)
    for key in ("rms_norm_eps", "rope_theta"):
        for title, text in (
            *wrong[:2],
            ("1e999", "1e999"),
            ("-1e999", "-1e999"),
            ("4000 digits", "9" * 4_000),
            *wrong[7:],
        ):
            found[f"{CONFIG}: {key} is {title}"] = _config(good, {key: text}, key)
    for key, text in (
        ("architectures", '["EvilForCausalLM"]'),
        ("architectures", '["LlamaForCausalLM","LlamaForCausalLM"]'),
        ("architectures", "[1]"),
        ("architectures", '"LlamaForCausalLM"'),
        ("architectures", f"[{DEEP}]"),
        ("hidden_act", '"evil"'),
        ("hidden_act", DEEP),
        ("tie_word_embeddings", "1"),
        ("rope_scaling", '{"type":"linear","factor":-4.0}'),
        ("rope_scaling", '{"type":"linear","factor":1e999}'),
        ("rope_scaling", '{"type":"linear"}'),
        ("rope_scaling", '{"type":"evil","factor":4.0}'),
        ("rope_scaling", f'{{"type":{DEEP}}}'),
        ("rope_scaling", "4"),
        ("rope_scaling", f'"{"x" * 100_000}"'),
        ("quantization_config", '{"bits":4}'),
        ("num_attention_heads", "3"),
        ("num_key_value_heads", "3"),
        ("head_dim", "7"),
        ("num_hidden_layers", "512"),
        ("vocab_size", str(1 << 20)),
        ("hidden_size", str(1 << 20)),
    ):
        title = f"{CONFIG}: {key} = {text[:40]}"
        # What only other files contradict is named by the tensor that shows it.
        contradicted = key in ("vocab_size", "hidden_size", "num_hidden_layers")
        said = "tensor" if contradicted else CONFIG
        found[title] = _config(good, {key: text}, said)
    return found


def _config(
    good: Mapping[str, object], changes: Mapping[str, str], said: str
) -> Spoilt:
    values = {key: json.dumps(value) for key, value in good.items()}
    values |= changes
    body = ",".join(f'"{key}":{text}' for key, text in values.items())
    if DEEP in body:
        said = CONFIG
    return Spoilt(CONFIG, f"{{{body}}}".encode(), said)


def hostile_settings() -> dict[str, Spoilt]:
    """Return tokenizer_config.json and added_tokens.json that make no sense."""
    found = broken_json(SETTINGS, {"add_bos_token": True})
    found |= broken_json(ADDED, {"[PAD]": SMALL.pieces})
    for title, text in {
        "bos as a number": '{"add_bos_token":1}',
        "bos 980 lists deep": f'{{"add_bos_token":{DEEP}}}',
        "a decoder that is a list": '{"added_tokens_decoder":[]}',
        "a decoder that is a text": '{"added_tokens_decoder":"x"}',
        "an id below zero": '{"added_tokens_decoder":{"-1":{"content":"x"}}}',
        "an id of 1000 digits": '{"added_tokens_decoder":{"%s":{"content":"x"}}}'
        % ("9" * 1_000),
        "an id in other digits": '{"added_tokens_decoder":{"\\u00b2":{"content":"x"}}}',
        "an id that is a word": '{"added_tokens_decoder":{"x":{"content":"x"}}}',
        "no content": '{"added_tokens_decoder":{"5":{}}}',
        "content as a number": _decoder("5"),
        "content 980 lists deep": _decoder(DEEP),
        "an empty token": _decoder('""'),
        "a token of a million letters": _decoder(f'"{"x" * 1_000_000}"'),
        "half a letter": '{"added_tokens_decoder":{"5":{"content":"\\ud800"}}}',
        "a token that is there already": (
            '{"added_tokens_decoder":{"5":{"content":"</s>"}}}'
        ),
        "two tokens alike": (
            '{"added_tokens_decoder":{"5":{"content":"x"},"6":{"content":"x"}}}'
        ),
        "a template of 2 MB": '{"chat_template":"%s"}' % ("x" * 2_000_000),
    }.items():
        # Of two tokens alike the message has the token and both ids.
        said = "has the ids" if "alike" in title or "already" in title else ""
        found[f"{SETTINGS}: {title}"] = Spoilt(SETTINGS, text.encode(), said)
    for title, text in {
        "an id below zero": '{"[PAD]":-1}',
        "an id as a text": '{"[PAD]":"322"}',
        "an id as a fraction": '{"[PAD]":322.0}',
        "an id as a truth value": '{"[PAD]":true}',
        "an id 980 lists deep": f'{{"[PAD]":{DEEP}}}',
        "an empty token": '{"":322}',
        "a token of a million letters": '{"%s":322}' % ("x" * 1_000_000),
        "half a letter": '{"\\udfff":322}',
        "a token that is there already": '{"</s>":322}',
    }.items():
        said = "has the ids" if "already" in title else ""
        found[f"{ADDED}: {title}"] = Spoilt(ADDED, text.encode(), said)
    return found


def _decoder(content: str) -> str:
    return f'{{"added_tokens_decoder":{{"5":{{"content":{content}}}}}}}'


def hostile_indexes(weight_map: Mapping[str, str]) -> dict[str, Spoilt]:
    """Return index files that name what is absent or outside, or name nothing."""
    file = "pytorch_model.bin.index.json"
    found = broken_json(file, {"weight_map": dict(weight_map)})
    tensor = "model.norm.weight"
    values: tuple[object, ...] = (
        *("../model.bin", "../../../../etc/passwd", "/etc/passwd", "a/../../b"),
        *("C:\\model.bin", "\\\\host\\share\\x", "..\\x", "", ".", "..", "~root\\x"),
        *("x\0.bin", "x\n.bin", "\x1b[2J.bin", "x" * 300, "-rf", "con", "a//b"),
        *("file:///etc/passwd", "http://127.0.0.1/x.bin", "\u202ex.bin", "\ud800"),
        *(" x.bin", "x.bin ", "x.bin.", ".hidden.bin", "|touch x", "*.bin"),
        *(1, None, True, 1.5, [], {}, ["x.bin"]),
    )
    for value in values:
        spoilt = dict[str, object](weight_map) | {tensor: value}
        data = json.dumps({"weight_map": spoilt}).encode()
        found[f"{file}: {value!r:.40}"] = Spoilt(file, data, file)
    for title, text in {
        "no weight_map": "{}",
        "an empty weight_map": '{"weight_map":{}}',
        "a weight_map that is a list": '{"weight_map":["x.bin"]}',
        "a weight_map that is null": '{"weight_map":null}',
        "a shard 980 lists deep": f'{{"weight_map":{{"a":{DEEP}}}}}',
    }.items():
        found[f"{file}: {title}"] = Spoilt(file, text.encode(), file)
    absent = {name: f"absent-{n}.bin" for n, name in enumerate(weight_map)}
    many = {f"t{n}": f"s{n}.bin" for n in range(100_000)}
    extra = dict(weight_map) | {"extra.weight": next(iter(weight_map.values()))}
    fewer = {name: shard for name, shard in weight_map.items() if name != tensor}
    swapped = dict(weight_map) | {tensor: min(weight_map.values())}
    for title, entries, said in (
        ("only absent shards", absent, "absent-"),
        ("100000 shards", many, file),
        ("a tensor that is nowhere", extra, "extra.weight"),
        ("a tensor less", fewer, tensor),
        ("a tensor in another shard", swapped, tensor),
    ):
        data = json.dumps({"weight_map": entries}).encode()
        found[f"{file}: {title}"] = Spoilt(file, data, said)
    return found


# A piece whose token has six digits, score 0.
_PIECE = b"\x0a\x0d\x0a\x06%06d\x15\0\0\0\0"


def varint(value: int) -> bytes:
    encoded = b""
    while value >= 128:
        encoded += bytes([value & 127 | 128])
        value >>= 7
    return encoded + bytes([value])


def proto_field(index: int, data: bytes) -> bytes:
    """Encode a field of length-delimited bytes."""
    return varint(index << 3 | 2) + varint(len(data)) + data


def piece(token: bytes, score: float = 0.0, kind: int = 1) -> bytes:
    """Encode one piece of a vocabulary."""
    content = proto_field(1, token) + b"\x15" + struct.pack("<f", score)
    return proto_field(1, content + b"\x18" + varint(kind))


def hostile_vocabularies() -> dict[str, Spoilt]:
    """Return tokenizer.model files that no training made."""
    good = sentencepiece_model(SMALL.pieces)
    huge = proto_field(1, b"\x0a" + varint(1 << 40) + b"x")
    bodies: dict[str, bytes] = {
        "nothing": b"",
        "zeros": bytes(10_000),
        "text": b"not a model",
        "a pickle": b"\x80\x02cos\nsystem\n(X\x04\x00\x00\x00truetR.",
        "cut": good[: len(good) // 2 + 1],
        "a field of 2^40 bytes": good + huge,
        "a length of 2^63": good + b"\x0a" + varint((1 << 63) + 5),
        "a length below zero": good + b"\x0a" + varint((1 << 64) - 1),
        "an endless number": good + b"\x08" + b"\xff" * 20,
        "a group without end": good + b"\x0b" * 100_000,
        "groups in groups": b"\x0b" * 50_000 + b"\x0c" * 50_000,
        "a wire type that is none": good + b"\x0f\x01",
        "a piece twice": good + piece(b"</s>"),
        "a score that is NaN": good + piece(b"new", float("nan")),
        "a score that is infinite": good + piece(b"new", float("inf")),
        "a second unknown": good + piece(b"<unk2>", 0.0, 2),
        "an unknown kind": good + piece(b"new", 0.0, 77),
        "an empty piece": good + piece(b""),
        "a piece that is not UTF-8": good + piece(b"\xff\xfe"),
        "a piece with a NUL": good + piece(b"a\0b"),
        "a piece of a megabyte": good + piece(b"x" * (1 << 20)),
        "only unknown": piece(b"<unk>", 0.0, 2),
        "no unknown": piece(b"a") + piece(b"b"),
        "900000 pieces": good + b"".join(_PIECE % n for n in range(900_000)),
        "a million pieces alike": good + piece(b"p") * 800_000,
        "17 MB": good + proto_field(1, b"x" * (17 << 20)),
        "a broken normalizer": good + proto_field(3, proto_field(2, b"\xff" * 2_000)),
        "a normalizer that points outside": good
        + proto_field(
            3, proto_field(2, struct.pack("<I", 1024) + b"\xff\xff\xff\x7f" * 256)
        )
        + proto_field(4, proto_field(1, proto_field(1, "wörld".encode()))),
        "a self-test that fails": good
        + proto_field(4, proto_field(1, proto_field(1, b"ab") + proto_field(2, b"x"))),
        "a trainer of 2^31 pieces": good + proto_field(2, b"\x20" + varint(1 << 31)),
        "another unknown id": good + proto_field(2, b"\xc0\x02" + varint(99)),
        "a unigram model of letters": good + proto_field(2, b"\x18\x01"),
        "a model type of 99": good + proto_field(2, b"\x18\x63"),
    }
    # What contradicts nothing that the converter reads.
    harmless = {
        *("an unknown kind", "900000 pieces", "a self-test that fails"),
        *("a trainer of 2^31 pieces", "another unknown id", "a model type of 99"),
        "a unigram model of letters",
    }
    return {
        f"{PIECES}: {title}": Spoilt(
            PIECES,
            data,
            PIECES,
            is_harmless=title in harmless,
        )
        for title, data in bodies.items()
    }
