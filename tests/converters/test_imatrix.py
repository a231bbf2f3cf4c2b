"""Both forms of importance matrices mean what llama.cpp takes them for."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.converters.quantizing import legacy_matrix, legacy_tail
from tests.gguf_files import Entry, GgufFile, Tensor, string, strings, u16, u32
from wizard_edge._llama.activations import Activations, ActivationSums
from wizard_edge.errors import (
    CannotConvert,
    Corrupt,
    MissingFile,
    UsageError,
    WizardEdgeError,
)
from wizard_edge.gguf import read_header
from wizard_edge.gguf_types import ArrayValue
from wizard_edge_converters import imatrix
from wizard_edge_converters.imatrix import (
    ImatrixWriter,
    ImportanceMatrix,
    encode_imatrix,
    quantizer_notes,
    read_imatrix,
    write_imatrix,
)

DENSE, EXPERTS = "blk.0.attn_q.weight", "blk.0.ffn_up_exps.weight"


def activations() -> Activations:
    dense = np.array([[64, 32, 0.5]], dtype=np.float32)
    experts = np.array([[6, 3], [0, 0], [1, 7]], dtype=np.float32)
    return Activations(
        {
            EXPERTS: ActivationSums(experts, np.array([3, 0, 7])),
            DENSE: ActivationSums(dense, np.array([40])),
        },
        chunks=2,
        chunk_size=20,
    )


def gguf_file(*tensors: Tensor, **changes: Entry | None) -> bytes:
    """Build a file of the GGUF form, all its numbers zero; None drops an entry."""
    entries: dict[str, Entry | None] = {
        "general.type": string("imatrix"),
        "imatrix.datasets": strings(["text.txt"]),
        "imatrix.chunk_count": u32(2),
        "imatrix.chunk_size": u32(20),
    }
    entries |= {name.replace("__", "."): value for name, value in changes.items()}
    kept = [(key, value) for key, value in entries.items() if value is not None]
    return GgufFile([*kept], list(tensors)).build()


PAIR = (Tensor("a.in_sum2", (4,)), Tensor("a.counts", (1,)))


def with_number(data: bytes, tensor: int, number: float) -> bytes:
    """Put a number at the beginning of a tensor of `gguf_file(*PAIR)`."""
    changed = bytearray(data)
    at = len(data) - 32 * (len(PAIR) - tensor)
    changed[at : at + 4] = struct.pack("<f", number)
    return bytes(changed)


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], ImportanceMatrix]:
    """Return a function that reads these bytes from a file."""

    def read(content: bytes) -> ImportanceMatrix:
        path = tmp_path / "file"
        path.write_bytes(content)
        return read_imatrix(path)

    return read


Read = Callable[[bytes], ImportanceMatrix]


def test_what_was_written_is_read_as_means(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"

    size = write_imatrix(path, activations(), dataset="text.txt")
    matrix = read_imatrix(path)

    assert size == path.stat().st_size
    assert {name: values.tolist() for name, values in matrix.values.items()} == {
        DENSE: [np.float32(64) / 40, np.float32(32) / 40, np.float32(0.5) / 40],
        # An expert that saw no token counts everything alike.
        EXPERTS: [2, 1, 1, 1, np.float32(1) / 7, 1],
    }
    assert all(values.dtype == np.float32 for values in matrix.values.values())
    assert (matrix.dataset, matrix.chunks, matrix.path) == ("text.txt", 2, path)


def test_the_file_has_the_keys_and_the_order_of_llama_cpp(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"

    write_imatrix(path, activations(), dataset="text.txt")
    header = read_header(path)

    keys = {
        key: value.length if isinstance(value, ArrayValue) else value
        for key, value in header.metadata.items()
    }
    assert list(keys.items()) == [
        ("general.type", "imatrix"),
        ("imatrix.datasets", 1),
        ("imatrix.chunk_count", 2),
        ("imatrix.chunk_size", 20),
    ]
    assert [(tensor.name, tensor.shape) for tensor in header.tensors] == [
        (f"{DENSE}.in_sum2", (3,)),
        (f"{DENSE}.counts", (1,)),
        (f"{EXPERTS}.in_sum2", (2, 3)),
        (f"{EXPERTS}.counts", (1, 3)),
    ]


def test_the_legacy_form_holds_sums_of_means(read: Read) -> None:
    content = legacy_matrix(
        [("a", 4, [8, 2]), ("b", 0, [8, 2])], legacy_tail(5, b"text.txt")
    )

    matrix = read(content)

    assert {name: list(values) for name, values in matrix.values.items()} == {
        "a": [2, 0.5],
        # No calls: llama.cpp takes the values as they are.
        "b": [8, 2],
    }
    assert (matrix.dataset, matrix.chunks) == ("text.txt", 5)


@pytest.mark.parametrize(
    ("tail", "said"),
    [
        (b"", (None, None)),
        (struct.pack("<i", 7), (None, 7)),
        (legacy_tail(0, b""), (None, None)),
    ],
    ids=["nothing", "chunks", "zeros"],
)
def test_old_legacy_files_say_less(
    tail: bytes, said: tuple[str | None, int | None], read: Read
) -> None:
    matrix = read(legacy_matrix([("a", 1, [1])], tail))

    assert (matrix.dataset, matrix.chunks) == said


def test_a_matrix_without_a_text_has_no_dataset(read: Read) -> None:
    matrix = read(gguf_file(*PAIR, imatrix__datasets=strings([])))

    assert matrix.dataset is None
    assert matrix.values["a"].tolist() == [1, 1, 1, 1]


NAN, INF = float("nan"), float("inf")
ZEROS = gguf_file(*PAIR)
DAMAGED = {
    "empty": (b"", "the beginning, offset 0: 4 bytes are needed, 0 are left"),
    "text": (b"Once upon a time", "1701015119 entries"),
    "no entries": (legacy_matrix([]), "0 entries"),
    "negative entries": (legacy_matrix([], count=-1), "-1 entries"),
    "many entries": (legacy_matrix([("a", 1, [1])], count=2), "entry 1"),
    "no name": (legacy_matrix([("", 1, [1])]), "the name ''"),
    "long name": (
        legacy_matrix([("a" * 64, 1, [1])]),
        "a text of 64 bytes, at most 63",
    ),
    "name of bytes": (legacy_matrix([(b"\xff", 1, [1])]), "not UTF-8"),
    "name with zero": (legacy_matrix([("a\0b", 1, [1])]), "a zero byte"),
    "twice": (legacy_matrix([("a", 1, [1])] * 2), "entry 1, offset 26: the name 'a'"),
    "negative calls": (legacy_matrix([("a", -1, [1])]), "entry 'a'"),
    "no values": (legacy_matrix([("a", 1, [])]), "0 values of 1 calls"),
    "many values": (
        legacy_matrix([("a", 1, [1])])[:-8] + struct.pack("<if", 1 << 30, 1),
        "4294967296 bytes are needed, 4 are left",
    ),
    "legacy nan": (
        legacy_matrix([("a", 1, [1, NAN])]),
        "entry 'a', offset 25: value 1 is",
    ),
    "legacy inf": (legacy_matrix([("a", 1, [INF])]), "value 0 is inf"),
    "legacy negative": (legacy_matrix([("a", 1, [-1])]), "value 0 is -1"),
    "legacy huge": (legacy_matrix([("a", 1, [1e30])]), "an importance of 1e+30"),
    "negative chunks": (
        legacy_matrix([("a", 1, [1])], legacy_tail(-1, b"")),
        "-1 chunks",
    ),
    "rest": (
        legacy_matrix([("a", 1, [1])], legacy_tail(1, b"t") + b"x"),
        "1 bytes after",
    ),
    "a model": (
        gguf_file(*PAIR, general__type=string("model")),
        "key 'general.type', offset ",
    ),
    "no datasets": (
        gguf_file(*PAIR, imatrix__datasets=None),
        "key 'imatrix.datasets': the key is missing",
    ),
    "datasets no list": (
        gguf_file(*PAIR, imatrix__datasets=string("t")),
        "is string, should be an array",
    ),
    "no chunk count": (gguf_file(*PAIR, imatrix__chunk_count=None), "missing"),
    "no chunk size": (gguf_file(*PAIR, imatrix__chunk_size=None), "missing"),
    "short chunk size": (
        gguf_file(*PAIR, imatrix__chunk_size=u16(1)),
        "is uint16, should be uint32",
    ),
    "no tensors": (gguf_file(), "no tensor *.in_sum2"),
    "other tensors": (gguf_file(Tensor("a.weight", (4,))), "no tensor *.in_sum2"),
    "no counts": (gguf_file(PAIR[0]), "tensor 'a': has no .counts beside it"),
    "no sums": (gguf_file(PAIR[1]), "tensor 'a': has no .in_sum2 beside it"),
    "counts do not divide": (
        gguf_file(PAIR[0], Tensor("a.counts", (3,))),
        "tensor 'a.in_sum2': 4 values for 3 counts",
    ),
    "half sums": (
        gguf_file(Tensor("a.in_sum2", (4,), 1), PAIR[1]),
        "tensor 'a.in_sum2': is F16, should be F32",
    ),
    "same tensor": (gguf_file(*PAIR, PAIR[1]), "'a.counts' is there twice"),
    "overlap": (
        gguf_file(PAIR[0], Tensor("a.counts", (1,), offset=0)),
        "tensor 'a.counts': begins at 0, not at 32",
    ),
    "bytes behind": (ZEROS + b"x", "its tensors end at "),
    "nan": (with_number(ZEROS, 0, NAN), "tensor 'a.in_sum2': value 0 is nan"),
    "inf": (with_number(ZEROS, 0, INF), "tensor 'a.in_sum2': value 0 is inf"),
    "negative": (with_number(ZEROS, 0, -1), "tensor 'a.in_sum2': value 0 is -1"),
    "count nan": (with_number(ZEROS, 1, NAN), "tensor 'a.counts': value 0 is nan"),
    "count negative": (with_number(ZEROS, 1, -1), "tensor 'a.counts': value 0"),
    "count huge": (with_number(ZEROS, 1, 1e30), "tensor 'a.counts': a count of 1"),
    "huge": (
        with_number(with_number(ZEROS, 0, 1e38), 1, 1),
        "tensor 'a.in_sum2': an importance of 1e+38",
    ),
}


@pytest.mark.parametrize(("content", "place"), DAMAGED.values(), ids=DAMAGED)
def test_what_cannot_be_is_named(content: bytes, place: str, read: Read) -> None:
    with pytest.raises(Corrupt) as caught:
        read(content)

    assert place in caught.value.message
    assert "file is damaged" in caught.value.message


def test_a_file_too_large_for_any_matrix_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    with path.open("wb") as file:
        file.truncate(imatrix.MAX_FILE_SIZE + 1)

    with pytest.raises(Corrupt, match="at most"):
        read_imatrix(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        read_imatrix(tmp_path / "none")
    with pytest.raises(UsageError):
        read_imatrix(tmp_path)


FORMS = {
    "gguf": encode_imatrix(activations(), dataset="text.txt"),
    "legacy": legacy_matrix(
        [("ab", 4, [8, 2]), ("b", 1, [3])], legacy_tail(5, b"text")
    ),
}
# A legacy file may end behind its entries, or behind the chunks.
ALLOWED_ENDS = {"gguf": (), "legacy": (8, 12)}


@pytest.mark.parametrize("form", FORMS)
def test_cut_at_every_byte_it_is_damaged(form: str, read: Read) -> None:
    content = FORMS[form]

    for end in range(len(content)):
        if len(content) - end in ALLOWED_ENDS[form]:
            read(content[:end])
            continue
        with pytest.raises(Corrupt):
            read(content[:end])


@pytest.mark.parametrize("form", FORMS)
def test_flipped_bytes_let_only_our_errors_escape(form: str, read: Read) -> None:
    content, draw = FORMS[form], random.Random(0)
    seen = set()

    for _ in range(400):
        changed = bytearray(content)
        for _ in range(draw.choice((1, 1, 2, 8))):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        try:
            matrix = read(bytes(changed))
        except WizardEdgeError as err:
            seen.add(type(err))
        else:
            for values in matrix.values.values():
                assert np.isfinite(values).all()
                assert (values >= 0).all()

    assert seen == {Corrupt}


def test_weights_come_as_the_tensor_is_shaped() -> None:
    values = {"a": np.arange(6, dtype=np.float32), "token_embd.weight": np.ones(3, "f")}
    matrix = ImportanceMatrix(values, None, None, Path("m.gguf"))

    weights = matrix.weights("a", columns=2, experts=3)

    assert weights is not None
    assert weights.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert matrix.weights("b", columns=2) is None
    # llama.cpp passes over the embedding of another size, and over nothing else.
    assert matrix.weights("token_embd.weight", columns=4) is None
    with pytest.raises(CannotConvert, match=r"m\.gguf is of another model: a has 8"):
        matrix.weights("a", columns=8)


def test_the_quantizer_notes_where_the_weights_came_from() -> None:
    values = {"a": np.ones(1, "f")}
    full = ImportanceMatrix(values, "t" * 126 + "ää", 3, Path("m.gguf"))
    bare = ImportanceMatrix(values, None, None, Path("m.gguf"))

    notes = [(note.key, note.type.name, note.value) for note in quantizer_notes(full)]

    assert notes == [
        ("quantize.imatrix.file", "STRING", "m.gguf"),
        # 127 bytes, and no half character.
        ("quantize.imatrix.dataset", "STRING", "t" * 126),
        ("quantize.imatrix.entries_count", "UINT32", 1),
        ("quantize.imatrix.chunks_count", "UINT32", 3),
    ]
    assert [note.key.split(".")[-1] for note in quantizer_notes(bare)] == [
        "file",
        "entries_count",
    ]


def test_a_file_that_is_there_is_replaced_only_when_told_to(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"precious")

    with pytest.raises(UsageError):
        ImatrixWriter().write(path, activations(), dataset="t")
    assert path.read_bytes() == b"precious"
    ImatrixWriter(overwrite=True).write(path, activations(), dataset="t")

    assert read_imatrix(path).dataset == "t"
    assert list(tmp_path.iterdir()) == [path]
