"""Values that come from outside, parsed once at the border.

A hash, a commit, a repository or a file name inside one is text until it went
through here; everything further in may rely on its form. Turning such a value
into a path happens in one place only: `paths.place`.
"""

from __future__ import annotations

import re
from typing import Self

from wizard_edge.errors import UsageError

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# Owner and name as the hub allows them; no leading dot or dash, no "..".
_REPO_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_MODEL = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')
# Device names of Windows: a file so called cannot be copied to such a machine.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_MAX_PATH_PART = 200


class _Name(str):
    """A str whose form was checked by `parse`."""

    __slots__ = ()
    what = "name"

    @classmethod
    def parse(cls, text: object) -> Self:
        """Check the form. Raises: UsageError naming the value."""
        if not isinstance(text, str) or not cls.fits(text):
            raise UsageError(f"not a {cls.what}: {_shown(text)}")
        return cls(text)

    @classmethod
    def fits(cls, text: str) -> bool:
        """Tell whether `parse` would take the text."""
        raise NotImplementedError


class Sha256(_Name):
    """64 lower-case hex digits."""

    what = "sha256 (64 lower-case hex digits)"

    @classmethod
    def fits(cls, text: str) -> bool:
        return _SHA256.fullmatch(text) is not None


class CommitId(_Name):
    """A full commit of a repository: 40 lower-case hex digits."""

    what = "commit (40 lower-case hex digits)"

    @classmethod
    def fits(cls, text: str) -> bool:
        return _COMMIT.fullmatch(text) is not None


class BlobId(_Name):
    """What git calls the content of one file: 40 lower-case hex digits."""

    what = "git blob (40 lower-case hex digits)"

    @classmethod
    def fits(cls, text: str) -> bool:
        return _COMMIT.fullmatch(text) is not None


class RepoId(_Name):
    """`owner/name` of a repository on the hub."""

    what = "repository (owner/name)"

    @classmethod
    def fits(cls, text: str) -> bool:
        parts = text.split("/")
        return (
            len(parts) == 2
            and all(_REPO_PART.fullmatch(part) for part in parts)
            and not any(_DEVICES.fullmatch(part) for part in parts)
            and ".." not in text
            and "--" not in text
        )


class ModelName(_Name):
    """The name of a model in the registry and of its folder in the store."""

    what = "model name (lower-case letters, digits, '.', '_', '-')"

    @classmethod
    def fits(cls, text: str) -> bool:
        return (
            _MODEL.fullmatch(text) is not None
            and ".." not in text
            and not _DEVICES.fullmatch(text)
        )


class SessionName(ModelName):
    """The name of a conversation that is kept, and of its folder."""

    what = "session name (lower-case letters, digits, '.', '_', '-')"


class RelPath(_Name):
    """A relative path with `/` between its parts that stays where it is put."""

    what = "plain relative path"

    @classmethod
    def fits(cls, text: str) -> bool:
        return (
            0 < len(text) <= 4 * _MAX_PATH_PART
            and text.isprintable()
            and not _FORBIDDEN.search(text)
            and all(_plain_part(part) for part in text.split("/"))
        )


def _plain_part(part: str) -> bool:
    return (
        0 < len(part) <= _MAX_PATH_PART
        and not part.startswith((".", " ", "-"))
        and not part.endswith((".", " "))
        and not _DEVICES.fullmatch(part)
        and part.encode("utf-8", "replace").decode("utf-8") == part
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
