"""docs/licences.md says of each licence what the program says."""

from __future__ import annotations

import re
from pathlib import Path

from wizard_edge.licenses import summary_of
from wizard_edge.registry import Registry

PAGE = Path(__file__).resolve().parent.parent / "docs" / "licences.md"
LICENSES = Registry.load().licenses
WORDS = {True: "yes", False: "no", None: "unclear"}


def test_the_summaries_are_those_that_are_hashed() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("## Each licence")[2]

    blocks = re.findall(r"```\n(.*?)```", text, re.DOTALL)

    assert blocks == [summary_of(license) for license in LICENSES]


def test_the_table_has_a_row_for_each() -> None:
    rows = [
        f"| `{item.id}` | {f'[{item.name}]({item.url})' if item.url else item.name} "
        f"| {WORDS[item.commercial]} |"
        for item in LICENSES
    ]

    assert "\n".join(rows) in PAGE.read_text(encoding="utf-8")
