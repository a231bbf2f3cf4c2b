"""What a repository holds, read from the hub's answer, every string of it parsed."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from wizard_edge.errors import HubError, NotFound
from wizard_edge.names import BlobId, CommitId, RelPath, RepoId, Sha256

_logger = logging.getLogger(__name__)
# The largest file of a size that a 64-bit offset can name.
_MAX_SIZE = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class RemoteFileInfo:
    """A file as the hub describes it; `size` in bytes.

    Large files have the sha256 of their content, small ones its git blob.
    """

    path: RelPath
    size: int
    sha256: Sha256 | None = None
    blob: BlobId | None = None


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit, with the files whose names can be used."""

    repo: RepoId
    revision: CommitId
    files: Mapping[RelPath, RemoteFileInfo]

    def file(self, path: RelPath) -> RemoteFileInfo:
        """Return what is known of a file.

        Raises: NotFound.
        """
        found = self.files.get(path)
        if found is None:
            raise NotFound(
                f"no file {path!s} in {self.repo} at {self.revision[:12]}",
                hint=f"'hf:{self.repo}' has {len(self.files)} files",
            )
        return found


def parse_repository(repo: RepoId, answer: bytes, host: str) -> Repository:
    """Read the answer to `GET /api/models/{repo}?blobs=true`.

    Files whose names are no plain relative paths, or without a size, are left out.
    Raises: HubError for an answer of another form.
    Source: huggingface_hub 2.4.0, hf_api.py, ModelInfo.__init__.
    """
    try:
        found = json.loads(answer)
    # A deep nest of brackets is refused by the parser's own stack.
    except (ValueError, RecursionError) as err:
        raise _unclear(host, "is not JSON") from err
    commit = found.get("sha") if isinstance(found, dict) else None
    siblings = found.get("siblings") if isinstance(found, dict) else None
    if not isinstance(commit, str) or not CommitId.fits(commit):
        raise _unclear(host, "names no commit")
    if not isinstance(siblings, list):
        raise _unclear(host, "lists no files")
    files = _files(siblings, host)
    _note_left_out(repo, len(siblings) - len(files))
    return Repository(repo, CommitId(commit), MappingProxyType(files))


def _files(siblings: list[object], host: str) -> dict[RelPath, RemoteFileInfo]:
    if siblings and not any(_size(entry) is not None for entry in siblings):
        raise _unclear(host, "states the size of no file")
    files: dict[RelPath, RemoteFileInfo] = {}
    for entry in siblings:
        file = _file(entry)
        if file is None:
            continue
        if file.path in files:
            raise _unclear(host, f"lists {file.path} twice")
        files[file.path] = file
    return files


def _file(entry: object) -> RemoteFileInfo | None:
    """Read one sibling; None for a file that cannot be used."""
    size = _size(entry)
    if size is None or not isinstance(entry, dict):
        return None
    name, blob, lfs = entry.get("rfilename"), entry.get("blobId"), entry.get("lfs")
    if not isinstance(name, str) or not RelPath.fits(name):
        return None
    path = RelPath(name)
    if lfs is None:
        named = isinstance(blob, str) and BlobId.fits(blob)
        return RemoteFileInfo(path, size, blob=BlobId(blob) if named else None)
    digest = lfs.get("sha256") if isinstance(lfs, dict) else None
    named = isinstance(digest, str) and Sha256.fits(digest)
    # The blob of a large file is that of its pointer: no word on the content.
    return RemoteFileInfo(path, size, sha256=Sha256(digest) if named else None)


def _size(entry: object) -> int | None:
    size = entry.get("size") if isinstance(entry, dict) else None
    if isinstance(size, bool) or not isinstance(size, int):
        return None
    return size if 0 <= size <= _MAX_SIZE else None


def _note_left_out(repo: RepoId, count: int) -> None:
    if count:
        _logger.info("hub files left out: repo=%s count=%d", repo, count)


def _unclear(host: str, problem: str) -> HubError:
    return HubError(
        f"the answer of {host} {problem}",
        hint="is HF_ENDPOINT the address of a Hugging Face hub?",
    )
