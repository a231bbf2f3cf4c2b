"""Takes over the models that other programs have on this machine, without a copy.

A hard link where the file system allows one, else a symbolic link. What a program
says of a file is a claim: its header is judged, its bytes are hashed, and it comes in
by `imports` as any other file does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wizard_edge.errors import Interrupted, NotFound, UsageError, WizardEdgeError
from wizard_edge.gguf_parts import Whole, model_stem, read_model
from wizard_edge.names import ModelName, RelPath, Sha256
from wizard_edge.progress import Progress, silent
from wizard_edge.receipts import Piece
from wizard_edge.service.candidates import (
    Candidate,
    GivenFile,
    parameters_of,
    quant_of,
    without_quant,
)
from wizard_edge.service.consent import Consent
from wizard_edge.service.identities import identify
from wizard_edge.service.imports import bring_in
from wizard_edge.service.installation import Installation
from wizard_edge.service.notices import license_texts_of
from wizard_edge.service.other_stores import PROGRAMS, FoundFile, Program, find_files
from wizard_edge.service.stored import Stored, present
from wizard_edge.service.taking import How

__all__ = [
    "PROGRAMS",
    "Adoption",
    "Failed",
    "FoundModel",
    "Wish",
    "adopt",
    "list_found",
]

# Enough to choose from on one line.
_FEW = 5


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model of another program; `size` in bytes.

    `name` is what that program calls it, `model` what it would be called here.
    `problem` says why it cannot be run; what is not known then is None. `licenses`
    are how the licence texts begin that come with it, for information.
    """

    program: Program
    name: str
    path: Path
    size: int | None
    model: ModelName | None
    quant: str | None
    installed: bool
    problem: str | None
    licenses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """A model that did not come in, and why."""

    name: str
    error: WizardEdgeError


@dataclass(frozen=True, slots=True)
class Adoption:
    """What came in, and what did not."""

    stored: tuple[Stored, ...]
    failed: tuple[Failed, ...] = ()


@dataclass(frozen=True, slots=True)
class Wish:
    """Which models are wanted, and how; `names` are those of the other program.

    `name`, `template` and `licenses` count before what is known.
    """

    names: tuple[str, ...] = ()
    everything: bool = False
    program: Program | None = None
    how: How = How.LINK
    name: str | None = None
    template: str | None = None
    licenses: tuple[str, ...] = ()


def list_found(
    installation: Installation, user: Path, *, program: Program | None = None
) -> list[FoundModel]:
    """List the models of other programs, with what this one would make of them.

    Raises: ConfigError where a registry file makes no sense.
    """
    found = find_files(installation.environ, user, program=program)
    return [_judged(installation, file) for file in found]


def adopt(
    installation: Installation,
    user: Path,
    wish: Wish,
    *,
    consent: Consent | None = None,
    commercial: bool | None = None,
    progress: Progress = silent,
) -> Adoption:
    """Bring models of other programs in, by link unless something else is wished.

    Of everything, what cannot be run is passed over and what fails is told at the
    end; what was named ends at the first failure.
    Events: `import` in bytes, for each model anew.
    Raises: NotFound, UsageError for a name that means no model or several; and as
    `bring_in`.
    """
    found = find_files(installation.environ, user, program=wish.program)
    chosen = found if wish.everything else [_choose(found, n) for n in wish.names]
    if wish.name is not None and len(chosen) != 1:
        raise UsageError(f"--name {wish.name} for {len(chosen)} models")
    stored: list[Stored] = []
    failed: list[Failed] = []
    for file in chosen:
        try:
            candidate = _candidate(file)
        except WizardEdgeError as err:
            if not wish.everything:
                raise _told(file, err) from err
            continue
        try:
            stored.append(
                bring_in(
                    installation,
                    replace(candidate, texts=_texts(file)),
                    name=wish.name,
                    template=wish.template,
                    licenses=wish.licenses,
                    how=wish.how,
                    consent=consent,
                    commercial=commercial,
                    progress=progress,
                )
            )
        except Interrupted:
            raise
        except WizardEdgeError as err:
            if not wish.everything:
                raise
            failed.append(Failed(f"{file.program} {file.name}", err))
    return Adoption(tuple(stored), tuple(failed))


def _judged(installation: Installation, file: FoundFile) -> FoundModel:
    size: int | None = None
    model: ModelName | None = None
    quant: str | None = None
    problem: str | None = None
    installed = False
    try:
        candidate = _candidate(file)
        size = candidate.size
        identity = identify(installation, candidate, None)
        model, quant = identity.name, identity.quant
        there = present(installation, model, quant)
        installed = there is not None and there.receipt.size == size
    except WizardEdgeError as err:
        problem = err.message
    return FoundModel(
        program=file.program,
        name=file.name,
        path=file.path,
        size=size,
        model=model,
        quant=quant,
        installed=installed,
        problem=problem,
        licenses=file.texts,
    )


def _candidate(file: FoundFile) -> Candidate:
    """Read and judge the header of a file. Raises: as `read_model`, UsageError."""
    if file.problem is not None:
        raise UsageError(file.problem)
    # Before anything of it is opened.
    _real(file.path, file.root)
    wholes = read_model(file.path)
    stem = model_stem(wholes[0].name) if file.program != "ollama" else file.title
    title = without_quant(stem)
    return Candidate(
        header=wholes[0].header,
        names=(*file.names, title),
        title=title,
        quant=quant_of(wholes[0].header, stem),
        files=tuple(_given(file, whole) for whole in wholes),
        parameters=parameters_of([whole.header for whole in wholes]),
        origin=file.origin,
        repo=file.repo,
        path=file.repo_path,
    )


def _given(file: FoundFile, whole: Whole) -> GivenFile:
    paths = tuple(_real(path, file.root) for path in whole.paths)
    sizes = tuple(path.stat().st_size for path in paths)
    sha256 = file.sha256 or _said_by_cache(paths[0])
    return GivenFile(
        paths=paths,
        sizes=sizes,
        hashes=(sha256,) if len(paths) == 1 else (None,) * len(paths),
        sha256=sha256 if len(paths) == 1 else None,
        fetched=_fetched(file, whole, sizes),
    )


def _texts(file: FoundFile) -> Mapping[RelPath, bytes]:
    """Read the licence texts beside a file, where its folder is that of its model."""
    if file.repo is None or file.program == "ollama":
        return {}
    return license_texts_of(file.path.parent, {})


def _real(path: Path, root: Path) -> Path:
    """Return where a file really lies. Raises: UsageError outside of its store."""
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as err:
        raise NotFound(f"{path} leads nowhere") from err
    if not real.is_relative_to(root):
        raise UsageError(f"{path} leads out of {root}")
    return real


def _said_by_cache(path: Path) -> Sha256 | None:
    """Return the hash in the name of a blob of the hub's cache, if it is one."""
    if path.parent.name == "blobs" and Sha256.fits(path.name):
        return Sha256.parse(path.name)
    return None


def _fetched(file: FoundFile, whole: Whole, sizes: Sequence[int]) -> tuple[Piece, ...]:
    """Return how the hub's cache got a file, so that it can be fetched again."""
    origin, path = file.origin, file.repo_path
    if origin.revision is None or path is None or len(sizes) != 1:
        return ()
    folder = path.rpartition("/")[0]
    where = RelPath.parse(f"{folder}/{whole.name}" if folder else whole.name)
    return (Piece(sizes[0], None, origin.repo, origin.revision, where),)


def _choose(found: Sequence[FoundFile], word: str) -> FoundFile:
    """Find what a word means: a whole name, or the beginning or end of one."""
    exact = [file for file in found if file.name == word]
    near = exact or [file for file in found if _means(file.name, word)]
    if not near:
        raise NotFound(
            f"no model {word!r} of another program",
            hint="'wizard-edge import' without a FILE lists them",
        )
    if len(near) > 1:
        some = ", ".join(f"{file.program} {file.name}" for file in near[:_FEW])
        raise UsageError(
            f"{word!r} means {len(near)} models",
            hint=f"{some}{', …' if len(near) > _FEW else ''}",
        )
    return near[0]


def _means(name: str, word: str) -> bool:
    return (
        name == f"{word}:latest"
        or name.startswith(f"{word}/")
        or name.endswith(f"/{word}")
    )


def _told(file: FoundFile, err: WizardEdgeError) -> WizardEdgeError:
    """Say which model an error is about, where only the program's name tells."""
    if file.problem is not None:
        return UsageError(f"{file.program} {file.name}: {err.message}", hint=err.hint)
    return err
