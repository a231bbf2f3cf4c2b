"""The stored digests are what llama.cpp's own converter gives, on this machine too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.reference.llama_cpp_digests import (
    STORE,
    find_converter,
    names,
    record,
    write,
)


@pytest.mark.parametrize("name", names())
def test_stored_digests_are_those_of_llama_cpp(name: str, tmp_path: Path) -> None:
    converter = find_converter()
    assert converter is not None, "no sources of llama.cpp: run tools/sources.py"

    found = record(converter, write(name, tmp_path), tmp_path)

    assert found == json.loads(STORE.read_text())[name]
