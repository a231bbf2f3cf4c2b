"""Folders as Ollama, LM Studio and huggingface_hub leave them behind."""

from __future__ import annotations

import json
from pathlib import Path

from tests.service.test_imports import COMMIT, digest
from wizard_edge.gguf_parts import SUFFIX

OLLAMA = ".ollama/models"
LM_STUDIO = ".lmstudio/models"
HUB = ".cache/huggingface/hub"
MODEL = "application/vnd.ollama.image.model"
LICENSE = "application/vnd.ollama.image.license"


def blob(root: Path, content: bytes) -> str:
    """Put bytes where Ollama has them; return their digest as a manifest names it."""
    name = digest(content)
    (root / "blobs").mkdir(parents=True, exist_ok=True)
    (root / f"blobs/sha256-{name}").write_bytes(content)
    return f"sha256:{name}"


def manifest(root: Path, name: str, layers: object) -> Path:
    """Write a manifest; `name` is HOST/NAMESPACE/MODEL/TAG."""
    path = root / "manifests" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))
    return path


def ollama(
    user: Path, content: bytes, name: str = "registry.ollama.ai/library/m/latest"
) -> Path:
    """Add a model with a licence to the store of Ollama; return its blob."""
    root = user / OLLAMA
    model = blob(root, content)
    layers = [
        {"mediaType": MODEL, "digest": model, "size": len(content)},
        {"mediaType": LICENSE, "digest": blob(root, b"\n Some  Licence\nText\n")},
        {"mediaType": "application/vnd.ollama.image.params", "digest": "sha256:0"},
    ]
    manifest(root, name, layers)
    return root / f"blobs/{model.replace(':', '-')}"


def lm_studio(user: Path, content: bytes, name: str = "owner/Repo-GGUF/m.gguf") -> Path:
    """Add a file to the folder of LM Studio."""
    path = user / LM_STUDIO / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def cached(
    user: Path,
    content: bytes,
    name: str = f"m{SUFFIX}",
    repo: str = "owner/Repo-GGUF",
    commit: str = COMMIT,
) -> Path:
    """Add a file to the cache of the hub as a link to its blob; return the blob."""
    folder = user / HUB / f"models--{repo.replace('/', '--')}"
    target = folder / "blobs" / digest(content)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    link = folder / "snapshots" / commit / name
    link.parent.mkdir(parents=True, exist_ok=True)
    up = "../" * (name.count("/") + 2)
    link.symlink_to(f"{up}blobs/{target.name}")
    return target
