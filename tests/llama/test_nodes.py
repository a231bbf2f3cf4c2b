"""The declaration of llama.cpp's tensors is compared with the library's own."""

from __future__ import annotations

import ctypes

import pytest

from wizard_edge._llama import nodes
from wizard_edge.errors import BackendError


class _Other(ctypes.Structure):
    pass


def test_the_declaration_is_that_of_the_library() -> None:
    assert nodes.check_layout() is not None


def test_another_layout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A field more before the name: what a later llama.cpp might well have."""
    fields = [(name, kind) for name, kind, *_ in nodes._Tensor._fields_]
    at = [name for name, _ in fields].index("name")
    _Other._fields_ = [*fields[:at], ("news", ctypes.c_int64), *fields[at:]]
    pointer = ctypes.POINTER(_Other)
    changed = {
        name: (
            pointer if result is nodes._Pointer else result,
            [pointer if kind is nodes._Pointer else kind for kind in arguments],
        )
        for name, (result, arguments) in nodes._FUNCTIONS.items()
    }
    monkeypatch.setattr(nodes, "_Tensor", _Other)
    monkeypatch.setattr(nodes, "_FUNCTIONS", changed)

    try:
        with pytest.raises(BackendError, match="lie in memory in another way"):
            nodes.check_layout.__wrapped__()
    finally:
        # ggml's functions are declared once for the process.
        monkeypatch.undo()
        nodes.check_layout.__wrapped__()
