"""Safetensors headers are read strictly: ranges meet, keys are single, sizes agree."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.converters.checkpoints import safetensors_bytes
from wizard_edge.errors import CannotConvert, Corrupt, WizardEdgeError
from wizard_edge.gguf_types import GgmlType
from wizard_edge_converters.checkpoint import StoredTensor
from wizard_edge_converters.safetensors import MAX_HEADER, SafetensorsFile
from wizard_edge_converters.source_files import SourceFile


def read_all(path: Path) -> dict[str, tuple[StoredTensor, bytes]]:
    file = SafetensorsFile(SourceFile(path), path.name)
    try:
        return {
            tensor.name: (tensor, file.read(tensor, 0, tensor.elements))
            for tensor in file.tensors
        }
    finally:
        file.close()


def entry(first: object, last: object, **other: object) -> dict[str, object]:
    return {"dtype": "F16", "shape": [2], "data_offsets": [first, last]} | other


def test_reads_what_the_library_writes(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    values: dict[str, NDArray[np.generic]] = {
        "b": np.arange(6, dtype=np.float16).reshape(2, 3),
        "a": np.arange(3, dtype=np.float32),
    }
    save_file(values, path, metadata={"format": "pt"})

    found = read_all(path)

    assert {name: data for name, (_, data) in found.items()} == {
        name: value.tobytes() for name, value in values.items()
    }
    assert found["b"][0].type is GgmlType.F16
    assert found["b"][0].shape == (2, 3)


BAD: dict[str, tuple[dict[str, object], int]] = {
    "gap": ({"a": entry(0, 4), "b": entry(6, 10)}, 10),
    "gap-at-the-start": ({"a": entry(2, 6)}, 6),
    "overlap": ({"a": entry(0, 4), "b": entry(2, 6)}, 6),
    "same-range": ({"a": entry(0, 4), "b": entry(0, 4)}, 4),
    "beyond-the-file": ({"a": entry(0, 4)}, 3),
    "bytes-left-over": ({"a": entry(0, 4)}, 5),
    "wrong-size": ({"a": entry(0, 6)}, 6),
    "backwards": ({"a": entry(4, 0)}, 4),
    "negative": ({"a": entry(-4, 0)}, 4),
    "no-number": ({"a": entry("0", 4)}, 4),
    "a-truth-value": ({"a": entry(False, 4)}, 4),
    "a-fraction": ({"a": entry(0, 4.0)}, 4),
    "three-offsets": (
        {"a": {"dtype": "F16", "shape": [2], "data_offsets": [0] * 3}},
        4,
    ),
    "no-offsets": ({"a": {"dtype": "F16", "shape": [2]}}, 4),
    "no-shape": ({"a": {"dtype": "F16", "data_offsets": [0, 4]}}, 4),
    "negative-shape": ({"a": entry(0, 4, shape=[-2])}, 4),
    "huge-shape": ({"a": entry(0, 4, shape=[1 << 40, 1 << 40])}, 4),
    "no-object": ({"a": 1}, 4),
    "no-dtype": ({"a": entry(0, 4, dtype=1)}, 4),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_headers_are_refused(case: str, tmp_path: Path) -> None:
    header, size = BAD[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes(header, bytes(size)))

    with pytest.raises(Corrupt, match=r"model\.safetensors"):
        read_all(path)


BAD_TEXT = {
    "key-twice": '{"a":%s,"a":%s}' % ((json.dumps(entry(0, 4)),) * 2),
    "inner-key-twice": '{"a":{"dtype":"F16","dtype":"F16"}}',
    "nested": "[" * 100_000,
    "nested-a-little": '{"a":' + "[" * 40 + "]" * 40 + "}",
    "half-a-million-values": '{"a":[' + "[]," * 500_000 + "[]]}",
    "half-a-letter": '{"__metadata__":{"a":"\\ud800"}}',
    "list": "[]",
    "not-a-number": '{"a": NaN}',
    "long-number": '{"a": ' + "9" * 10_000 + "}",
    "empty": "",
}


@pytest.mark.parametrize("case", BAD_TEXT)
def test_bad_json_is_refused(case: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes(BAD_TEXT[case], bytes(4)))

    with pytest.raises(Corrupt, match=r"model\.safetensors"):
        read_all(path)


@pytest.mark.parametrize(
    "length", [1, MAX_HEADER, MAX_HEADER + 1, 1 << 40, (1 << 64) - 1]
)
def test_a_header_longer_than_the_file_is_refused(length: int, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length))

    with pytest.raises(Corrupt):
        read_all(path)


def test_integer_weights_cannot_be_converted(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes({"a": entry(0, 4, dtype="I16")}, bytes(4)))

    with pytest.raises(CannotConvert, match="'I16'"):
        read_all(path)


def test_every_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    data = safetensors_bytes({"a": entry(0, 4), "b": entry(4, 8)}, bytes(8))

    for end in range(len(data)):
        path.write_bytes(data[:end])
        with pytest.raises(Corrupt):
            read_all(path)


def test_only_our_errors_escape_from_changed_bytes(tmp_path: Path) -> None:
    source = random.Random(3)
    path = tmp_path / "model.safetensors"
    data = safetensors_bytes({"a": entry(0, 4), "b": entry(4, 8)}, bytes(8))

    for _ in range(2_000):
        changed = bytearray(data)
        for _ in range(source.randint(1, 3)):
            changed[source.randrange(len(changed))] = source.randrange(256)
        # A new file each time: rewriting one makes ext4 wait for the disk.
        path.unlink(missing_ok=True)
        path.write_bytes(changed)
        try:
            read_all(path)
        except WizardEdgeError:
            continue
