"""Writes files of known size in pieces of known place, and puts them in their place.

The pieces go to temporary names in the folder of the destination; the files get
their own names when all is written and on the disk. A journal beside them says what
is final: a run that was killed is continued by the next of the same plan.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from wizard_edge.errors import (
    CannotConvert,
    Corrupt,
    MissingFile,
    Refused,
    UsageError,
)
from wizard_edge.files import move_into_place
from wizard_edge.locking import Busy, exclusive
from wizard_edge.part_files import (
    FULL,
    TOO_LARGE,
    PartFile,
    allocated,
    check_space,
    raise_full,
)
from wizard_edge_converters.journal import Journal

_FILE_TOO_LARGE = f"{TOO_LARGE}: --split-max-size makes several"


class PartFiles:
    """The part files of a plan, one per output in their order, and their journal."""

    def __init__(self, parts: Sequence[PartFile], journal: Journal) -> None:
        self.parts = parts
        self.journal = journal

    def sync(self) -> None:
        """Have all that was written on the disk, the journal last."""
        for part in self.parts:
            part.sync()
        self.journal.sync()


def check_output(output: Path, *, overwrite: bool) -> None:
    """See that `output` can be written. Raises: MissingFile; UsageError."""
    if not output.parent.is_dir():
        raise MissingFile(output.parent, hint="the output's folder must exist")
    if output.is_dir():
        raise UsageError(f"the output is a directory: {output}")
    if output.exists() and not output.is_file():
        raise UsageError(f"the output is no regular file: {output}")
    if output.exists() and not overwrite:
        raise UsageError(
            f"the output is there already: {output}",
            hint="name another file, or replace it with --overwrite",
        )


@contextmanager
def replacing(
    outputs: Sequence[Path],
    sizes: Sequence[int],
    key: str,
    *,
    keep: bool,
    folder: Path | None = None,
) -> Iterator[PartFiles]:
    """Give part files that become `outputs` when the block ends well.

    `key` tells plans apart. `folder` is where the parts lie, on the file system of
    the outputs; None means beside them. After an error all is removed, or with `keep`
    left for the next run, unless bytes were found to be wrong.
    Raises: NotEnough; Corrupt when the disk fails; Refused when the folder cannot be
    written to, or another process makes the same files.
    """
    paths = [
        _part_path(output, key, number, folder) for number, output in enumerate(outputs)
    ]
    journal_path = paths[0].with_suffix(".journal")
    needed = sum(sizes) - sum(map(allocated, paths))
    check_space(outputs[0].parent, needed, hint="another folder or a smaller quant")
    with _locked(outputs[0], journal_path.with_suffix(".lock")):
        done = False
        try:
            with contextlib.ExitStack() as opened:
                journal = opened.enter_context(
                    contextlib.closing(Journal(journal_path, key))
                )
                parts = [
                    opened.enter_context(contextlib.closing(_part_file(path, size)))
                    for path, size in zip(paths, sizes, strict=True)
                ]
                for part in parts:
                    part.reserve()
                yield PartFiles(parts, journal)
            for path, output in zip(paths, outputs, strict=True):
                move_into_place(path, output)
            done = True
        except (Corrupt, CannotConvert):
            # Whoever goes on would come to the same.
            keep = False
            raise
        except OSError as err:
            # What the system says is written may not be on a disk that fails.
            keep = keep and err.errno != errno.EIO
            raise_full(paths[0], sum(sizes), err, too_large=_FILE_TOO_LARGE)
        finally:
            if done or not keep:
                for path in (*paths, journal_path):
                    with contextlib.suppress(FileNotFoundError):
                        path.unlink()


@contextmanager
def _locked(output: Path, path: Path) -> Iterator[None]:
    """Keep other processes from making the same files meanwhile."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(exclusive(path))
        except Busy as err:
            raise Refused(
                f"another process is making {output.name} in {output.parent}",
                hint="wait until it is done",
            ) from err
        except OSError as err:
            if err.errno in (*FULL, errno.EIO):
                raise_full(output, 1, err)
            raise Refused(
                f"cannot write in {output.parent}: {err.strerror}",
                hint="check who owns the folder, or choose another",
            ) from err
        yield


def _part_file(path: Path, size: int) -> PartFile:
    return PartFile(path, size, too_large=_FILE_TOO_LARGE)


def _part_path(output: Path, key: str, number: int, folder: Path | None) -> Path:
    if folder is not None:
        return folder / f"{key[:32]}.{number}.part"
    # Short, since a name has 255 bytes at most; in the same folder, to be renamed.
    # Numbered, since long names of several outputs may differ in their end alone.
    return output.with_name(f".{output.name[:64]}.{key[:16]}.{number}.part")
