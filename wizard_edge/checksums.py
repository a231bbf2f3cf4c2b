"""`SHA256SUMS`: the hashes of the files of a folder, as `sha256sum -c` takes them.

A line is 64 hex digits, a space, a space or `*`, and the name of a file beside it.
What a file cut into pieces has as a whole stands in a comment of the same form, since
it is no file to check: `# <digits>  NAME`. Lines of another form say nothing to us.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wizard_edge.errors import Corrupt
from wizard_edge.files import open_regular
from wizard_edge.names import RelPath, Sha256

__all__ = ["FILE", "Checksums", "read_checksums"]

FILE = RelPath.parse("SHA256SUMS")

_LINE = re.compile(r"(?P<joined># )?(?P<sha256>[0-9a-f]{64}) [ *](?P<name>[^/\r]+)\r?")
# A line has 300 bytes at most, and a model 2,000 files.
_MAX_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class Checksums:
    """The hashes by name: of `files`, and of what pieces among them make `joined`."""

    files: Mapping[RelPath, Sha256] = field(default_factory=dict)
    joined: Mapping[RelPath, Sha256] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Write it as it lies beside the files."""
        lines = [f"{sha256}  {name}\n" for name, sha256 in self.files.items()]
        lines += [f"# {sha256}  {name}\n" for name, sha256 in self.joined.items()]
        return "".join(lines).encode()

    def whole(self, name: str) -> Sha256 | None:
        """Return the hash of a file, be it there or in pieces; None if not said."""
        if not RelPath.fits(name):
            return None
        path = RelPath.parse(name)
        return self.files.get(path) or self.joined.get(path)

    def check(self, path: Path, content: bytes) -> None:
        """See that a file is what stands here, if anything does. Raises: Corrupt."""
        said = self.whole(path.name)
        found = hashlib.sha256(content).hexdigest()
        if said not in (None, found):
            raise Corrupt(path, f"its SHA-256 is {found} instead of {said} in {FILE}")


def read_checksums(folder: Path) -> Checksums:
    """Read the hashes that lie in a folder; none where there is no such file.

    Raises: Corrupt for two hashes of one file; Refused, UsageError where it cannot
    be read.
    """
    path = folder / FILE
    if not os.path.lexists(path):
        return Checksums()
    with os.fdopen(open_regular(path), "rb") as file:
        content = file.read(_MAX_SIZE + 1)
    if len(content) > _MAX_SIZE:
        raise Corrupt(path, f"has more than {_MAX_SIZE} bytes")
    files: dict[RelPath, Sha256] = {}
    joined: dict[RelPath, Sha256] = {}
    for line in content.decode("utf-8", "replace").split("\n"):
        match = _LINE.fullmatch(line)
        if match is None or not RelPath.fits(match["name"]):
            continue
        name, sha256 = RelPath.parse(match["name"]), Sha256.parse(match["sha256"])
        if (joined if match["joined"] else files).setdefault(name, sha256) != sha256:
            raise Corrupt(path, f"has two hashes of {name}")
    return Checksums(files, joined)
