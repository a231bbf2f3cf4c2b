"""Builds small GGUF files, good and bad, with nothing but `struct`.

`small_llama()` and `small_starcoder()` give complete models that llama.cpp loads
and runs. Change their entries and tensors, then `build()` or `write(path)`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import prod
from pathlib import Path
from typing import NamedTuple

from wizard_edge.gguf import DEFAULT_ALIGNMENT, GGML_TYPES, ValueType, align, row_size

_MOST_DATA = 16 << 20


class Entry(NamedTuple):
    """A metadata value as bytes, with the type that stands before it."""

    type: int
    data: bytes


@dataclass
class Tensor:
    """A tensor to write; without `offset` it follows the one before it."""

    name: str | bytes
    shape: tuple[int, ...]
    type: int = 0
    offset: int | None = None

    @property
    def size(self) -> int:
        """Bytes of data; 0 where type and shape make no sense or too much of it."""
        known = GGML_TYPES.get(self.type)
        if known is None or not self.shape or self.shape[0] % known.block_size:
            return 0
        size = row_size(known, self.shape[0]) * prod(self.shape[1:])
        return size if size <= _MOST_DATA else 0


@dataclass
class GgufFile:
    """A file to build. Counts that are not set are those of the lists."""

    entries: list[tuple[str | bytes, Entry]]
    tensors: list[Tensor] = field(default_factory=list)
    magic: bytes = b"GGUF"
    version: int = 3
    alignment: int = DEFAULT_ALIGNMENT
    tensor_count: int | None = None
    entry_count: int | None = None
    tail: bytes = b""

    def set(self, key: str, entry: Entry) -> GgufFile:
        """Put an entry in the place of one, or behind all."""
        for index, (name, _) in enumerate(self.entries):
            if name == key:
                self.entries[index] = (key, entry)
                return self
        self.entries.append((key, entry))
        return self

    def drop(self, key: str) -> GgufFile:
        self.entries = [entry for entry in self.entries if entry[0] != key]
        return self

    def tensor(self, name: str) -> Tensor:
        return next(tensor for tensor in self.tensors if tensor.name == name)

    def build(self) -> bytes:
        header, _ = self.header()
        return header + self._data(len(header))

    def header(self) -> tuple[bytes, list[tuple[int, int]]]:
        """Give the header's bytes, and offset and size of each field in them."""
        pieces = [
            self.magic,
            struct.pack("<I", self.version),
            struct.pack("<Q", _or(self.tensor_count, len(self.tensors))),
            struct.pack("<Q", _or(self.entry_count, len(self.entries))),
        ]
        for key, entry in self.entries:
            pieces += [*_text(key), struct.pack("<I", entry.type), entry.data]
        offset = 0
        for tensor in self.tensors:
            pieces += [*_text(tensor.name), struct.pack("<I", len(tensor.shape))]
            pieces += [struct.pack("<Q", size) for size in tensor.shape]
            pieces.append(struct.pack("<I", tensor.type))
            pieces.append(struct.pack("<Q", _or(tensor.offset, offset)))
            offset += align(tensor.size, self.alignment)
        places = []
        position = 0
        for piece in pieces:
            places.append((position, len(piece)))
            position += len(piece)
        return b"".join(pieces), places

    def write(self, path: Path) -> Path:
        path.write_bytes(self.build())
        return path

    def _data(self, header_size: int) -> bytes:
        if not self.tensors:
            return self.tail
        padding = align(header_size, self.alignment) - header_size
        size = sum(align(tensor.size, self.alignment) for tensor in self.tensors)
        return bytes(padding + size) + self.tail


def u16(value: int) -> Entry:
    return Entry(ValueType.UINT16, struct.pack("<H", value))


def u32(value: int) -> Entry:
    return Entry(ValueType.UINT32, struct.pack("<I", value))


def i32(value: int) -> Entry:
    return Entry(ValueType.INT32, struct.pack("<i", value))


def f32(value: float) -> Entry:
    return Entry(ValueType.FLOAT32, struct.pack("<f", value))


def boolean(value: int) -> Entry:
    return Entry(ValueType.BOOL, struct.pack("<B", value))


def string(value: str | bytes) -> Entry:
    return Entry(ValueType.STRING, b"".join(_text(value)))


def strings(values: Sequence[str | bytes]) -> Entry:
    return array(ValueType.STRING, len(values), b"".join(map(_joined, values)))


def i32s(values: Sequence[int]) -> Entry:
    data = struct.pack(f"<{len(values)}i", *values)
    return array(ValueType.INT32, len(values), data)


def f32s(values: Sequence[float]) -> Entry:
    data = struct.pack(f"<{len(values)}f", *values)
    return array(ValueType.FLOAT32, len(values), data)


def array(element_type: int, length: int, data: bytes) -> Entry:
    return Entry(ValueType.ARRAY, struct.pack("<IQ", element_type, length) + data)


def small_llama(*, width: int = 8, blocks: int = 1, weights: int = 0) -> GgufFile:
    """A llama with two heads that share one key and value head.

    `weights` is the tensor type of the matrices, `width` a multiple of its block.
    """
    hidden = 2 * width
    count = len(spm_tokens())
    entries: list[tuple[str | bytes, Entry]] = [
        ("general.architecture", string("llama")),
        ("general.name", string("small llama")),
        ("general.file_type", u32(0)),
        ("llama.block_count", u32(blocks)),
        ("llama.context_length", u32(64)),
        ("llama.embedding_length", u32(width)),
        ("llama.feed_forward_length", u32(hidden)),
        ("llama.attention.head_count", u32(2)),
        ("llama.attention.head_count_kv", u32(1)),
        ("llama.attention.layer_norm_rms_epsilon", f32(1e-5)),
        ("llama.rope.dimension_count", u32(width // 2)),
        ("llama.rope.freq_base", f32(10000.0)),
        *_spm_entries(),
    ]
    tensors = [
        Tensor("token_embd.weight", (width, count), weights),
        Tensor("output_norm.weight", (width,)),
        Tensor("output.weight", (width, count), weights),
    ]
    for block in range(blocks):
        tensors += [
            Tensor(
                f"blk.{block}.{name}.weight", shape, 0 if len(shape) == 1 else weights
            )
            for name, shape in (
                ("attn_norm", (width,)),
                ("attn_q", (width, width)),
                ("attn_k", (width, width // 2)),
                ("attn_v", (width, width // 2)),
                ("attn_output", (width, width)),
                ("ffn_norm", (width,)),
                ("ffn_gate", (width, hidden)),
                ("ffn_up", (width, hidden)),
                ("ffn_down", (hidden, width)),
            )
        ]
    return GgufFile(entries, tensors)


def small_starcoder() -> GgufFile:
    """A starcoder of one block: fused, shared attention and learned positions."""
    width, hidden, context = 8, 16, 32
    count = len(bpe_tokens())
    entries: list[tuple[str | bytes, Entry]] = [
        ("general.architecture", string("starcoder")),
        ("general.name", string("small starcoder")),
        ("starcoder.block_count", u32(1)),
        ("starcoder.context_length", u32(context)),
        ("starcoder.embedding_length", u32(width)),
        ("starcoder.feed_forward_length", u32(hidden)),
        ("starcoder.attention.head_count", u32(2)),
        ("starcoder.attention.head_count_kv", u32(1)),
        ("starcoder.attention.layer_norm_epsilon", f32(1e-5)),
        *_bpe_entries(),
    ]
    shapes: Iterable[tuple[str, tuple[int, ...]]] = (
        ("token_embd.weight", (width, count)),
        ("position_embd.weight", (width, context)),
        ("output_norm.weight", (width,)),
        ("output_norm.bias", (width,)),
        ("blk.0.attn_norm.weight", (width,)),
        ("blk.0.attn_norm.bias", (width,)),
        ("blk.0.attn_qkv.weight", (width, 2 * width)),
        ("blk.0.attn_qkv.bias", (2 * width,)),
        ("blk.0.attn_output.weight", (width, width)),
        ("blk.0.attn_output.bias", (width,)),
        ("blk.0.ffn_norm.weight", (width,)),
        ("blk.0.ffn_norm.bias", (width,)),
        ("blk.0.ffn_up.weight", (width, hidden)),
        ("blk.0.ffn_up.bias", (hidden,)),
        ("blk.0.ffn_down.weight", (hidden, width)),
        ("blk.0.ffn_down.bias", (width,)),
    )
    return GgufFile(entries, [Tensor(name, shape) for name, shape in shapes])


def spm_tokens() -> list[str]:
    """Control tokens, all bytes, and a few words."""
    return [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *("▁", "a", "b", "ab", "▁ab"),
    ]


def bpe_tokens() -> list[str]:
    """An end token, all bytes as GPT-2 spells them, and two merged ones.

    Source: https://github.com/openai/gpt-2, src/encoder.py, bytes_to_unicode.
    """
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [256 + index for index in range(256 - len(plain))]
    return ["<|endoftext|>", *map(chr, plain + others), "ab", "abc"]


@cache
def _spm_entries() -> tuple[tuple[str, Entry], ...]:
    tokens = spm_tokens()
    special = {"<unk>": 2, "<s>": 3, "</s>": 3}
    types = [special.get(token, 6 if token[:3] == "<0x" else 1) for token in tokens]
    return (
        ("tokenizer.ggml.model", string("llama")),
        ("tokenizer.ggml.tokens", strings(tokens)),
        ("tokenizer.ggml.scores", f32s([-float(i) for i in range(len(tokens))])),
        ("tokenizer.ggml.token_type", i32s(types)),
        ("tokenizer.ggml.bos_token_id", u32(1)),
        ("tokenizer.ggml.eos_token_id", u32(2)),
        ("tokenizer.ggml.unknown_token_id", u32(0)),
        ("tokenizer.ggml.add_bos_token", boolean(1)),
    )


@cache
def _bpe_entries() -> tuple[tuple[str, Entry], ...]:
    tokens = bpe_tokens()
    return (
        ("tokenizer.ggml.model", string("gpt2")),
        ("tokenizer.ggml.pre", string("starcoder")),
        ("tokenizer.ggml.tokens", strings(tokens)),
        ("tokenizer.ggml.token_type", i32s([3] + [1] * (len(tokens) - 1))),
        ("tokenizer.ggml.merges", strings(["a b", "ab c"])),
        ("tokenizer.ggml.bos_token_id", u32(0)),
        ("tokenizer.ggml.eos_token_id", u32(0)),
    )


def _text(value: str | bytes) -> list[bytes]:
    data = value.encode() if isinstance(value, str) else value
    return [struct.pack("<Q", len(data)), data]


def _joined(value: str | bytes) -> bytes:
    return b"".join(_text(value))


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
