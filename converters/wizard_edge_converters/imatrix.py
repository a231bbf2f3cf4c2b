"""Importance matrices: both file forms of llama.cpp are read, the GGUF form written.

GGUF form: for each weight a tensor `NAME.in_sum2`, the sums of squared activations,
(experts, columns) float32, and `NAME.counts`, of how many tokens, (experts, 1);
metadata says which texts were read, in how many chunks of how many tokens.

Legacy form, little endian: count of entries i32; each entry: length of the name i32,
name, calls i32, count of values i32, values float32, which are sums of means over the
calls. Then, where the writer was not too old, chunks i32 and the name of the text with
its length i32 before it.

Source: llama.cpp 0c1e57098, common/imatrix-loader.cpp, tools/imatrix/imatrix.cpp and
tools/quantize/quantize.cpp (`load_imatrix`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from wizard_edge._llama.activations import Activations
from wizard_edge.errors import CannotConvert, Corrupt
from wizard_edge.files import open_regular, write_atomically
from wizard_edge.gguf import (
    MAGIC,
    MAX_NAME_SIZE,
    MAX_TENSORS,
    Header,
    TensorInfo,
    ValueType,
    align,
    read_header,
    read_strings,
)
from wizard_edge.gguf_cursor import shown
from wizard_edge.gguf_types import ArrayValue, GgmlType
from wizard_edge_converters.entries import Entry
from wizard_edge_converters.header import TensorEntry, lay_out
from wizard_edge_converters.writer import check_output

KEY_TYPE = "general.type"
KEY_DATASETS = "imatrix.datasets"
KEY_CHUNK_COUNT = "imatrix.chunk_count"
KEY_CHUNK_SIZE = "imatrix.chunk_size"
TYPE = "imatrix"
SUMS = ".in_sum2"
COUNTS = ".counts"

# What llama.cpp's quantizer notes in the file it makes; it cuts texts to this size.
# Source: llama.cpp 0c1e57098, include/llama.h, struct llama_model_kv_override.
MAX_NOTE_SIZE = 127

# Source: llama.cpp 0c1e57098, src/llama-quant.cpp, `tensor_name_match_token_embd`.
EMBEDDING = "token_embd.weight"

# Our own bounds. WizardLM-2 8x22B has the largest matrix of the family, 46 MB.
MAX_FILE_SIZE = 1 << 30
MAX_DATASET_SIZE = 1 << 16
# ggml adds up products of a weight of the model, squared, and its importance: from
# 1e38 on some of its quantizers overflow and abort the process (seen with IQ3_S).
# Real ones are means of squared activations, below 1e9.
MAX_IMPORTANCE = 1e20
# Counts are float32 in the file; beyond this they would be no whole numbers in ours.
MAX_COUNT = 1 << 53

_I32 = Struct("<i")
_FLOAT = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class ImportanceMatrix:
    """How much every column of a weight matters, ready for ggml's quantizers.

    `values` has (columns * experts,) float32 by tensor name, one expert after another.
    `dataset` is the first text named, `chunks` how many pieces of it were read; None
    where the file does not say.
    """

    values: Mapping[str, NDArray[np.float32]]
    dataset: str | None
    chunks: int | None
    path: Path

    def weights(
        self, name: str, *, columns: int, experts: int = 1
    ) -> NDArray[np.float32] | None:
        """Return (experts, columns) for a tensor, None where the matrix lacks it.

        A token embedding of another size counts as lacking: llama.cpp passes over it.
        Raises: CannotConvert when any other has another size.
        """
        values = self.values.get(name)
        if values is None:
            return None
        if len(values) == columns * experts:
            return values.reshape(experts, columns)
        if name == EMBEDDING:
            return None
        raise CannotConvert(
            f"{self.path} is of another model: {name} has {columns * experts} columns, "
            f"not {len(values)}"
        )


@dataclass(frozen=True, slots=True)
class ImatrixWriter:
    """Writes matrices for the service layer; `overwrite` replaces what is there."""

    overwrite: bool = False

    def check(self, output: Path) -> None:
        """See that `output` can be written. Raises: MissingFile; UsageError."""
        check_output(output, overwrite=self.overwrite)

    def write(self, output: Path, activations: Activations, *, dataset: str) -> int:
        """Write the file and return its size in bytes. Raises: NotEnough; Refused."""
        self.check(output)
        return write_imatrix(output, activations, dataset=dataset)


def read_imatrix(path: Path) -> ImportanceMatrix:
    """Read a matrix of either form, weighed as llama.cpp's quantizer weighs it.

    Raises: MissingFile; UsageError for what is no regular file; Corrupt naming the
    tensor, entry or key where the file is cut short or says what cannot be.
    """
    with _opened(path) as (file, size):
        if size > MAX_FILE_SIZE:
            raise Corrupt(path, f"{size} bytes, at most {MAX_FILE_SIZE} are allowed")
        if file.read(len(MAGIC)) == MAGIC:
            return _read_gguf(path, file)
        file.seek(0)
        return _Legacy(path, file, size).read()


def write_imatrix(path: Path, activations: Activations, *, dataset: str) -> int:
    """Write the GGUF form as llama.cpp's tool does and return its size in bytes.

    The file replaces one of its name whole or not at all.
    Raises: NotEnough; Refused.
    """
    content = encode_imatrix(activations, dataset=dataset)
    write_atomically(path, content)
    return len(content)


def encode_imatrix(activations: Activations, *, dataset: str) -> bytes:
    """Encode the GGUF form: tensors by name, each weight's sums before its counts.

    The count of chunks follows from the counts of tokens, as llama.cpp's does.
    """
    tensors: list[tuple[TensorEntry, NDArray[np.generic]]] = []
    for name, sums in sorted(activations.sums.items()):
        tensors.append(_tensor(name + SUMS, sums.in_sum2))
        tensors.append(_tensor(name + COUNTS, sums.counts.reshape(-1, 1)))
    most = max(int(sums.counts.max()) for sums in activations.sums.values())
    entries = (
        Entry(KEY_TYPE, ValueType.STRING, TYPE),
        Entry(KEY_DATASETS, ValueType.ARRAY, [dataset], ValueType.STRING),
        Entry(KEY_CHUNK_COUNT, ValueType.UINT32, most // activations.chunk_size),
        Entry(KEY_CHUNK_SIZE, ValueType.UINT32, activations.chunk_size),
    )
    layout = lay_out(entries, [entry for entry, _ in tensors])
    content = bytearray(layout.size)
    content[: len(layout.header)] = layout.header
    for entry, values in tensors:
        start = layout.offsets[entry.name]
        content[start : start + entry.size] = values.astype(_FLOAT).tobytes()
    return bytes(content)


def quantizer_notes(matrix: ImportanceMatrix) -> tuple[Entry, ...]:
    """List what llama.cpp's quantizer notes behind all other metadata of its result."""
    notes = [Entry("quantize.imatrix.file", ValueType.STRING, _cut(matrix.path.name))]
    if matrix.dataset is not None:
        text = _cut(matrix.dataset)
        notes.append(Entry("quantize.imatrix.dataset", ValueType.STRING, text))
    count = len(matrix.values)
    notes.append(Entry("quantize.imatrix.entries_count", ValueType.UINT32, count))
    if matrix.chunks is not None:
        key = "quantize.imatrix.chunks_count"
        notes.append(Entry(key, ValueType.UINT32, matrix.chunks))
    return tuple(notes)


def _cut(text: str) -> str:
    """Cut a text to what llama.cpp keeps, never inside a character as it may."""
    return text.encode()[:MAX_NOTE_SIZE].decode(errors="ignore")


def _tensor(
    name: str, values: NDArray[np.generic]
) -> tuple[TensorEntry, NDArray[np.generic]]:
    # One row is written as a vector.
    shape = values.shape if len(values) > 1 else values.shape[1:]
    return TensorEntry(name, shape, GgmlType.F32), values


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    with os.fdopen(open_regular(path), "rb") as file:
        yield file, os.fstat(file.fileno()).st_size


def _read_gguf(path: Path, file: BinaryIO) -> ImportanceMatrix:
    header = read_header(path)
    kind = header.text(KEY_TYPE)
    if kind not in (None, TYPE):
        header.fail(KEY_TYPE, f"is {shown(kind)}, should be {TYPE!r}")
    dataset = _dataset(header)
    chunks = _count(header, KEY_CHUNK_COUNT)
    _count(header, KEY_CHUNK_SIZE)
    pairs = list(_pairs(header))
    if not pairs:
        raise Corrupt(path, f"no tensor *{SUMS}: it is no importance matrix")
    _check_layout(header)
    values = {name: _weigh(header, file, sums, counts) for name, sums, counts in pairs}
    return ImportanceMatrix(values, dataset, chunks or None, path)


def _pairs(header: Header) -> Iterator[tuple[str, TensorInfo, TensorInfo]]:
    """Yield each weight's name with its sums and counts; other tensors are not ours."""
    tensors = {tensor.name: tensor for tensor in header.tensors}
    names = dict.fromkeys(
        name.removesuffix(suffix)
        for name in tensors
        for suffix in (SUMS, COUNTS)
        if name.endswith(suffix)
    )
    for name in names:
        for suffix in (SUMS, COUNTS):
            if name + suffix not in tensors:
                _fail(header, name, f"has no {suffix} beside it")
        yield name, tensors[name + SUMS], tensors[name + COUNTS]


def _weigh(
    header: Header, file: BinaryIO, sums: TensorInfo, counts: TensorInfo
) -> NDArray[np.float32]:
    """Divide the sums by the counts; an expert that saw no token has the weight 1."""
    squares = _read_floats(header, file, sums)
    tokens = _read_floats(header, file, counts)
    if len(squares) % len(tokens):
        problem = f"{len(squares)} values for {len(tokens)} counts"
        _fail(header, sums.name, problem)
    if tokens.max() > MAX_COUNT:
        _fail(header, counts.name, f"a count of {tokens.max()}")
    rows = squares.reshape(len(tokens), -1)
    # Rounded as lround does, half up.
    whole = np.floor(tokens.astype(np.float64) + 0.5).astype(np.float32)[:, None]
    values = np.where(whole > 0, rows / np.maximum(whole, 1), np.float32(1))
    if values.max() > MAX_IMPORTANCE:
        _fail(header, sums.name, f"an importance of {values.max():g}")
    return values.astype(np.float32, copy=False).reshape(-1)


def _read_floats(
    header: Header, file: BinaryIO, tensor: TensorInfo
) -> NDArray[np.float32]:
    if tensor.type is not GgmlType.F32:
        _fail(header, tensor.name, f"is {tensor.type.name}, should be F32")
    file.seek(header.data_offset + tensor.offset)
    data = file.read(tensor.size)
    if len(data) != tensor.size:
        _fail(header, tensor.name, "the file became shorter while it was read")
    values = np.frombuffer(data, dtype=_FLOAT)
    problem = _strange(values)
    if problem:
        _fail(header, tensor.name, problem)
    return values.astype(np.float32, copy=False)


def _strange(values: NDArray[np.float32]) -> str | None:
    """Say which value cannot be a sum of squares, None where all can."""
    bad = ~(np.isfinite(values) & (values >= 0))
    if not bad.any():
        return None
    index = int(bad.argmax())
    return f"value {index} is {values[index]}"


def _check_layout(header: Header) -> None:
    """Tensors follow each other without gap or overlap, to the end of the file."""
    expected = 0
    for tensor in header.tensors:
        if tensor.offset != expected:
            _fail(header, tensor.name, f"begins at {tensor.offset}, not at {expected}")
        expected = align(tensor.offset + tensor.size, header.alignment)
    end = header.data_offset + expected
    if end != header.file_size:
        raise Corrupt(
            header.path, f"it has {header.file_size} bytes, its tensors end at {end}"
        )


def _dataset(header: Header) -> str | None:
    value = header.metadata.get(KEY_DATASETS)
    if value is None:
        _miss(header, KEY_DATASETS)
    if not isinstance(value, ArrayValue):
        header.fail(KEY_DATASETS, f"is {header.kind(KEY_DATASETS)}, should be an array")
    names = read_strings(header, KEY_DATASETS)
    return names[0] if names else None


def _count(header: Header, key: str) -> int:
    number = header.integer(key)
    if number is None:
        _miss(header, key)
    if header.fields[key].type is not ValueType.UINT32:
        header.fail(key, f"is {header.kind(key)}, should be uint32")
    return number


def _miss(header: Header, key: str) -> NoReturn:
    raise Corrupt(header.path, "the key is missing", where=f"key {key!r}")


def _fail(header: Header, name: str, problem: str) -> NoReturn:
    raise Corrupt(header.path, problem, where=f"tensor {name!r}")


class _Legacy:
    """Walks through a file of the legacy form, believing no length it states."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self._path = path
        self._file = file
        self._size = size
        self._position = 0
        self._item = "the beginning"

    def read(self) -> ImportanceMatrix:
        count = self._number()
        if not 1 <= count <= MAX_TENSORS:
            self._fail(f"{count} entries, 1 to {MAX_TENSORS} are allowed")
        values: dict[str, NDArray[np.float32]] = {}
        for index in range(count):
            self._item = f"entry {index}"
            name = self._text(MAX_NAME_SIZE)
            if not name or name in values:
                self._fail(f"the name {shown(name)} is empty or there twice")
            self._item = f"entry {shown(name)}"
            values[name] = self._entry()
        self._item = "the end"
        chunks = self._number() if self._rest() else 0
        dataset = self._text(MAX_DATASET_SIZE) if self._rest() else ""
        if chunks < 0 or self._rest():
            self._fail(f"{chunks} chunks, and {self._rest()} bytes after the last")
        return ImportanceMatrix(values, dataset or None, chunks or None, self._path)

    def _entry(self) -> NDArray[np.float32]:
        """Read one entry: llama.cpp takes the sums as they are where calls are none."""
        calls, count = self._number(), self._number()
        if calls < 0 or count < 1:
            self._fail(f"{count} values of {calls} calls")
        sums = np.frombuffer(self._take(count * _FLOAT.itemsize), dtype=_FLOAT)
        problem = _strange(sums)
        if problem:
            self._fail(problem)
        values = sums / np.float32(calls or 1)
        if values.max() > MAX_IMPORTANCE:
            self._fail(f"an importance of {values.max():g}")
        return values.astype(np.float32, copy=False)

    def _number(self) -> int:
        number: int = _I32.unpack(self._take(_I32.size))[0]
        return number

    def _text(self, limit: int) -> str:
        size = self._number()
        if not 0 <= size <= limit:
            self._fail(f"a text of {size} bytes, at most {limit} are allowed")
        data = self._take(size)
        # llama.cpp takes what stands before a zero byte.
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self._fail(f"text that is not UTF-8: {shown(data)}")
        if "\0" in text:
            self._fail(f"a zero byte in {shown(text)}")
        return text

    def _rest(self) -> int:
        return self._size - self._position

    def _take(self, size: int) -> bytes:
        if size > self._rest():
            self._fail(f"{size} bytes are needed, {self._rest()} are left")
        data = self._file.read(size)
        if len(data) != size:
            self._fail("the file became shorter while it was read")
        self._position += size
        return data

    def _fail(self, problem: str) -> NoReturn:
        raise Corrupt(
            self._path, problem, where=f"{self._item}, offset {self._position}"
        )
