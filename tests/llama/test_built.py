from __future__ import annotations

from pathlib import Path

import pytest

from wizard_edge._llama.built import has_rpc, library_folder


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("libggml-rpc.so", True),
        ("libggml-rpc.so.0", True),
        ("libggml-rpc.dylib", True),
        ("ggml-rpc.dll", True),
        ("libggml-cpu.so", False),
        ("README-ggml-rpc.md", False),
    ],
)
def test_rpc_is_told_from_a_file(tmp_path: Path, name: str, expected: bool) -> None:
    (tmp_path / name).touch()

    assert has_rpc({"LLAMA_CPP_LIB_PATH": str(tmp_path)}) is expected


def test_a_folder_that_is_not_there_has_nothing(tmp_path: Path) -> None:
    assert has_rpc({"LLAMA_CPP_LIB_PATH": str(tmp_path / "none")}) is False


def test_the_binding_loads_from_its_own_folder() -> None:
    folder = library_folder({})

    assert folder is not None
    assert folder.parts[-2:] == ("llama_cpp", "lib")
    assert any("llama" in item.name for item in folder.iterdir())
