"""Finds the model files that LM Studio, Ollama and the Hugging Face cache have.

Their folders are strangers': what lies in them is listed, never trusted. No file
counts that lies outside its store, in the hub's cache outside its own repository;
loops end. Nothing is opened here but Ollama's manifests, in `ollama_store`.

Source: Ollama 02e25b32f, server/manifest.go; https://lmstudio.ai/docs/basics/import-model;
huggingface_hub 2.4.0, constants.py (the variables), file_download.py (the layout).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from wizard_edge.gguf_parts import model_stem, part_name
from wizard_edge.names import CommitId, RelPath, RepoId, Sha256
from wizard_edge.receipts import Origin
from wizard_edge.service.ollama_store import Manifest, list_manifests
from wizard_edge.service.walking import Walk

__all__ = ["PROGRAMS", "FoundFile", "find_files"]

Program = Literal["ollama", "lm-studio", "huggingface"]
PROGRAMS: tuple[Program, ...] = ("ollama", "lm-studio", "huggingface")

_HERE = Origin("local")
_HUB_HOSTS = frozenset({"hf.co", "huggingface.co"})
# What a person who publishes GGUF files adds to the name of a model.
_GGUF = re.compile(r"[-_.]gguf$", re.IGNORECASE)
_CACHED = re.compile(r"models--([^/]+)--([^/]+)")
# Folders below a snapshot, and below LM Studio's.
_DEPTH = 4

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A model file of another program; `name` is what that calls it.

    No file of it may lie outside `root`. `names` are what the registry may know it
    by, `title` the last resort. `sha256` is what the program says, `texts` how its
    licences begin. `problem` says why it cannot be had, where that is seen already.
    """

    program: Program
    name: str
    root: Path
    path: Path
    title: str
    names: tuple[str, ...] = ()
    repo: RepoId | None = None
    repo_path: RelPath | None = None
    origin: Origin = _HERE
    sha256: Sha256 | None = None
    texts: tuple[str, ...] = ()
    problem: str | None = None


def find_files(
    environ: Mapping[str, str],
    user: Path,
    *,
    program: Program | None = None,
    system: Path = Path("/"),
) -> list[FoundFile]:
    """List what the programs have, in the order of `PROGRAMS` and by name.

    `user` is the home folder of whoever asks, `system` the root of the machine. A
    folder that is missing or may not be read is passed over.
    """
    found: list[FoundFile] = []
    for each in PROGRAMS:
        if program in (None, each):
            for root in _roots(each, environ, user, system):
                found += sorted(_LISTERS[each](root), key=lambda item: item.name)
    return _distinct(found)


def _roots(
    program: Program, environ: Mapping[str, str], user: Path, system: Path
) -> list[Path]:
    """Return the folders that are there, each once."""
    cache = environ.get("XDG_CACHE_HOME")
    places: dict[Program, list[str | Path | None]] = {
        "ollama": [
            environ.get("OLLAMA_MODELS"),
            user / ".ollama/models",
            system / "usr/share/ollama/.ollama/models",
        ],
        "lm-studio": [user / ".lmstudio/models", user / ".cache/lm-studio/models"],
        "huggingface": [
            environ.get("HF_HUB_CACHE"),
            environ.get("HUGGINGFACE_HUB_CACHE"),
            _below(environ.get("HF_HOME"), "hub"),
            _below(cache, "huggingface/hub"),
            user / ".cache/huggingface/hub",
        ],
    }
    roots: dict[Path, None] = {}
    for place in places[program]:
        if place:
            try:
                # "~nobody" is no user, and a loop of links no folder.
                root = Path(place).expanduser().resolve(strict=True)
            except (OSError, RuntimeError, ValueError):
                continue
            if root.is_dir():
                roots[root] = None
    return list(roots)


def _below(folder: str | None, name: str) -> str | None:
    return f"{folder}/{name}" if folder else None


def _distinct(found: list[FoundFile]) -> list[FoundFile]:
    """Leave out what one program has under one name twice, such as an old snapshot."""
    return list({(item.program, item.name): item for item in reversed(found)}.values())[
        ::-1
    ]


def _ollama(root: Path) -> Iterator[FoundFile]:
    for manifest in list_manifests(root):
        yield _from_manifest(root, manifest)


def _from_manifest(root: Path, manifest: Manifest) -> FoundFile:
    tag = "" if manifest.tag == "latest" else f"-{manifest.tag}"
    found = FoundFile(
        program="ollama",
        name=manifest.name,
        root=root,
        path=manifest.blob or manifest.path,
        title=f"{manifest.model}{tag}",
        names=(f"{manifest.model}{tag}", manifest.model),
        sha256=manifest.sha256,
        texts=manifest.licenses,
        problem=manifest.problem,
    )
    if manifest.host in _HUB_HOSTS:
        repo = f"{manifest.namespace}/{manifest.model}"
        if RepoId.fits(repo):
            return _of_repo(found, RepoId.parse(repo))
    return found


def _lm_studio(root: Path) -> Iterator[FoundFile]:
    walk = Walk(root)
    for path in walk.files(root, depth=_DEPTH):
        if not _is_first(path):
            continue
        parts = path.relative_to(root).parts
        found = _file("lm-studio", "/".join(parts), root, path)
        repo = "/".join(parts[:2])
        if len(parts) > 2 and RepoId.fits(repo):
            name = "/".join(parts[2:])
            found = replace(found, repo_path=_rel_path(name))
            found = _of_repo(found, RepoId.parse(repo))
        yield found


def _hugging_face(root: Path) -> Iterator[FoundFile]:
    walk = Walk(root)
    for folder in walk.folders(root):
        match = _CACHED.fullmatch(folder.name)
        if match is None or not RepoId.fits(f"{match[1]}/{match[2]}"):
            continue
        repo = RepoId.parse(f"{match[1]}/{match[2]}")
        # The newest last: it takes the place of an older one of the same name.
        for snapshot in sorted(walk.folders(folder / "snapshots"), key=_age):
            for path in walk.files(snapshot, depth=_DEPTH):
                if _is_first(path):
                    yield _cached(repo, folder, snapshot, path)


def _cached(repo: RepoId, folder: Path, snapshot: Path, path: Path) -> FoundFile:
    name = path.relative_to(snapshot).as_posix()
    found = _file("huggingface", f"{repo}/{name}", folder, path)
    found = replace(found, repo_path=_rel_path(name))
    if CommitId.fits(snapshot.name):
        commit = CommitId.parse(snapshot.name)
        found = replace(found, origin=Origin("hub", repo, commit))
    return _of_repo(found, repo)


def _file(program: Program, name: str, root: Path, path: Path) -> FoundFile:
    return FoundFile(
        program=program,
        name=name,
        root=root,
        path=path,
        title=model_stem(path.name),
        problem=None if name.isprintable() else "its name has control characters",
    )


def _of_repo(found: FoundFile, repo: RepoId) -> FoundFile:
    """Add what a repository says of the model."""
    title = _GGUF.sub("", repo.partition("/")[2])
    return replace(found, repo=repo, names=(repo, title, *found.names))


def _rel_path(name: str) -> RelPath | None:
    return RelPath.parse(name) if RelPath.fits(name) else None


def _is_first(path: Path) -> bool:
    """Tell whether a file is a GGUF file, or the first part of a split one."""
    part = part_name(path.name)
    return part is not None and part.joined != "bytes" and part.number == 0


def _age(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0


_LISTERS = {"ollama": _ollama, "lm-studio": _lm_studio, "huggingface": _hugging_face}
