"""Reads the header of a GGUF file that is not on this machine."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from wizard_edge.errors import Corrupt, UsageError
from wizard_edge.gguf import Header, read_header
from wizard_edge.hub import Hub
from wizard_edge.receipts import Piece

# A header is looked for in so much of a file, then in more. The vocabulary of LLaMA
# takes 0.7 MB, that of Llama 3 with its merges 8.
_HEADS = (1 << 20, 4 << 20, 16 << 20)


def read_remote_header(hub: Hub, piece: Piece) -> Header | None:
    """Read the header of a file that is not here; None where it is too long.

    Raises: HubError, NotFound, Refused; Corrupt for what is no GGUF file.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "head.gguf"
        problem = None
        for size in _HEADS:
            with hub.open_piece(piece, 0, min(size, piece.size)) as stream:
                path.write_bytes(stream.read(size))
            try:
                return replace(read_header(path), file_size=piece.size)
            except Corrupt as err:
                problem = err
            if size >= piece.size:
                raise Corrupt(piece.path or "the file", problem.problem)
    return None


def quant_inside(hub: Hub, piece: Piece) -> str:
    """Return the quant that a file states. Raises: UsageError where it does not."""
    header = read_remote_header(hub, piece)
    if header is None or header.quant is None:
        raise UsageError(
            f"{piece.path or piece.url} does not say which quant it is",
            hint="fetch it by other means, then 'wizard-edge import FILE'",
        )
    return header.quant
