"""The GGUF reader and the rules: what is read, what is refused, and how fast."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

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
from tests.vocabularies import find_vocabulary
from wizard_edge.errors import Corrupt, MissingFile, UsageError, WizardEdgeError
from wizard_edge.gguf import (
    GGML_TYPES,
    ArrayValue,
    FileType,
    GgmlType,
    Split,
    TensorInfo,
    ValueType,
    read_array,
    read_header,
    read_strings,
    row_size,
)
from wizard_edge.gguf_rules import (
    UnsupportedArchitecture,
    UnsupportedTokenizer,
    read_valid,
    validate,
)

FUZZ = int(os.environ.get("WIZARD_EDGE_FUZZ", "3000"))
# CPU time, for the machine may be busy with other things.
MOST_CPU_S = 0.1
MOST_BYTES = 64 << 20
LIVE = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="llama_cpp is not installed"
)

Change = Callable[[GgufFile], object]


def test_header_gives_metadata_tensors_and_places(tmp_path: Path) -> None:
    path = small_llama().write(tmp_path / "m.gguf")

    header = read_header(path)

    assert header.path == path
    assert (header.version, header.alignment) == (3, 32)
    assert (header.architecture, header.name) == ("llama", "small llama")
    assert (header.context_length, header.block_count) == (64, 1)
    assert (header.embedding_length, header.vocabulary_size) == (8, 264)
    assert (header.file_type, header.quant) == (FileType.F32, "F32")
    assert header.metadata["tokenizer.ggml.add_bos_token"] is True
    assert header.metadata["llama.rope.freq_base"] == 10000.0
    assert header.tokenizer == "llama"
    assert header.chat_template is None
    assert header.split is None
    assert header.tensors[1] == TensorInfo(
        "output_norm.weight", (8,), GgmlType.F32, 8 * 264 * 4, 32
    )
    assert header.file_size == path.stat().st_size
    assert header.data_offset % 32 == 0


def test_field_is_where_the_value_lies(tmp_path: Path) -> None:
    path = small_llama().write(tmp_path / "m.gguf")

    field = read_header(path).fields["llama.block_count"]

    data = path.read_bytes()[field.offset : field.offset + field.size]
    assert (field.type, data) == (ValueType.UINT32, struct.pack("<I", 1))


def test_our_keys_and_the_usual_ones_are_read(tmp_path: Path) -> None:
    file = small_llama()
    file.set("general.file_type", u32(15))
    file.set("general.license", string("llama2"))
    file.set("wizard_edge.template", string("vicuna"))
    file.set("wizard_edge.licenses", string("llama2 wizardlm-nc"))
    file.set("tokenizer.chat_template", string("{{ messages }}"))

    header = read_header(file.write(tmp_path / "m.gguf"))

    assert header.quant == "Q4_K_M"
    assert header.license == "llama2"
    assert header.template == "vicuna"
    assert header.licenses == ("llama2", "wizardlm-nc")
    assert header.chat_template == "{{ messages }}"


def test_arrays_are_read_on_demand(tmp_path: Path) -> None:
    file = small_llama()
    file.set("x.bools", array(ValueType.BOOL, 3, b"\1\0\1"))
    file.set("x.wide", array(ValueType.INT64, 2, struct.pack("<2q", -1, 1 << 40)))
    file.set("x.none", strings([]))
    path = file.write(tmp_path / "m.gguf")

    header = read_header(path)

    tokens = header.metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, ArrayValue)
    assert (tokens.type, tokens.length) == (ValueType.STRING, 264)
    assert read_strings(header, "tokenizer.ggml.tokens") == spm_tokens()
    assert read_array(header, "tokenizer.ggml.scores")[:3] == [0.0, -1.0, -2.0]
    assert read_array(header, "tokenizer.ggml.token_type")[:4] == [2, 3, 3, 6]
    assert read_array(header, "x.bools") == [True, False, True]
    assert read_array(header, "x.wide") == [-1, 1 << 40]
    assert read_array(header, "x.none") == []


def test_array_of_a_file_that_was_replaced_is_refused(tmp_path: Path) -> None:
    path = small_llama().write(tmp_path / "m.gguf")
    header = read_header(path)
    size = header.file_size

    for content in (
        bytes(size + 1),
        b"\xff" * size,
        bytes(size),
        b"\0\1" * (size // 2),
    ):
        path.write_bytes(content)
        with pytest.raises(Corrupt, match="changed since"):
            read_strings(header, TOKENS)


def test_wrong_type_is_named(tmp_path: Path) -> None:
    header = read_header(
        small_llama().set("general.name", u32(7)).write(tmp_path / "m.gguf")
    )

    with pytest.raises(Corrupt, match=r"key 'general.name', offset \d+: is uint32"):
        _ = header.name


def test_version_2_is_read(tmp_path: Path) -> None:
    file = small_llama()
    file.version = 2

    assert read_valid(file.write(tmp_path / "m.gguf")).version == 2


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(small_llama(), id="llama"),
        pytest.param(small_llama(width=256, weights=GgmlType.Q4_K), id="llama-q4_k"),
        pytest.param(small_starcoder(), id="starcoder"),
        pytest.param(
            small_llama(blocks=2).set("llama.feed_forward_length", i32s([16, 16])),
            id="a value for each block",
        ),
        pytest.param(
            small_llama().set(
                "tokenizer.ggml.tokens", strings([*spm_tokens()[:-2], "", "x"])
            ),
            id="an empty token",
        ),
        pytest.param(
            small_llama()
            .set("llama.expert_count", u32(8))
            .set("llama.expert_used_count", u32(2)),
            id="experts",
        ),
    ],
)
def test_sound_file_is_accepted(file: GgufFile, tmp_path: Path) -> None:
    validate(read_header(file.write(tmp_path / "m.gguf")))


def test_last_tensor_may_lack_its_padding(tmp_path: Path) -> None:
    file = small_llama()
    file.tensors.append(Tensor("rope_freqs.weight", (2,)))
    path = file.write(tmp_path / "m.gguf")
    os.truncate(path, path.stat().st_size - 24)

    validate(read_header(path))


def test_vocabulary_only_file_needs_to_be_asked_for(tmp_path: Path) -> None:
    file = small_llama()
    file.tensors = []
    header = read_header(file.write(tmp_path / "m.gguf"))

    validate(header, vocabulary_only=True)
    with pytest.raises(Corrupt, match="vocabulary only"):
        validate(header)


def test_other_architecture_is_unsupported_unless_named(tmp_path: Path) -> None:
    file = small_llama()
    file.entries = [
        (str(key).replace("llama.", "qwen2.", 1), entry) for key, entry in file.entries
    ]
    file.set("general.architecture", string("qwen2"))
    header = read_header(file.write(tmp_path / "m.gguf"))

    validate(header, architectures={"qwen2"})
    with pytest.raises(UnsupportedArchitecture) as caught:
        validate(header)
    assert caught.value.architecture == "qwen2"
    assert caught.value.known == {"llama", "starcoder"}
    assert caught.value.exit_code == 8


def test_other_tokenizer_is_unsupported(tmp_path: Path) -> None:
    file = small_llama().set("tokenizer.ggml.model", string("plamo2"))

    with pytest.raises(UnsupportedTokenizer) as caught:
        read_valid(file.write(tmp_path / "m.gguf"))
    assert (caught.value.tokenizer, caught.value.exit_code) == ("plamo2", 8)


def test_parts_of_a_split_model(tmp_path: Path) -> None:
    first = small_llama()
    later = GgufFile([("split.no", u16(1))], [Tensor("x.weight", (8, 8))])
    for file in (first, later):
        file.set("split.count", u16(2)).set("split.tensors.count", i32(13))
    first.set("split.no", u16(0))

    headers = [
        read_valid(first.write(tmp_path / "m-00001-of-00002.gguf")),
        read_valid(later.write(tmp_path / "m-00002-of-00002.gguf")),
    ]

    assert [header.split for header in headers] == [Split(0, 2, 13), Split(1, 2, 13)]


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


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_refused_with_the_place(name: str, tmp_path: Path) -> None:
    change, message = BAD[name]
    file = small_llama()
    change(file)
    path = file.write(tmp_path / "m.gguf")

    with pytest.raises(Corrupt) as caught:
        read_valid(path)

    assert message in caught.value.message
    assert caught.value.path == str(path)
    assert caught.value.where


def test_bpe_needs_merges(tmp_path: Path) -> None:
    file = small_starcoder().drop("tokenizer.ggml.merges")

    with pytest.raises(Corrupt, match=r"key 'tokenizer.ggml.merges': is missing"):
        read_valid(file.write(tmp_path / "m.gguf"))


@pytest.mark.parametrize("content", [b"", b"G", b"GGUF", b"GGUF\3\0\0\0"])
def test_few_bytes_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)

    with pytest.raises(Corrupt):
        read_header(path)


def test_missing_file_is_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "no.gguf", tmp_path / "no" / "no.gguf"):
        with pytest.raises(MissingFile):
            read_header(path)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    fifo, loop = tmp_path / "fifo", tmp_path / "loop"
    os.mkfifo(fifo)
    loop.symlink_to(loop)
    began = time.monotonic()

    for path in (fifo, loop, tmp_path, Path(os.devnull), Path("/dev/zero"), "a\0b"):
        with pytest.raises(UsageError):
            read_header(path)

    assert time.monotonic() - began < 1


def test_every_prefix_is_refused(tmp_path: Path) -> None:
    path = small_llama(width=4).write(tmp_path / "m.gguf")
    validate(read_header(path))

    for size in reversed(range(path.stat().st_size)):
        os.truncate(path, size)
        with pytest.raises(Corrupt):
            read_valid(path)


def test_mutated_headers_give_only_our_errors(tmp_path: Path) -> None:
    """Structure-aware mutations, seeded; each within 0.1 s, all within 64 MB."""
    path = tmp_path / "m.gguf"
    slowest = 0.0
    accepted = 0
    before = _peak_bytes()

    # One open file: a new one each time costs three times as long.
    with path.open("wb", buffering=0) as out:
        for seed in range(FUZZ):
            content = mutated(random.Random(seed))
            os.pwrite(out.fileno(), content, 0)
            out.truncate(len(content))
            began = time.process_time()
            try:
                read_valid(path)
            except WizardEdgeError:
                pass
            else:
                accepted += 1
            slowest = max(slowest, time.process_time() - began)

    print(f"{FUZZ} mutations, {accepted} accepted, slowest {slowest * 1e3:.1f} ms")
    assert slowest < MOST_CPU_S
    assert 0 < accepted < FUZZ / 2
    assert _peak_bytes() - before < MOST_BYTES


@LIVE
def test_accepted_files_run_in_llama_cpp(tmp_path: Path) -> None:
    paths = [
        small_llama().write(tmp_path / "llama.gguf"),
        small_starcoder().write(tmp_path / "starcoder.gguf"),
    ]
    for path in paths:
        validate(read_header(path))

    assert _child(_RUN, *map(str, paths)) == "0\n0\n"


@pytest.mark.parametrize(
    ("name", "tokens", "first"),
    [("llama-spm", 32000, "<unk>"), ("starcoder-bpe", 49152, "<|endoftext|>")],
)
def test_real_vocabulary_is_valid(name: str, tokens: int, first: str) -> None:
    header = read_valid(find_vocabulary(name), vocabulary_only=True)

    assert header.vocabulary_size == tokens
    assert read_strings(header, TOKENS)[0] == first


def test_row_size_counts_blocks() -> None:
    assert row_size(GgmlType.F32, 8) == 32
    assert row_size(GgmlType.Q4_K, 512) == 288
    assert row_size(GgmlType.Q8_0, 0) == 0
    with pytest.raises(ValueError, match="no multiple of Q4_0's block of 32"):
        row_size(GgmlType.Q4_0, 33)


@LIVE
def test_type_table_equals_that_of_ggml() -> None:
    ours = {number: (t.block_size, t.type_size) for number, t in GGML_TYPES.items()}

    theirs = json.loads(_child(_TYPES))

    assert ours == {
        number: (block, size) for number, (block, size) in enumerate(theirs) if block
    }


def test_names_equal_those_of_the_gguf_package() -> None:
    gguf = pytest.importorskip("gguf")

    for number in gguf.GGMLQuantizationType:
        assert GgmlType(number).name == number.name
    for number in set(gguf.LlamaFileType) - {gguf.LlamaFileType.GUESSED}:
        name = number.name.removeprefix("ALL_").removeprefix("MOSTLY_")
        assert FileType(number).name == name


def mutated(rng: random.Random) -> bytes:
    """Build a small model and damage it in one to three places."""
    file = small_llama() if rng.random() < 0.7 else small_starcoder()
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


def _peak_bytes() -> int:
    resource = pytest.importorskip("resource")
    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak if sys.platform == "darwin" else peak * 1024


def _child(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


# Prints block and type size of every type that ggml knows, by number.
_TYPES = """
import ctypes, json, pathlib, llama_cpp
folder = pathlib.Path(llama_cpp.__file__).parent / "lib"
ggml = ctypes.CDLL(str(next(folder.glob("*ggml-base.*"))))
ggml.ggml_blck_size.restype = ctypes.c_int64
ggml.ggml_type_size.restype = ctypes.c_size_t
print(json.dumps([(ggml.ggml_blck_size(n), ggml.ggml_type_size(n)) for n in range(43)]))
"""

# Tokenizes, decodes and prints what `llama_decode` says, for each file.
_RUN = """
import sys, llama_cpp as l
for path in sys.argv[1:]:
    model = l.llama_model_load_from_file(path.encode(), l.llama_model_default_params())
    vocab = l.llama_model_get_vocab(model)
    text = "ab \\u00e9 \\u6f22\\n".encode()
    ids = (l.llama_token * 64)()
    count = l.llama_tokenize(vocab, text, len(text), ids, 64, True, True)
    params = l.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch = 32, 1, 1
    context = l.llama_init_from_model(model, params)
    print(l.llama_decode(context, l.llama_batch_get_one(ids, count)))
"""
