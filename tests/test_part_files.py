from __future__ import annotations

from pathlib import Path

import pytest

from wizard_edge import part_files
from wizard_edge.part_files import PartFile, allocated


def test_room_is_set_aside(tmp_path: Path) -> None:
    part = PartFile(tmp_path / "a.part", 3 << 20)

    part.allocate()
    part.close()

    assert part.path.stat().st_size == 3 << 20
    assert allocated(part.path) in (0, 3 << 20)


def test_a_system_without_such_calls_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As musl, which has one of them under another name, or macOS."""
    monkeypatch.setattr(part_files, "_libc_call", lambda name: None)
    part = PartFile(tmp_path / "a.part", 10)

    part.allocate()
    part.write(3, b"abc")
    part.begin_sync(0, 10)
    part.sync()
    found = part.read(0, 10)
    part.close()

    assert found == bytes(3) + b"abc" + bytes(4)
