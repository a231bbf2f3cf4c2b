"""Opens what is to be converted, with its base where it is a delta."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wizard_edge_converters.checkpoint import Checkpoint
from wizard_edge_converters.delta import DeltaCheckpoint
from wizard_edge_converters.directory import open_checkpoint


@contextmanager
def open_source(source: Path, base: Path | None = None) -> Iterator[Checkpoint]:
    """Open a checkpoint, or the sum of a weight delta and its base.

    Raises: as `open_checkpoint` and `DeltaCheckpoint`.
    """
    with contextlib.ExitStack() as opened:
        checkpoint: Checkpoint = opened.enter_context(open_checkpoint(source))
        if base is not None:
            added = opened.enter_context(open_checkpoint(base))
            checkpoint = DeltaCheckpoint(checkpoint, added)
        yield checkpoint
