"""The GGUF files that a repository of the hub offers, by quant.

Files are told by their names: the quant is what stands before `.gguf`, and parts of
one model are put together. What is not whole is not offered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from wizard_edge.errors import NotFound
from wizard_edge.gguf_parts import PartName, part_name
from wizard_edge.hub import RemoteFileInfo, Repository
from wizard_edge.models import Joined
from wizard_edge.names import RelPath
from wizard_edge.refs import QUANTS, HubRef

_QUANT = re.compile(rf"(.*?)[._-]?\b({'|'.join(QUANTS)})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Offer:
    """A model file, whole or in several: `quant` None where the name does not say.

    `stem` is the name without quant and ending.
    """

    stem: str
    quant: str | None
    joined: Joined
    files: tuple[RemoteFileInfo, ...]

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(file.size for file in self.files)


def find_offers(repository: Repository) -> list[Offer]:
    """Return what a repository offers, in the order of its names."""
    named = [
        (path.rpartition("/")[0], name, path)
        for path in sorted(repository.files)
        if (name := part_name(path.rpartition("/")[2])) is not None
    ]
    named.sort(key=lambda item: (item[0], item[1].whole, item[1].joined))
    offers = []
    for (_, whole, joined), group in groupby(
        named, key=lambda item: (item[0], item[1].whole, item[1].joined)
    ):
        parts = sorted(((item[1], item[2]) for item in group), key=_number)
        if _is_complete([name for name, _ in parts]):
            stem, quant = split_quant(whole)
            files = tuple(repository.files[path] for _, path in parts)
            offers.append(Offer(stem, quant, joined, files))
    return offers


def find_offer(repository: Repository, ref: HubRef) -> Offer:
    """Return what a reference with a file or a quant means.

    Raises: NotFound naming what there is.
    """
    offers = find_offers(repository)
    if ref.file is not None:
        for offer in offers:
            if ref.file in [file.path for file in offer.files]:
                return offer
        raise NotFound(f"{ref.repo} has no whole model {ref.file}", hint=_told(offers))
    fitting = [offer for offer in offers if offer.quant == ref.quant]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise NotFound(
            f"{ref.repo} has no GGUF file in {ref.quant}", hint=_told(offers)
        )
    names = [offer.files[0].path for offer in fitting]
    raise NotFound(
        f"{ref.repo} has several files in {ref.quant}: {', '.join(names)}",
        hint=f"name one: hf:{ref.repo}/{names[0]}",
    )


def split_quant(name: str) -> tuple[str, str | None]:
    """Take a file's name apart: what comes before the quant, and the quant."""
    stem = name[: -len(".gguf")] if name.lower().endswith(".gguf") else name
    match = _QUANT.fullmatch(stem)
    if match is None or not match[1]:
        return stem, None
    return match[1], match[2].upper()


def _number(item: tuple[PartName, RelPath]) -> int:
    return item[0].number


def _is_complete(names: list[PartName]) -> bool:
    count = names[0].count or len(names)
    return [name.number for name in names] == list(range(count)) and all(
        name.count == names[0].count for name in names
    )


def _told(offers: Iterable[Offer]) -> str:
    known = dict.fromkeys(offer.quant or offer.files[0].path for offer in offers)
    if not known:
        return "it has no GGUF files: 'wizard-edge convert' takes original weights"
    return f"it has {', '.join(known)}"
