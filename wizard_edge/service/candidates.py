"""What is to be brought into the store: its files, and what lies beside them says.

A receipt (`FILE.gguf.json`) and `SHA256SUMS`, as `export` writes them, are read where
they are there. Both are somebody's word until the bytes were hashed.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from wizard_edge.checksums import Checksums, read_checksums
from wizard_edge.chunks import Grid
from wizard_edge.errors import ConfigError, Corrupt, UsageError
from wizard_edge.files import open_regular
from wizard_edge.gguf import Header
from wizard_edge.gguf_parts import (
    Whole,
    find_file,
    first_name,
    is_numbered,
    model_stem,
    read_model,
)
from wizard_edge.names import RelPath, RepoId, Sha256
from wizard_edge.receipts import MAX_SIZE, Origin, Piece, Receipt, parse_receipt
from wizard_edge.receipts import SUFFIX as RECEIPT_SUFFIX
from wizard_edge.refs import QUANTS, parse_quant
from wizard_edge.service.notices import exported_texts

_QUANT = re.compile(rf"[._:-]({'|'.join(QUANTS)})$", re.IGNORECASE)
_HERE = Origin("local")
# Enough to choose from on one line.
_FEW = 5

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GivenFile:
    """The files that make one file of the store, end to end, and what is said of them.

    `sizes` and `hashes` are those of `paths`, `sha256` is that of all joined, None
    where nobody says. `fetched` is what the file was once fetched as.
    """

    paths: tuple[Path, ...]
    sizes: tuple[int, ...]
    hashes: tuple[Sha256 | None, ...]
    sha256: Sha256 | None = None
    fetched: tuple[Piece, ...] = ()

    @property
    def size(self) -> int:
        return sum(self.sizes)

    @property
    def grid(self) -> Grid:
        """The chunks to sum up: those of what was fetched, as far as that is known."""
        if self.fetched:
            return Grid([piece.size for piece in self.fetched])
        # What was cut to be carried was not fetched so.
        return Grid([self.size] if is_numbered(self.paths[0].name) else self.sizes)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may come in.

    `names` are what it may be known by, the likeliest first; `title` is the last
    resort. `parameters` are those of all files. `receipt` is the one beside it.
    `origin` says where it came from, `repo` and `path` as which file of the hub it may
    be known. `texts` are the licence texts that are known to be of it.
    """

    header: Header
    names: tuple[str, ...]
    title: str
    quant: str
    files: tuple[GivenFile, ...]
    parameters: int
    receipt: Receipt | None = None
    origin: Origin = _HERE
    repo: RepoId | None = None
    path: RelPath | None = None
    texts: Mapping[RelPath, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def find_candidate(path: Path) -> Candidate:
    """Find the model that a file, a piece of it, or an exported folder stands for.

    Raises: MissingFile; Corrupt; UsageError for a folder of several models or none,
    or where nobody says the quant; UnknownQuant; BackendError for what cannot be run.
    """
    path = path.expanduser()
    if path.is_dir():
        path = _only_model(path)
    wholes = read_model(path)
    sums = read_checksums(path.parent)
    receipt = _receipt_beside(path.parent, wholes, sums)
    stem = model_stem(wholes[0].name)
    name = without_quant(stem)
    return Candidate(
        header=wholes[0].header,
        names=(name,),
        title=name,
        quant=receipt.quant if receipt else quant_of(wholes[0].header, stem),
        files=tuple(
            _given(whole, sums, receipt, number) for number, whole in enumerate(wholes)
        ),
        parameters=parameters_of([whole.header for whole in wholes]),
        receipt=receipt,
        texts=_texts_beside(path.parent, sums) if receipt else {},
    )


def quant_of(header: Header, stem: str) -> str:
    """Return the quant that a header says, else a name without its endings.

    Raises: UsageError where neither does, UnknownQuant.
    """
    match = _QUANT.search(stem)
    quant = header.quant or (match and match[1])
    if quant is None:
        raise UsageError(
            f"{header.path} does not say which quant it is",
            hint="put it into the name: NAME.Q4_K_M.gguf",
        )
    return parse_quant(quant)


def without_quant(stem: str) -> str:
    """Return a name without the quant at its end."""
    match = _QUANT.search(stem)
    return stem[: match.start()] if match else stem


def parameters_of(headers: Sequence[Header]) -> int:
    """Count the numbers in all tensors of a model."""
    return sum(prod(tensor.shape) for header in headers for tensor in header.tensors)


def _only_model(folder: Path) -> Path:
    """Return the first file of the only model in a folder."""
    names = {
        first_name(entry.name)
        for entry in folder.iterdir()
        # "._" files are what macOS adds on sticks.
        if not entry.name.startswith(".") and first_name(entry.name)
    }
    if not names:
        raise UsageError(
            f"no GGUF file in {folder}",
            hint="'wizard-edge convert DIR' takes a checkpoint",
        )
    if len(names) > 1:
        some = ", ".join(sorted(filter(None, names))[:_FEW])
        more = ", …" if len(names) > _FEW else ""
        raise UsageError(f"{len(names)} models in {folder}", hint=f"{some}{more}")
    [name] = names
    return find_file(folder / str(name))


def _given(
    whole: Whole, sums: Checksums, receipt: Receipt | None, number: int
) -> GivenFile:
    stored = receipt.files[number] if receipt else None
    said = sums.whole(whole.name)
    if stored is not None and said not in (None, stored.sha256):
        raise Corrupt(
            whole.paths[0].parent,
            f"its receipt and its SHA256SUMS have another SHA-256 of {whole.name}",
        )
    return GivenFile(
        paths=whole.paths,
        sizes=tuple(path.stat().st_size for path in whole.paths),
        hashes=tuple(sums.whole(path.name) for path in whole.paths),
        sha256=stored.sha256 if stored else said,
        fetched=stored.pieces if stored else (),
    )


def _texts_beside(folder: Path, sums: Checksums) -> Mapping[RelPath, bytes]:
    """Read the licence texts of an exported folder. Raises: Corrupt."""
    texts = exported_texts(folder)
    for name, text in texts.items():
        sums.check(folder / name, text)
    return texts


def _receipt_beside(
    folder: Path, wholes: Sequence[Whole], sums: Checksums
) -> Receipt | None:
    """Read the receipt beside a model; one that does not belong to it is warned of.

    Raises: Corrupt for one that is not what SHA256SUMS says, or of other sizes.
    """
    path = folder / f"{wholes[0].name}{RECEIPT_SUFFIX}"
    if not os.path.lexists(path):
        return None
    with os.fdopen(open_regular(path), "rb") as file:
        content = file.read(MAX_SIZE + 1)
    sums.check(path, content)
    try:
        receipt = parse_receipt(path, content)
    except (Corrupt, ConfigError) as err:
        _logger.warning("%s; goes without it", err.message)
        return None
    if [file.name for file in receipt.files] != [whole.name for whole in wholes]:
        _logger.warning("%s is the receipt of other files; goes without it", path)
        return None
    for stored, whole in zip(receipt.files, wholes, strict=True):
        size = sum(path.stat().st_size for path in whole.paths)
        if size != stored.size:
            raise Corrupt(
                whole.paths[0],
                f"{size} bytes of {whole.name} instead of {stored.size}, "
                "which its receipt says",
            )
    return receipt
