"""Fetches a ready model into the store: one process does, the others wait for it.

The file gets its name only after its hash and its header were found right; the
receipt comes last.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path

from wizard_edge.chunks import Grid
from wizard_edge.download import (
    Fetched,
    Options,
    Source,
    Wanted,
    bytes_there,
    download,
    part_paths,
)
from wizard_edge.errors import BackendError, Corrupt, WizardEdgeError
from wizard_edge.files import translated
from wizard_edge.gguf import Header, read_header
from wizard_edge.gguf_parts import check_parts
from wizard_edge.gguf_rules import read_valid, validate
from wizard_edge.hub import Hub
from wizard_edge.licenses import terms_named, terms_of
from wizard_edge.locking import SUFFIX as LOCK_SUFFIX
from wizard_edge.locking import exclusive
from wizard_edge.names import RelPath
from wizard_edge.part_files import allocated, check_space
from wizard_edge.paths import place
from wizard_edge.progress import Progress, ProgressEvent
from wizard_edge.receipts import SUFFIX as RECEIPT_SUFFIX
from wizard_edge.receipts import Acceptance, Piece, Receipt, StoredFile
from wizard_edge.service.cards import file_facts
from wizard_edge.service.consent import Consent
from wizard_edge.service.installation import TOOL, Installation
from wizard_edge.service.notices import license_texts, texts_beside
from wizard_edge.service.ready import Ready, find_hash, find_present
from wizard_edge.service.stored import Stored, file_name, part_names
from wizard_edge.store import Slot
from wizard_edge.templates import TEMPLATES

_logger = logging.getLogger(__name__)

# Where the header of a file may be whole: what cannot be run is not fetched to its
# end. The vocabulary of LLaMA takes 0.7 MB, that of Llama 3 with its merges 8.
_LOOKS = (1 << 20, 4 << 20, 16 << 20)


def fetch(
    installation: Installation,
    hub: Hub,
    ready: Ready,
    *,
    mirrors: Sequence[str] = (),
    options: Options,
    consent: Consent,
    progress: Progress,
) -> Stored:
    """Fetch a ready model and install it, or find that another process just did.

    Raises: what `download` and `consent` raise; BackendError for an architecture or
    tokenizer that cannot be run; Corrupt for a file that is no model; Refused where
    the store cannot be written.
    """
    accepted = consent(ready.terms)
    folder = installation.home.partial
    with translated(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder, ready, progress):
        there = find_present(installation, ready)
        if there is not None:
            return Stored(there.receipt, there.path, already=True)
        _take_back(installation, ready)
        names = [file.name for file in ready.files]
        installation.store.check_places(ready.name, names)
        options = replace(options, looks=_LOOKS, look=_look)
        with _named(folder, ready.files):
            fetched = _fetch_all(folder, hub, ready, mirrors, options, progress)
            headers = _judge(fetched)
        found = _recognised(installation, ready, fetched, headers[0])
        if found.terms != ready.terms:
            accepted = consent(found.terms)
        receipt = _receipt(installation, found, fetched, headers, accepted)
        texts = license_texts(hub, ready.repository) if ready.repository else {}
        return _commit(installation, found, receipt, fetched, texts)


@contextlib.contextmanager
def _alone(folder: Path, ready: Ready, progress: Progress) -> Iterator[None]:
    """Keep other processes from the same files; wait for one that fetches them."""
    waiting = _Waiting(folder, ready, progress)
    with contextlib.ExitStack() as held:
        # In one order for everybody, or two would wait for each other.
        for key in sorted({file.key for file in ready.files}):
            lock = place(folder, RelPath.parse(key + LOCK_SUFFIX))
            held.enter_context(exclusive(lock, waiting=waiting))
        yield


def _take_back(installation: Installation, ready: Ready) -> None:
    """Go on from where a run was killed that had moved its files, but had no receipt.

    Such a file has its journal still, and no part any more.
    """
    home = installation.home
    models = home.model(ready.name)
    if place(models, RelPath.parse(ready.files[0].name + RECEIPT_SUFFIX)).exists():
        return
    for file in ready.files:
        part, journal = part_paths(home.partial, file.key)
        moved = place(models, file.name)
        if journal.exists() and not part.exists() and moved.is_file():
            with translated(part):
                moved.replace(part)


def _fetch_all(
    folder: Path,
    hub: Hub,
    ready: Ready,
    mirrors: Sequence[str],
    options: Options,
    progress: Progress,
) -> list[Fetched]:
    parts = [part_paths(folder, file.key)[0] for file in ready.files]
    missing = ready.size - sum(map(allocated, parts))
    check_space(folder, missing, hint="--home DIR moves the store")
    sources = [
        *(Source(m, partial(hub.open_mirror, m), is_mirror=True) for m in mirrors),
        Source("hub", hub.open_piece),
    ]
    fetched: list[Fetched] = []
    for file in ready.files:
        before = sum(item.size for item in fetched)
        fetched.append(
            download(
                file,
                folder,
                # Without a hash nothing says that a mirror has the right bytes.
                sources if all(p.sha256 for p in file.pieces) else sources[-1:],
                options,
                progress=_shifted(progress, before, ready.size),
            )
        )
    return fetched


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    """Report one file as a part of all."""

    def report(event: ProgressEvent) -> None:
        progress(replace(event, done=before + event.done, total=total))

    return report


class _Waiting:
    """Says once that another process is fetching the model, then how far it is."""

    def __init__(self, folder: Path, ready: Ready, progress: Progress) -> None:
        self._folder = folder
        self._ready = ready
        self._progress = progress
        self._told = False

    def __call__(self) -> None:
        if not self._told:
            self._told = True
            _logger.warning(
                "another process is fetching %s:%s, waiting for it",
                self._ready.name,
                self._ready.quant,
            )
        done = sum(
            bytes_there(self._folder, file.key, Grid([p.size for p in file.pieces]))
            for file in self._ready.files
        )
        self._progress(ProgressEvent("waiting", done, self._ready.size))


def _look(path: Path, size: int) -> None:
    """Refuse early what cannot be run, if the header is whole by now."""
    try:
        header = read_header(path)
    except Corrupt:
        # Not whole yet, or spoilt: the end will tell.
        return
    if header.data_offset <= size:
        validate(header)


def _judge(fetched: Sequence[Fetched]) -> list[Header]:
    """Read and judge the headers; what is refused is deleted."""
    try:
        headers = [read_valid(file.path) for file in fetched]
        check_parts(headers)
    except (Corrupt, BackendError):
        for file in fetched:
            file.path.unlink(missing_ok=True)
            file.journal.unlink(missing_ok=True)
        raise
    return headers


@contextlib.contextmanager
def _named(folder: Path, files: Sequence[Wanted]) -> Iterator[None]:
    """Have errors name the file that a part is of."""
    try:
        yield
    except (Corrupt, BackendError) as err:
        for file in files:
            _rename(err, str(part_paths(folder, file.key)[0]), file.name)
        raise


def _rename(err: WizardEdgeError, path: str, name: str) -> None:
    err.message = err.message.replace(path, name)
    err.args = (err.message,)


def _recognised(
    installation: Installation,
    ready: Ready,
    fetched: Sequence[Fetched],
    header: Header,
) -> Ready:
    """Return the model that hashes or header say it is, where nobody knew before."""
    if ready.spec is not None:
        return ready
    registry = installation.registry
    known = find_hash(installation, [file.sha256 for file in fetched])
    if known is None:
        return replace(ready, terms=terms_named(header.licenses, registry))
    spec, variant = known
    return replace(
        ready,
        name=spec.name,
        title=spec.title,
        quant=variant.quant,
        spec=spec,
        terms=terms_of(spec, registry),
    )


def _receipt(
    installation: Installation,
    ready: Ready,
    fetched: Sequence[Fetched],
    headers: Sequence[Header],
    accepted: tuple[Acceptance, ...],
) -> Receipt:
    facts = file_facts(headers[0])
    # Named anew: what the model is called may be known only by now.
    names = part_names(file_name(ready.name, ready.quant), len(fetched))
    own = facts.template if facts.template in TEMPLATES else None
    return Receipt(
        model=ready.name,
        quant=ready.quant,
        files=tuple(
            StoredFile(name, file.size, file.sha256, _pieces(wanted, file))
            for name, wanted, file in zip(names, ready.files, fetched, strict=True)
        ),
        origin=ready.origin,
        licenses=ready.terms.ids,
        template=ready.spec.template if ready.spec else own,
        architecture=facts.architecture or None,
        context=facts.context,
        parameters=sum(
            prod(tensor.shape) for header in headers for tensor in header.tensors
        ),
        tool=TOOL,
        created=installation.now(),
        accepted=accepted,
    )


def _pieces(wanted: Wanted, file: Fetched) -> tuple[Piece, ...]:
    if len(wanted.pieces) > 1:
        return wanted.pieces
    return (replace(wanted.pieces[0], sha256=file.sha256),)


def _commit(
    installation: Installation,
    ready: Ready,
    receipt: Receipt,
    fetched: Sequence[Fetched],
    texts: Mapping[RelPath, bytes],
) -> Stored:
    slots = [
        Slot(ready.name, stored.name, file.path, chunks=file.chunks)
        for stored, file in zip(receipt.files, fetched, strict=True)
    ]
    notice = texts_beside(installation, receipt, ready.terms, ready.title)
    installed = installation.store.commit(receipt, slots, texts={**texts, **notice})
    for file in fetched:
        file.journal.unlink(missing_ok=True)
    return Stored(receipt, installed.path, already=False)
