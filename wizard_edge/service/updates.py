"""What there is something newer of: in the catalogue, on the hub, in this program.

The catalogue is asked first and needs no network. Each repository is asked once; what
cannot be reached is told beside the model, and nothing is changed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import TypeVar

from wizard_edge.errors import HubError, NotFound, WizardEdgeError
from wizard_edge.hub import Hub, Patience, Repository
from wizard_edge.names import RelPath, RepoId, Sha256
from wizard_edge.progress import Progress, ProgressEvent, silent
from wizard_edge.receipts import Piece, Receipt
from wizard_edge.service.installation import TOOL, Installation
from wizard_edge.service.pieces import registered_files, way_to_make_anew
from wizard_edge.store import Installed

# Asking again is cheap, and many repositories shall not each wait for a dead line.
_PATIENCE = Patience(timeout_s=10.0, tries_to_start=1)
# So many failures in a row, and nobody is there.
_ENOUGH = 2
_VERSION = re.compile(r"wizard-edge (\d+(?:\.\d+)*)")

_Answer = TypeVar("_Answer")


class Where(StrEnum):
    """Who has something newer."""

    CATALOGUE = "catalogue"
    HUB = "hub"
    WEIGHTS = "weights"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class Newer:
    """Something newer: who has it, what it is, and the command that brings it in."""

    where: Where
    what: str
    command: str


@dataclass(frozen=True, slots=True)
class Update:
    """What was found for one variant; `problem` says what could not be looked at.

    `checked` is whether anybody at all could say something.
    """

    name: str
    quant: str
    newer: tuple[Newer, ...]
    problem: str | None
    checked: bool


@dataclass(frozen=True, slots=True)
class Outlook:
    """All variants; `error` is set where nothing at all could be checked."""

    updates: tuple[Update, ...]
    error: WizardEdgeError | None = None


@dataclass(slots=True)
class _Asked:
    """The repositories as they are now, each asked once; silence ends the asking."""

    hub: Hub
    answers: dict[RepoId, Repository | WizardEdgeError] = field(default_factory=dict)
    # The failures in a row by now, and the first of all.
    failures: int = 0
    first: HubError | None = None

    def repository(self, repo: RepoId) -> Repository:
        """Return what a repository holds now. Raises: HubError, NotFound, Refused."""
        if repo not in self.answers:
            try:
                self.answers[repo] = self.ask(lambda: self.hub.repository(repo))
            except WizardEdgeError as err:
                self.answers[repo] = err
        answer = self.answers[repo]
        if isinstance(answer, WizardEdgeError):
            raise answer
        return answer

    def ask(self, question: Callable[[], _Answer]) -> _Answer:
        """Put a question, but none any more where one after the other failed."""
        if self.first is not None and self.failures >= _ENOUGH:
            raise self.first
        try:
            answer = question()
        except HubError as err:
            self.failures += 1
            self.first = self.first or err
            raise
        self.failures = 0
        return answer


@dataclass(frozen=True, slots=True)
class _Source:
    """A file that bytes of a model came from, and what it was then."""

    repo: RepoId
    path: RelPath
    sha256: Sha256


def find_updates(installation: Installation, *, progress: Progress = silent) -> Outlook:
    """Look for something newer of every installed variant.

    Events: `ask` in steps. Raises: ConfigError for a registry or an environment that
    makes no sense.
    """
    installed = installation.store.installed()
    if not installed:
        return Outlook(())
    hub = Hub.from_environment(installation.environ, patience=_PATIENCE)
    asked = _Asked(hub)
    updates = []
    for number, item in enumerate(installed, 1):
        updates.append(_update(installation, asked, item))
        progress(ProgressEvent("ask", number, len(installed), "steps"))
    nothing = not any(update.checked for update in updates)
    return Outlook(tuple(updates), asked.first if nothing and not hub.offline else None)


def _update(installation: Installation, asked: _Asked, item: Installed) -> Update:
    receipt = item.receipt
    newer: list[Newer] = []
    problems: list[str] = []
    checked = False
    checks = (
        _by_catalogue(installation, receipt),
        _on_hub(installation, asked, receipt),
        _of_addresses(asked, receipt),
        _of_weights(installation, asked, receipt),
        _by_tool(installation, receipt),
    )
    for check in checks:
        try:
            for found in check:
                # None says that there was a look, and nothing newer.
                checked = True
                newer += [found] if found else []
        except WizardEdgeError as err:
            problems.append(err.message)
    return Update(
        name=receipt.model,
        quant=receipt.quant,
        newer=tuple(newer),
        problem="; ".join(dict.fromkeys(problems)) or None,
        checked=checked,
    )


def _by_catalogue(
    installation: Installation, receipt: Receipt
) -> Iterator[Newer | None]:
    """See whether the registry names other files for what was fetched ready-made."""
    if not _is_ready(receipt):
        return
    try:
        variant = installation.registry.find(receipt.model).variant(receipt.quant)
    except NotFound:
        return
    known = {file.sha256 for file in variant.files if file.sha256}
    ours = {file.sha256 for file in receipt.files}
    ours |= {piece.sha256 for _, piece in _pieces(receipt) if piece.sha256}
    if known:
        name = f"{receipt.model}:{receipt.quant}"
        yield (
            None
            if known <= ours
            else Newer(
                Where.CATALOGUE,
                "the catalogue names another file",
                f"wizard-edge rm {name} && wizard-edge pull {name}",
            )
        )


def _on_hub(
    installation: Installation, asked: _Asked, receipt: Receipt
) -> Iterator[Newer | None]:
    """See whether the files that were fetched are others by now."""
    sources = list(_sources(installation, receipt))
    for source in sources:
        found = asked.repository(source.repo).file(source.path).sha256
        if found in (None, source.sha256):
            yield None
            continue
        place = f"hf:{source.repo}/{source.path}"
        again = place if len(sources) == 1 else f"hf:{source.repo}:{receipt.quant}"
        remove = f"wizard-edge rm {receipt.model}:{receipt.quant}"
        yield Newer(
            Where.HUB,
            f"{place} is another file by now",
            f"{remove} && wizard-edge pull {shlex.quote(again)}",
        )


def _of_addresses(asked: _Asked, receipt: Receipt) -> Iterator[Newer | None]:
    for _, piece in _pieces(receipt):
        if piece.url is None or piece.etag is None:
            continue
        stated = asked.ask(partial(asked.hub.probe, piece.url))
        if (stated.size, stated.etag) == (piece.size, piece.etag):
            yield None
            continue
        remove = f"wizard-edge rm {receipt.model}:{receipt.quant}"
        yield Newer(
            Where.HUB,
            f"{piece.url} is another file by now",
            f"{remove} && wizard-edge pull {shlex.quote(piece.url)}",
        )


def _of_weights(
    installation: Installation, asked: _Asked, receipt: Receipt
) -> Iterator[Newer | None]:
    """See whether the weights that a model was made from are others by now."""
    repo = receipt.origin.repo
    known = [file for file in receipt.weights if file.sha256]
    if repo is None or not known:
        return
    there = asked.repository(repo)
    for file in known:
        now = there.files.get(file.name)
        if now is not None and now.sha256 not in (None, file.sha256):
            again = way_to_make_anew(installation, receipt)
            yield Newer(Where.WEIGHTS, f"the weights in {repo} are others", again)
            return
    yield None


def _by_tool(installation: Installation, receipt: Receipt) -> Iterator[Newer | None]:
    """See whether an older version of this program made the file."""
    if not receipt.weights and receipt.origin.kind != "bundled":
        return
    before, now = _version(receipt.tool), _version(TOOL)
    if before is None or now is None:
        return
    yield (
        Newer(
            Where.TOOL,
            f"made by {receipt.tool}, this is {TOOL}",
            way_to_make_anew(installation, receipt),
        )
        if before < now
        else None
    )


def _is_ready(receipt: Receipt) -> bool:
    """Tell a file that was fetched, or known by its hash, from one made here."""
    known = receipt.origin.kind == "hub" and not receipt.weights
    return known or any(file.pieces for file in receipt.files)


def _sources(installation: Installation, receipt: Receipt) -> Iterator[_Source]:
    for whole, piece in _pieces(receipt):
        sha256 = piece.sha256 or whole
        if piece.repo and piece.path and sha256:
            yield _Source(piece.repo, piece.path, sha256)
    if not _is_ready(receipt):
        return
    for file in receipt.files:
        if not file.pieces:
            for remote in registered_files(installation.registry, receipt, file):
                if remote.repo and remote.sha256:
                    yield _Source(remote.repo, remote.path, remote.sha256)


def _pieces(receipt: Receipt) -> Iterator[tuple[Sha256 | None, Piece]]:
    """Yield every piece with the hash it has where it is the whole file."""
    for file in receipt.files:
        for piece in file.pieces:
            yield file.sha256 if len(file.pieces) == 1 else None, piece


def _version(tool: str) -> tuple[int, ...] | None:
    match = _VERSION.match(tool)
    return tuple(map(int, match[1].split("."))) if match else None
