"""The texts beside a model: a NOTICE of ours, and the licence files it comes with.

The NOTICE says what the receipts and the registry say, for whoever gets the folder
without this program. The licences' own texts are copied from where the weights lie,
if they lie there; a text that cannot be had is logged, and stops nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from wizard_edge.conversion import HubWeights, Weights
from wizard_edge.errors import UnknownModel, WizardEdgeError
from wizard_edge.files import open_regular, write_atomically
from wizard_edge.licenses import Terms, summary, terms_named, terms_of
from wizard_edge.models import ModelSpec
from wizard_edge.names import ModelName, RelPath
from wizard_edge.receipts import Origin, Receipt, without_query
from wizard_edge.service.installation import Installation
from wizard_edge.store import Damaged

if TYPE_CHECKING:
    from wizard_edge.hub import Hub, Repository

NOTICE = RelPath("NOTICE")
# A file system may not tell it from ours by the case of its letters.
THEIR_NOTICE = RelPath("NOTICE.original")
# The licences of the family have 4 to 20 KB.
MAX_SIZE = 64 << 10
MAX_FILES = 8

# Texts only: nothing that the store or a desktop would take for something else.
_NAME = re.compile(
    r"(LICEN[CS]E|NOTICE|USE[-_]POLICY)([-_][a-z0-9_-]+(\.\d+)*)?(\.(txt|md|rst))?",
    re.IGNORECASE,
)
_CLOSING = """\
The terms above are a summary by wizard-edge and no legal advice; what counts is the
text of each licence. Whoever gets this model from you gets this file and those texts.
"""
_logger = logging.getLogger(__name__)


def texts_beside(
    installation: Installation, receipt: Receipt, terms: Terms, title: str
) -> Mapping[RelPath, bytes]:
    """Write the NOTICE for a model that gets another variant, by its receipt.

    The variants that are in the store already keep their paragraph in it, and the
    terms they are under.
    """
    try:
        others = installation.store.variants(receipt.model)
    except (UnknownModel, WizardEdgeError):
        # None yet, or a receipt that nobody can read: nothing to say of it.
        others = []
    kept = [item.receipt for item in others if item.receipt.quant != receipt.quant]
    receipts = sorted([*kept, receipt], key=lambda item: item.quant)
    return texts_for(_with_terms_of(installation, kept, terms), title, receipts)


def renew_notice(installation: Installation, name: ModelName) -> None:
    """Write the NOTICE of a model anew, by the variants that are left of it.

    There has to be one. It stays as it is beside a receipt that cannot be read, since
    nobody knows which lines are that one's; and where it cannot be written, which is
    logged.
    """
    store = installation.store
    folder = store.home.model(name)
    if not (folder / NOTICE).is_file():
        return
    try:
        with store.changing(name):
            receipts = []
            for item in store.contents(name):
                if isinstance(item, Damaged):
                    return
                receipts.append(item.receipt)
            if receipts:
                receipts.sort(key=lambda item: item.quant)
                spec = _spec_of(installation, receipts[0])
                terms = terms_of(spec, installation.registry) if spec else Terms(())
                terms = _with_terms_of(installation, receipts, terms)
                title = _title(folder / NOTICE) or (spec.title if spec else name)
                for text in texts_for(terms, title, receipts).values():
                    write_atomically(folder / NOTICE, text)
    except (WizardEdgeError, OSError) as err:
        _logger.warning("the NOTICE of %s stays as it was: %s", name, err)


def texts_for(
    terms: Terms, title: str, receipts: Sequence[Receipt]
) -> Mapping[RelPath, bytes]:
    """Write the NOTICE of a model with these variants."""
    return {NOTICE: "".join(_paragraphs(terms, title, receipts)).encode()}


def license_texts(hub: Hub, repository: Repository) -> Mapping[RelPath, bytes]:
    """Fetch the licence texts of a repository, each checked by its digest.

    At most `MAX_FILES` of `MAX_SIZE` bytes each, from its top level only. What cannot
    be fetched is logged and left out.
    """
    texts: dict[RelPath, bytes] = {}
    for path, name in _chosen(repository.files):
        try:
            texts[name] = hub.fetch(repository, path, MAX_SIZE)
        except WizardEdgeError as err:
            _logger.warning("without %s of %s: %s", path, repository.repo, err.message)
    return texts


def license_texts_of(
    weights: Weights, environ: Mapping[str, str]
) -> Mapping[RelPath, bytes]:
    """Get the licence texts that lie where the weights do: in a folder, or the hub.

    What cannot be had is logged and left out.
    """
    if isinstance(weights, Path):
        return _in_folder(weights, _chosen)
    assert isinstance(weights, HubWeights)
    # Imported here: what needs no network should not load it.
    from wizard_edge.hub import Hub

    try:
        hub = Hub.from_environment(environ)
        return license_texts(hub, hub.repository(weights.repo, weights.revision))
    except WizardEdgeError as err:
        _logger.warning("without the licence texts of %s: %s", weights, err.message)
        return {}


def exported_texts(folder: Path) -> Mapping[RelPath, bytes]:
    """Read the licence texts of a folder that `export` wrote, by the names there.

    Its NOTICE is left out: that one is ours, and tells how the files came to another
    machine. What cannot be read is logged and left out.
    """
    return _in_folder(folder, _chosen_of_export)


def _with_terms_of(
    installation: Installation, receipts: Sequence[Receipt], terms: Terms
) -> Terms:
    """Add the terms of other variants: what each obliges to travels with all."""
    ids = [id for receipt in receipts for id in receipt.licenses]
    theirs = terms_named(ids, installation.registry).licenses
    licenses = {license.id: license for license in (*theirs, *terms.licenses)}
    order = dict.fromkeys((*terms.ids, *licenses))
    specs = [_spec_of(installation, receipt) for receipt in receipts]
    conflicts = [terms.conflict, *(spec.license_conflict for spec in specs if spec)]
    return replace(
        terms,
        licenses=tuple(licenses[id] for id in order),
        conflict="; ".join(dict.fromkeys(filter(None, conflicts))),
    )


def _spec_of(installation: Installation, receipt: Receipt) -> ModelSpec | None:
    """Find what the registry knows of a variant, by its name or else by its bytes."""
    with contextlib.suppress(UnknownModel):
        return installation.registry.find(receipt.model)
    ours = {file.sha256 for file in receipt.files}
    for spec in installation.registry:
        for variant in spec.variants:
            if ours & {file.sha256 for file in variant.files}:
                return spec
    return None


def _title(path: Path) -> str:
    """Read what a NOTICE of ours calls its model, empty where it does not say."""
    with os.fdopen(open_regular(path), "rb") as file:
        line = file.readline(MAX_SIZE).decode("utf-8", "replace").strip()
    return line if line.isprintable() else ""


def _paragraphs(terms: Terms, title: str, receipts: Sequence[Receipt]) -> Iterator[str]:
    yield f"{title}\n"
    for line in terms.notices:
        yield f"\n{line}\n"
    yield f"\n{summary(terms)}"
    yield "\nFiles, and what was changed in them:\n"
    for receipt in receipts:
        yield f"- {receipt.files[0].name}: {_history(receipt)}\n"
    yield f"\n{_CLOSING}"


def _history(receipt: Receipt) -> str:
    source = _source(receipt.origin)
    if not receipt.weights and receipt.origin.kind != "bundled":
        return f"{receipt.quant}, taken over unchanged from {source}"
    base = receipt.origin.base
    added = f", a weight delta that was added to {base}" if base is not None else ""
    return (
        f"converted to GGUF as {receipt.quant} by {receipt.tool} on "
        f"{receipt.created[:10]} from {source}{added}"
    )


def _source(origin: Origin) -> str:
    if origin.repo is not None:
        revision = f", revision {origin.revision}" if origin.revision else ""
        return f"https://huggingface.co/{origin.repo}{revision}"
    if origin.kind == "bundled":
        return "the checkpoint that is a part of wizard-edge"
    # A signed link is a key, and this goes wherever the model goes.
    return without_query(origin.url) if origin.url else "a file of this machine"


def _chosen(names: Iterable[str]) -> list[tuple[RelPath, RelPath]]:
    """Choose the licence texts among file names, with the name each gets here."""
    chosen: dict[str, tuple[RelPath, RelPath]] = {}
    for name in sorted(names):
        if RelPath.fits(name) and _NAME.fullmatch(name):
            path = RelPath(name)
            target = THEIR_NOTICE if name.upper() == NOTICE else path
            # Two that differ by the case of their letters would be one file on some.
            chosen.setdefault(target.lower(), (path, target))
    return list(chosen.values())[:MAX_FILES]


def _chosen_of_export(names: Iterable[str]) -> list[tuple[RelPath, RelPath]]:
    """Choose as `_chosen` does where a NOTICE got its other name before."""
    found = set(names)
    theirs = [(THEIR_NOTICE, THEIR_NOTICE)] if THEIR_NOTICE in found else []
    others = _chosen(name for name in found if name.upper() != NOTICE)
    return [*theirs, *others][:MAX_FILES]


def _in_folder(
    folder: Path, choose: Callable[[Iterable[str]], list[tuple[RelPath, RelPath]]]
) -> Mapping[RelPath, bytes]:
    texts: dict[RelPath, bytes] = {}
    try:
        names = [entry.name for entry in folder.iterdir() if _lies_in(entry)]
    except OSError as err:
        _logger.warning("without the licence texts in %s: %s", folder, err.strerror)
        return {}
    for path, name in choose(names):
        try:
            with os.fdopen(open_regular(folder / path), "rb") as file:
                content = file.read(MAX_SIZE + 1)
        except (WizardEdgeError, OSError) as err:
            _logger.warning("without %s: %s", folder / path, err)
            continue
        if len(content) > MAX_SIZE:
            _logger.warning("without %s: more than %d bytes", folder / path, MAX_SIZE)
            continue
        texts[name] = content
    return texts


def _lies_in(entry: Path) -> bool:
    """Tell whether a file is of its folder: a link may lead to anybody's secrets.

    The hub's cache is made of links, all into its own folder `blobs`.
    """
    if not entry.is_symlink():
        return entry.is_file()
    return entry.resolve().parent == (entry.parent.parent.parent / "blobs").resolve()
