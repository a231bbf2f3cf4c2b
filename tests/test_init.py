from __future__ import annotations

import subprocess
import sys

import pytest

import wizard_edge


@pytest.mark.parametrize("name", wizard_edge.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(wizard_edge, name).__name__ == name


def test_what_a_program_needs_can_be_imported() -> None:
    assert wizard_edge.__all__ == [
        "Chat",
        "Chunk",
        "Conversation",
        "ModelEngine",
        "Sampling",
        "Settings",
        "WizardEdgeError",
        "open_chat",
        "open_engine",
    ]


def test_another_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="'Registry'"):
        wizard_edge.Registry  # noqa: B018


def test_importing_the_package_imports_none_of_it() -> None:
    code = "import sys, wizard_edge; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )

    ours = {name for name in done.stdout.split() if name.startswith("wizard_edge")}
    assert ours == {"wizard_edge"}
