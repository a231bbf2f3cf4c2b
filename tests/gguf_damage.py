"""Damaged GGUF files: one for each rule, and any number of random ones."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from tests.gguf_files import (
    Entry,
    GgufFile,
    Tensor,
    array,
    boolean,
    bpe_tokens,
    f32,
    f32s,
    i32,
    i32s,
    small_llama,
    small_starcoder,
    spm_tokens,
    string,
    strings,
    u16,
    u32,
)

Change = Callable[[GgufFile], object]


def _tensor(name: str, **changes: object) -> Change:
    def change(file: GgufFile) -> None:
        for key, value in changes.items():
            setattr(file.tensor(name), key, value)

    return change


def _file(**changes: object) -> Change:
    def change(file: GgufFile) -> None:
        for key, value in changes.items():
            setattr(file, key, value)

    return change


def _set(key: str, entry: Entry) -> Change:
    return lambda file: file.set(key, entry)


def _drop(key: str) -> Change:
    return lambda file: file.drop(key)


def _add(key: str | bytes, entry: Entry) -> Change:
    return lambda file: file.entries.append((key, entry))


def _add_tensor(tensor: Tensor) -> Change:
    return lambda file: file.tensors.append(tensor)


U64 = struct.Struct("<Q").pack
HEADS = "llama.attention.head_count"
TOKENS = "tokenizer.ggml.tokens"
BAD: dict[str, tuple[Change, str]] = {
    "bad magic": (_file(magic=b"GGML"), "offset 0: no GGUF file: it begins with"),
    "version 0": (_file(version=0), "offset 4: version 0x00000000: a big-endian"),
    "version 1": (_file(version=1), "offset 4: GGUF version 1; only 2 and 3"),
    "version 4": (_file(version=4), "GGUF version 4"),
    "big endian": (_file(version=3 << 24), "a big-endian file"),
    "endless tensors": (_file(tensor_count=1 << 63), "offset 8: 9223372036854775808"),
    "endless entries": (_file(entry_count=1 << 63), "offset 16: 9223372036854775808"),
    "one tensor too many": (_file(tensor_count=13), "tensor 12, offset"),
    "one entry too many": (_file(entry_count=21), "tensor 0, offset"),
    "empty key": (_add("", u32(1)), "metadata entry 20, offset 6"),
    "key with NUL": (_add("llama.x\0", u32(1)), r"'llama.x\x00' is no key"),
    "key not UTF-8": (_add(b"x\xff", u32(1)), "not UTF-8"),
    "key too long": (_add("k" * 65536, u32(1)), "a string of 65536 bytes"),
    "duplicate key": (_add("general.name", u32(1)), "'general.name' is there twice"),
    "unknown value type": (_add("x.x", Entry(13, b"")), "unknown value type 13"),
    "bool of 2": (_add("x.x", boolean(2)), "key 'x.x', offset"),
    "string not UTF-8": (_add("x.x", string(b"\xff")), "not UTF-8"),
    "string past the end": (_add("x.x", Entry(8, U64(1 << 20))), "are needed"),
    "string too long": (_add("x.x", Entry(8, U64(1 << 25))), "33554432 bytes"),
    "array past the end": (_add("x.x", array(0, 1 << 20, b"")), "are needed"),
    "array too long": (_add("x.x", array(0, 1 << 62, b"")), "an array of 4611686"),
    "strings past the end": (_add("x.x", array(8, 1 << 19, b"")), "are needed"),
    "strings too many": (_add("x.x", array(8, 1 << 26, b"")), "strings in arrays"),
    "long string in array": (
        _add("x.x", array(8, 1, U64(1 << 60))),
        "bytes in an array",
    ),
    "long texts": (_add("x.x", string(b"a" * (5 << 20))), "texts of more than"),
    "nested array": (_add("x.x", array(9, 1, b"")), "an array of arrays"),
    "alignment 0": (_set("general.alignment", u32(0)), "0 is no power of two"),
    "alignment 1": (_set("general.alignment", u32(1)), "1 is no power of two"),
    "alignment 48": (_set("general.alignment", u32(48)), "48 is no power"),
    "alignment 2^31": (_set("general.alignment", u32(1 << 31)), "2147483648 is no"),
    "alignment signed": (_set("general.alignment", i32(32)), "is int32, should be"),
    "alignment text": (_set("general.alignment", string("32")), "is string, should"),
    "tensor without name": (_add_tensor(Tensor("", (8,))), "tensor 12, offset"),
    "long tensor name": (_add_tensor(Tensor("n" * 64, (8,))), "a string of 64 bytes"),
    "tensor name with NUL": (_add_tensor(Tensor("n\0", (8,))), "is no name"),
    "duplicate tensor": (
        _add_tensor(Tensor("output.weight", (8,))),
        "tensor 'output.weight' is there twice",
    ),
    "no dimensions": (_tensor("output.weight", shape=()), "0 dimensions"),
    "five dimensions": (_tensor("output.weight", shape=(1,) * 5), "5 dimensions"),
    "dimension of 0": (_tensor("output.weight", shape=(8, 0)), "shape of (8, 0)"),
    "endless shape": (_tensor("output.weight", shape=(1 << 32,) * 2), "a shape of"),
    "half a block": (_tensor("output.weight", type=2), "a row of 8 elements"),
    "removed type": (_tensor("output.weight", type=4), "unknown tensor type 4"),
    "unknown type": (_tensor("output.weight", type=43), "unknown tensor type 43"),
    "unaligned tensor": (
        _tensor("output_norm.weight", offset=8456),
        "tensor 'output_norm.weight': begins at 8456, no multiple of 32",
    ),
    "overlapping tensor": (_tensor("output_norm.weight", offset=8416), "overlaps"),
    "gap": (_tensor("output_norm.weight", offset=8480), "leaves a gap"),
    "tensor after the end": (
        _tensor("blk.0.ffn_down.weight", shape=(16, 1 << 40)),
        "bytes after the file",
    ),
    "trailing junk": (_file(tail=bytes(1000)), "1000 bytes follow"),
    "one byte too many": (_file(tail=b"x"), "1 bytes follow the last tensor"),
    "no architecture": (_drop("general.architecture"), "'general.architecture'"),
    "no block count": (_drop("llama.block_count"), "is missing"),
    "block count 0": (_set("llama.block_count", u32(0)), "is 0, can be 1 to 512"),
    "block count 513": (_set("llama.block_count", u32(513)), "is 513"),
    "block count signed": (_set("llama.block_count", i32(1)), "is int32, should be"),
    "context 0": (_set("llama.context_length", u32(0)), "'llama.context_length'"),
    "width 0": (_set("llama.embedding_length", u32(0)), "'llama.embedding_length'"),
    "no heads": (_set(HEADS, u32(0)), "head_count', offset"),
    "three heads": (_set(HEADS, u32(3)), "3 heads do not divide 8"),
    "eight heads": (_set(HEADS, u32(8)), "heads of odd size 1"),
    "no shared heads": (_set(f"{HEADS}_kv", u32(0)), "is 0, can be 1"),
    "shared heads": (_set(f"{HEADS}_kv", u32(3)), "3 heads do not divide 2"),
    "heads differ": (_set(HEADS, i32s([2, 2])), "is array of int32 with 2 for 1"),
    "value size": (_set("llama.attention.value_length", u32(8)), "is 8, heads have 4"),
    "rotation": (_set("llama.rope.dimension_count", u32(2)), "is 2, heads have 4"),
    "scaling": (_set("llama.rope.scaling.type", string("dynamic")), "is 'dynamic'"),
    "frequency": (_set("llama.rope.freq_base", f32(0)), "'llama.rope.freq_base'"),
    "not causal": (_set("llama.attention.causal", boolean(0)), "can only be True"),
    "pooling": (_set("llama.pooling_type", u32(99)), "is 99, can only be 0"),
    "experts": (_set("llama.expert_used_count", u32(2)), "2 experts used of 0"),
    "idle experts": (_set("llama.expert_count", u32(2)), "0 experts used of 2"),
    "many experts": (_set("llama.expert_count", u32(1025)), "is 1025, at most 1024"),
    **{
        f"epsilon {value}": (
            _set("llama.attention.layer_norm_rms_epsilon", f32(value)),
            "layer_norm_rms_epsilon', offset",
        )
        for value in (float("nan"), float("inf"), -1e-5)
    },
    "no epsilon": (_drop("llama.attention.layer_norm_rms_epsilon"), "is missing"),
    "half vector": (_tensor("output_norm.weight", type=1), "a vector of F16"),
    "integer weights": (_tensor("output.weight", type=26), "a weight of I32"),
    "embedding rows": (_tensor("token_embd.weight", shape=(8, 265)), "not (8, 264)"),
    "no tokens": (_drop(TOKENS), "is missing"),
    "empty tokens": (_set(TOKENS, strings([])), "is empty"),
    "tokens are numbers": (_set(TOKENS, i32s([1])), "should be array of string"),
    "tokens are text": (_set(TOKENS, string("a")), "should be an array"),
    "too many tokens": (
        _set(TOKENS, strings([""] * ((1 << 18) + 1))),
        "262145 tokens, at most 262144",
    ),
    "long tokens": (_set(TOKENS, strings(["a" * (4 << 20)])), "tokens of 4194312"),
    "duplicate tokens": (
        _set(TOKENS, strings([*spm_tokens()[:-1], "a"])),
        "tokens 260 and 263 are the same: 'a'",
    ),
    "tokens alike up to NUL": (
        _set(TOKENS, strings([*spm_tokens()[:-1], "a\0x"])),
        "token 263 holds a NUL",
    ),
    "empty token alike": (
        _set(TOKENS, strings([*spm_tokens()[:-2], "", "[EMPTY_262]"])),
        "tokens 262 and 263 are the same",
    ),
    "token not UTF-8": (
        _set(TOKENS, strings([*spm_tokens()[:-1], b"\xff"])),
        "element 263 is not UTF-8",
    ),
    "no token for a byte": (
        _set(TOKENS, strings([t for t in [*spm_tokens(), "x"] if t != "<0xFE>"])),
        "no token for the byte 0xfe",
    ),
    "scores too few": (_set("tokenizer.ggml.scores", f32s([0.0])), "has 1 elements"),
    "score NaN": (
        _set("tokenizer.ggml.scores", f32s([0.0] * 263 + [float("nan")])),
        "no finite number",
    ),
    "scores are text": (_set("tokenizer.ggml.scores", string("x")), "is string"),
    "types too many": (_set("tokenizer.ggml.token_type", i32s([1] * 265)), "has 265"),
    "unknown token type": (
        _set("tokenizer.ggml.token_type", i32s([7] * 264)),
        "none of 0 to 6",
    ),
    "BOS": (_set("tokenizer.ggml.bos_token_id", u32(264)), "is 264; there are 264"),
    "EOS": (_set("tokenizer.ggml.eos_token_id", u32(999999)), "is 999999"),
    "UNK": (_set("tokenizer.ggml.unknown_token_id", u32(264)), "is 264"),
    "EOS signed": (_set("tokenizer.ggml.eos_token_id", i32(2)), "is int32"),
    "add BOS is a number": (_set("tokenizer.ggml.add_bos_token", u32(1)), "is uint32"),
    "split of wrong type": (_set("split.no", u32(1)), "is uint32, should be uint16"),
    "split part": (
        lambda file: file.set("split.no", u16(2)).set("split.count", u16(2)),
        "part 2 of 2",
    ),
}


# What has to be refused, and the bad files that show it.
REQUIRED: dict[str, tuple[str, ...]] = {
    "magic and version": ("bad magic", "version 0", "version 1", "version 4"),
    "big-endian": ("big endian",),
    "counts": ("endless tensors", "endless entries"),
    "string too long or past the end": (
        *("string too long", "string past the end", "long texts"),
    ),
    "array too long or past the end": (
        *("array too long", "array past the end", "strings past the end"),
        *("strings too many", "long string in array"),
    ),
    "nested arrays": ("nested array",),
    "keys": ("duplicate key", "empty key", "key not UTF-8", "key too long"),
    "alignment": ("alignment 0", "alignment 1", "alignment 48", "alignment 2^31"),
    "dimensions": ("no dimensions", "five dimensions", "dimension of 0"),
    "product of dimensions": ("endless shape",),
    "row of half a block": ("half a block",),
    "tensor type": ("unknown type", "removed type"),
    "tensor offset": (
        *("unaligned tensor", "overlapping tensor", "gap"),
        "tensor after the end",
    ),
    "trailing bytes": ("trailing junk", "one byte too many"),
    "tensor names": ("duplicate tensor", "long tensor name"),
    "duplicate tokens": (
        *("duplicate tokens", "tokens alike up to NUL", "empty token alike"),
    ),
    "lengths of the vocabulary": (
        *("scores too few", "types too many", "embedding rows"),
    ),
    "ids after the vocabulary": ("BOS", "EOS", "UNK"),
    "blocks": ("block count 0", "block count 513", "no block count"),
    "heads": ("no heads", "three heads", "no shared heads", "shared heads"),
    "epsilon": ("epsilon nan", "epsilon inf", "epsilon -1e-05", "no epsilon"),
}


def large_files() -> dict[str, GgufFile]:
    """Return files that are valid, or nearly, and as large as the bounds allow."""
    count = 149_000
    named = [*spm_tokens(), *(f"{n:011}\U0001f600xxxx" for n in range(count))][:count]
    numbers = [*spm_tokens(), *map(str, range(1 << 18))][: 1 << 18]
    text = string("\U0001f600" + "a" * (3 << 20))
    bulk = array(0, 20 << 20, bytes(20 << 20))
    return {
        "wide tokens": with_tokens(named).set("x.text", text).set("x.bulk", bulk),
        "many tokens": with_tokens(numbers),
        "many strings": small_llama().set("x.x", strings([""] * (1 << 19))),
        "many tensors": GgufFile(
            small_llama().entries, [Tensor(f"t{n}", (1,)) for n in range(1 << 16)]
        ),
    }


def with_tokens(tokens: list[str]) -> GgufFile:
    """Return a small model with another vocabulary."""
    count = len(tokens)
    file = small_llama(width=4).set(TOKENS, strings(tokens))
    file.set("tokenizer.ggml.scores", f32s([0.0] * count))
    file.set("tokenizer.ggml.token_type", i32s([1] * count))
    for name in ("token_embd.weight", "output.weight"):
        file.tensor(name).shape = (4, count)
    return file


def mutated(rng: random.Random) -> bytes:
    """Build a small model and damage it in one to three places."""
    file = _base(rng)
    for _ in range(rng.randint(0, 2)):
        rng.choice(_DAMAGES)(rng, file)
    header, places = file.header()
    content = bytearray(file.build())
    for _ in range(rng.choice((0, 1, 1, 1, 2))):
        offset, size = rng.choice(places)
        if rng.random() < 0.3:
            offset, size = rng.randrange(len(header)), rng.choice((1, 1, 4, 8))
        content[offset : offset + size] = _odd_bytes(rng, size)
    if rng.random() < 0.05:
        del content[rng.randrange(len(content)) :]
    return bytes(content)


def _base(rng: random.Random) -> GgufFile:
    draw = rng.random()
    if draw < 0.5:
        return small_llama()
    if draw < 0.6:
        return small_llama(blocks=2)
    if draw < 0.7:
        return small_llama(width=32, weights=rng.choice((1, 2, 8)))
    return small_starcoder()


_ODD = (
    *(0, 1, 2, 3, 7, 8, 9, 12, 31, 32, 33, 63, 64, 255, 256, 264, 513, 999999),
    *((1 << bit) + more for bit in (16, 31, 32, 63) for more in (-1, 0)),
)


def _odd_bytes(rng: random.Random, size: int) -> bytes:
    if rng.random() < 0.3 or size not in (1, 2, 4, 8):
        return rng.randbytes(min(size, 4096))
    return (rng.choice(_ODD) % (1 << 8 * size)).to_bytes(size, "little")


def _swap_entries(rng: random.Random, file: GgufFile) -> None:
    one, two = (rng.randrange(len(file.entries)) for _ in range(2))
    (key, entry), (other_key, other) = file.entries[one], file.entries[two]
    file.entries[one], file.entries[two] = (key, other), (other_key, entry)


def _drop_entry(rng: random.Random, file: GgufFile) -> None:
    del file.entries[rng.randrange(len(file.entries))]


def _repeat_entry(rng: random.Random, file: GgufFile) -> None:
    file.entries.append(rng.choice(file.entries))


def _change_entry(rng: random.Random, file: GgufFile) -> None:
    index = rng.randrange(len(file.entries))
    key, entry = file.entries[index]
    changed = rng.choice(
        (
            Entry(rng.randrange(14), entry.data),
            u32(rng.choice(_ODD) % (1 << 32)),
            f32(rng.choice((0.0, -1.0, 1e-5, float("nan"), float("inf")))),
            string(rng.choice(("", "llama", "gpt2", "none", "a\0b", "\x1b[31m"))),
            strings(rng.choices(bpe_tokens(), k=rng.randrange(9))),
            i32s(rng.choices((0, 1, 2, 7, -1), k=rng.randrange(9))),
            boolean(rng.randrange(3)),
            Entry(entry.type, entry.data[: rng.randrange(len(entry.data) + 1)]),
        )
    )
    file.entries[index] = (key, changed)


def _add_entry(rng: random.Random, file: GgufFile) -> None:
    name = rng.choice(
        (
            "general.alignment",
            "llama.attention.key_length",
            "llama.attention.value_length",
            "llama.attention.causal",
            "llama.expert_count",
            "llama.expert_used_count",
            "llama.nextn_predict_layers",
            "llama.pooling_type",
            "llama.rope.scaling.type",
            "llama.rope.scaling.factor",
            "split.count",
            "split.no",
            "tokenizer.ggml.add_eos_token",
            "tokenizer.ggml.eot_token_id",
            "tokenizer.ggml.pre",
            "tokenizer.ggml.suppress_tokens",
        )
    )
    file.set(name, u32(rng.choice(_ODD) % (1 << 32)))
    if rng.random() < 0.5:
        index = next(i for i, (key, _) in enumerate(file.entries) if key == name)
        file.entries.append(file.entries.pop(index))
        _change_last(rng, file)


def _change_last(rng: random.Random, file: GgufFile) -> None:
    key, _ = file.entries[-1]
    file.entries[-1] = (
        key,
        rng.choice((u16(2), boolean(0), boolean(1), f32(0.5), string("linear"))),
    )


def _change_tensor(rng: random.Random, file: GgufFile) -> None:
    tensor = rng.choice(file.tensors)
    match rng.randrange(4):
        case 0:
            tensor.type = rng.randrange(44)
        case 1:
            shape = list(tensor.shape)
            shape[rng.randrange(len(shape))] = rng.choice(_ODD) % 1024
            tensor.shape = tuple(shape)
        case 2:
            tensor.offset = rng.choice(_ODD)
        case _:
            tensor.name = rng.choice(file.tensors).name


def _move_tensor(rng: random.Random, file: GgufFile) -> None:
    file.tensors.append(file.tensors.pop(rng.randrange(len(file.tensors))))


_DAMAGES = (
    _swap_entries,
    _drop_entry,
    _repeat_entry,
    _change_entry,
    _change_entry,
    _add_entry,
    _change_tensor,
    _move_tensor,
)
