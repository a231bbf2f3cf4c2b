"""Reads the manifests of an Ollama store; each is taken for hostile.

`manifests/HOST/NAMESPACE/MODEL/TAG` is a JSON object whose `layers` have a
`mediaType` and a `digest`, `sha256:` and 64 hex digits; the bytes lie in
`blobs/sha256-DIGITS`. Other keys, and layers of other types, say nothing to us.

Source: Ollama 02e25b32f, server/manifest.go, server/layer.go, server/modelpath.go.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from wizard_edge.errors import UsageError, WizardEdgeError
from wizard_edge.files import open_regular
from wizard_edge.names import RelPath, Sha256
from wizard_edge.paths import place
from wizard_edge.service.walking import Walk

__all__ = ["Manifest", "list_manifests"]

_MODEL = "application/vnd.ollama.image.model"
_ADAPTER = "application/vnd.ollama.image.adapter"
_LICENSE = "application/vnd.ollama.image.license"
_HOST = "registry.ollama.ai"
_NAMESPACE = "library"
# A manifest has 1 KB, seven layers at most.
_MAX_SIZE = 64 << 10
_MAX_LAYERS = 64
_MAX_LICENSES = 8
# The first line of a licence tells which it is.
_MAX_HEADING = 4 << 10
_HEADING = 80


@dataclass(frozen=True, slots=True)
class Manifest:
    """A model of an Ollama store.

    `blob` and `sha256` are those of its GGUF file; where they are None `problem` says
    why. `licenses` are how its licence texts begin.
    """

    path: Path
    host: str
    namespace: str
    model: str
    tag: str
    blob: Path | None = None
    sha256: Sha256 | None = None
    licenses: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def name(self) -> str:
        """What Ollama calls it."""
        parts = [self.model]
        if (self.host, self.namespace) != (_HOST, _NAMESPACE):
            parts.insert(0, self.namespace)
        if self.host != _HOST:
            parts.insert(0, self.host)
        return f"{'/'.join(parts)}:{self.tag}"


def list_manifests(root: Path) -> Iterator[Manifest]:
    """Yield what an Ollama store has; reads no GGUF file."""
    walk = Walk(root)
    top = root / "manifests"
    # No folder is a link, so that nothing outside the store is read.
    if top.is_symlink():
        return
    for host in walk.folders(top):
        for namespace in walk.folders(host):
            for model in walk.folders(namespace):
                for path in walk.files(model, depth=0):
                    found = Manifest(
                        path, host.name, namespace.name, model.name, path.name
                    )
                    yield _read(root, found)


def _read(root: Path, manifest: Manifest) -> Manifest:
    if not manifest.name.isprintable():
        return replace(manifest, problem="its name has control characters")
    try:
        layers = _layers(manifest.path)
        models = layers.get(_MODEL, [])
        if len(models) != 1:
            raise UsageError(f"its manifest names {len(models)} models instead of one")
        if _ADAPTER in layers:
            raise UsageError("it has an adapter, which this program does not apply")
        headings = [_heading(root, digest) for digest in layers.get(_LICENSE, [])]
        return replace(
            manifest,
            blob=_blob(root, models[0]),
            sha256=models[0],
            licenses=tuple(filter(None, headings[:_MAX_LICENSES])),
        )
    except WizardEdgeError as err:
        return replace(manifest, problem=err.message)


def _layers(path: Path) -> Mapping[str, list[Sha256]]:
    """Return the digests of the layers by their type. Raises: UsageError, Refused."""
    if path.is_symlink():
        raise UsageError("its manifest is a link")
    with os.fdopen(open_regular(path), "rb") as file:
        content = file.read(_MAX_SIZE + 1)
    if len(content) > _MAX_SIZE:
        raise UsageError(f"its manifest has more than {_MAX_SIZE} bytes")
    try:
        decoded: object = json.loads(content)
    except (ValueError, RecursionError) as err:
        raise UsageError("its manifest is no JSON") from err
    listed = decoded.get("layers") if isinstance(decoded, dict) else None
    if not isinstance(listed, list) or len(listed) > _MAX_LAYERS:
        raise UsageError("its manifest has no list of layers")
    layers: dict[str, list[Sha256]] = {}
    for layer in listed:
        kind = layer.get("mediaType") if isinstance(layer, dict) else None
        if kind in (_MODEL, _ADAPTER, _LICENSE):
            layers.setdefault(kind, []).append(_digest(layer.get("digest")))
    return layers


def _digest(value: object) -> Sha256:
    text = value.removeprefix("sha256:") if isinstance(value, str) else value
    if text == value:
        raise UsageError("its manifest has a layer without a SHA-256")
    return Sha256.parse(text)


def _blob(root: Path, digest: Sha256) -> Path:
    return place(root, RelPath.parse(f"blobs/sha256-{digest}"))


def _heading(root: Path, digest: Sha256) -> str | None:
    """Return how a licence begins; None where that cannot be read."""
    path = _blob(root, digest)
    try:
        if not path.resolve().is_relative_to(root):
            return None
        with os.fdopen(open_regular(path), "rb") as file:
            text = file.read(_MAX_HEADING).decode("utf-8", "replace")
    except (WizardEdgeError, OSError, RuntimeError):
        return None
    lines = [" ".join(line.split()) for line in text.splitlines()]
    heading = next(filter(None, lines), "")[:_HEADING]
    return heading if heading.isprintable() and heading else None
