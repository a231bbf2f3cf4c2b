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
from pathlib import Path

import pytest

from tests.child import environment
from tests.gguf_damage import BAD, REQUIRED, TOKENS, large_files, mutated
from tests.gguf_files import (
    GgufFile,
    Tensor,
    array,
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


@pytest.mark.parametrize("rule", REQUIRED)
def test_every_rule_has_its_bad_files(rule: str) -> None:
    assert REQUIRED[rule]
    assert set(REQUIRED[rule]) <= set(BAD)


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


@pytest.mark.skipif(sys.platform != "linux", reason="measures with /proc")
def test_the_largest_headers_take_little_memory(tmp_path: Path) -> None:
    for name, file in large_files().items():
        path = file.write(tmp_path / "m.gguf")

        accepted, taken = json.loads(_child(_MEASURE, str(path)))

        assert accepted, name
        assert taken < MOST_BYTES, f"{name}: {taken}"


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


def _peak_bytes() -> int:
    resource = pytest.importorskip("resource")
    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak if sys.platform == "darwin" else peak * 1024


def _child(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment(),
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

# Prints whether a file is accepted, and the bytes of memory that took.
_MEASURE = """
import json, sys
from tests.faults.memory import forget_peak, peak_memory
from wizard_edge.errors import Corrupt
from wizard_edge.gguf_rules import read_valid
resident, accepted = forget_peak(), True
try:
    read_valid(sys.argv[1])
except Corrupt as err:
    accepted = False
print(json.dumps([accepted, peak_memory() - resident]))
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
