"""The command line. One file per command, loaded when it is called.

A command function reads options, calls one function of `service` (or of the
converters), hands the result to the output and returns.
"""

from __future__ import annotations


def main() -> None:
    """Run the command in `sys.argv` and exit with its code."""
    # Imported here, so that a part of this package costs no more than itself.
    from wizard_edge.cli._huge_pages import start_again

    start_again()
    from wizard_edge.cli._root import root

    root.main()
