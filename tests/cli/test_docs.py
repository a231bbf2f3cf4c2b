from __future__ import annotations

from tools.cli_docs import EXIT_CODES, PAGE, page
from wizard_edge import errors
from wizard_edge.cli._failures import BROKEN_PIPE


def test_the_page_is_what_the_commands_say() -> None:
    """When this fails: python tools/cli_docs.py."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_every_exit_code_is_explained() -> None:
    raised = {getattr(errors, name).exit_code for name in errors.__all__}

    assert set(EXIT_CODES) == raised | {0, 1, BROKEN_PIPE}
