"""Opens what is to be converted, with its base where it is a delta."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wizard_edge.conversion import HubWeights, Weights
from wizard_edge.errors import NotEnough
from wizard_edge.names import CommitId
from wizard_edge_converters.checkpoint import Checkpoint
from wizard_edge_converters.delta import DeltaCheckpoint
from wizard_edge_converters.directory import Directory
from wizard_edge_converters.weights import FileCheckpoint, open_weights


@dataclass(frozen=True, slots=True)
class Opened:
    """An open checkpoint; `revision` is its commit on the hub, None elsewhere.

    `title` is what it is called where nobody says more. Of its weight files `fetched`
    bytes come from the hub and could be kept.
    """

    checkpoint: Checkpoint
    title: str
    revision: CommitId | None = None
    fetched: int = 0


@contextmanager
def open_source(
    source: Weights,
    base: Weights | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    keep: Path | None = None,
) -> Iterator[Opened]:
    """Open a checkpoint, or the sum of a weight delta and its base.

    `environ` says how to reach the hub. `keep` is a folder for the files that are
    streamed, None to keep none.
    Raises: MissingFile, HubError, Refused, CannotConvert, Corrupt.
    """
    with contextlib.ExitStack() as opened:
        checkpoint: Checkpoint
        revision: CommitId | None = None
        fetched = 0
        if isinstance(source, HubWeights):
            checkpoint, revision = _open_remote(
                source, environ or {}, in_order=True, keep=keep
            )
            title = source.repo.partition("/")[2]
            fetched = checkpoint.size
        else:
            checkpoint = open_weights(Directory(source))
            title = source.absolute().name
        opened.callback(checkpoint.close)
        if base is not None:
            added = _open_base(base, environ or {})
            opened.callback(added.close)
            checkpoint = DeltaCheckpoint(checkpoint, added)
        yield Opened(checkpoint, title, revision, fetched)


def _open_base(base: Weights, environ: Mapping[str, str]) -> FileCheckpoint:
    if isinstance(base, HubWeights):
        # A base is read in the order of the delta, not in its own.
        return _open_remote(base, environ, in_order=False)[0]
    return open_weights(Directory(base))


def _open_remote(
    source: HubWeights,
    environ: Mapping[str, str],
    *,
    in_order: bool,
    keep: Path | None = None,
) -> tuple[FileCheckpoint, CommitId]:
    # Imported here: converting a directory needs no network code.
    from wizard_edge.hub import Hub
    from wizard_edge_converters.remote import RemoteFolder

    hub = Hub.from_environment(environ)
    repository = hub.repository(source.repo, source.revision)
    folder = RemoteFolder(hub, repository, in_order=in_order, keep=keep)
    checkpoint = open_weights(folder)
    try:
        folder.check_room(checkpoint.files)
    except NotEnough:
        checkpoint.close()
        raise
    return checkpoint, repository.revision
