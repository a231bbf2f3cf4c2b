"""What a person writes to name a model, and the quants there are.

Parsing is pure: it looks at no disk, no registry and no hub. Whether the thing
exists is found out by whoever opens it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from wizard_edge.errors import UnknownQuant, UsageError
from wizard_edge.names import RelPath, RepoId, Sha256

RefKind = Literal["registry", "file", "hub", "url"]

# Source: QUANT_OPTIONS in tools/quantize/quantize.cpp of llama.cpp 0c1e57098,
# without its aliases, ternary types and COPY; from large files to small ones.
QUANTS: tuple[str, ...] = (
    *("F32", "F16", "BF16", "Q8_0", "Q6_K"),
    *("Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0"),
    *("Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS"),
    *("Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S", "IQ3_XS", "IQ3_XXS"),
    *("Q2_K", "Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS"),
    *("IQ1_M", "IQ1_S"),
)
DEFAULT_QUANT = "Q4_K_M"

_HUB = "hf:"
_SHA256 = "sha256="
# No user, no password: both would be shown.
_URL = re.compile(r"https?://[^\s/@#]+/[!-~]+")
_HERE = re.compile(r"http://(127\.0\.0\.1|\[::1\]|localhost)(:\d+)?/")
_HINT_URL = "write https://HOST/FILE.gguf or https://HOST/FILE.gguf#sha256=DIGEST"
_PATH_START = re.compile(r"[./\\~]|[A-Za-z]:[\\/]")


def parse_quant(text: str) -> str:
    """Give a quant its one spelling: `q4_k_m` becomes `Q4_K_M`.

    Raises: UnknownQuant for a name that llama.cpp does not know.
    """
    quant = text.upper()
    if quant not in QUANTS:
        raise UnknownQuant(text, known=QUANTS)
    return quant


@dataclass(frozen=True, slots=True)
class ModelRef:
    """One of `RegistryRef`, `FileRef`, `HubRef`, `UrlRef`; `kind` says which."""

    kind: ClassVar[RefKind]

    @staticmethod
    def parse(text: str) -> RegistryRef | FileRef | HubRef | UrlRef:
        """Read what a person typed.

        `hf:owner/repo`, `hf:owner/repo:QUANT` and `hf:owner/repo/file.gguf` mean the
        hub, `https://…/file.gguf` an address. A path is what begins like one (`./`,
        `/`, `../`, `~`, `C:\\`), ends in `.gguf` or `/`, or has more than one `/`. All
        else is a name in the registry (`13b`, `WizardLM-13B-V1.2:q4_k_m`), an official
        repository's id included.

        Raises: UsageError for text that is none of these, UnknownQuant.
        """
        if not text.strip() or not text.isprintable():
            raise UsageError(f"not a model: {text!r}", hint=_HINT)
        if text.startswith(_HUB):
            return HubRef._parse(text.removeprefix(_HUB))
        if "://" in text:
            return UrlRef._parse(text)
        if _is_path(text):
            return FileRef(Path(text))
        name, colon, quant = text.strip().partition(":")
        if not name or (colon and not quant):
            raise UsageError(f"not a model: {text!r}", hint=_HINT)
        return RegistryRef(name, parse_quant(quant) if quant else None)


@dataclass(frozen=True, slots=True)
class RegistryRef(ModelRef):
    """A model by its name, title, alias or official repository, as it was typed."""

    kind = "registry"
    name: str
    quant: str | None = None

    def __str__(self) -> str:
        return f"{self.name}:{self.quant}" if self.quant else self.name


@dataclass(frozen=True, slots=True)
class FileRef(ModelRef):
    """A GGUF file or a checkpoint directory on this machine."""

    kind = "file"
    path: Path

    def __str__(self) -> str:
        text = str(self.path)
        return text if _is_path(text) else f"./{text}"


@dataclass(frozen=True, slots=True)
class HubRef(ModelRef):
    """A repository of the hub, or one GGUF file in it; never both quant and file."""

    kind = "hub"
    repo: RepoId
    file: RelPath | None = None
    quant: str | None = None

    def __str__(self) -> str:
        file = f"/{self.file}" if self.file else ""
        quant = f":{self.quant}" if self.quant else ""
        return f"{_HUB}{self.repo}{file}{quant}"

    @classmethod
    def _parse(cls, text: str) -> HubRef:
        place, colon, quant = text.partition(":")
        owner, _, rest = place.partition("/")
        name, slash, file = rest.partition("/")
        repo = RepoId.parse(f"{owner}/{name}" if rest else place)
        if slash and (colon or not file.lower().endswith(".gguf")):
            raise UsageError(f"not a GGUF file on the hub: {text!r}", hint=_HINT)
        if colon and not quant:
            raise UsageError(f"not a model: {_HUB}{text}", hint=_HINT)
        return cls(
            repo,
            file=RelPath.parse(file) if slash else None,
            quant=parse_quant(quant) if quant else None,
        )


@dataclass(frozen=True, slots=True)
class UrlRef(ModelRef):
    """A GGUF file at an address; `sha256` is what its fragment says it must have."""

    kind = "url"
    url: str
    sha256: Sha256 | None = None

    def __str__(self) -> str:
        return self.url

    @classmethod
    def _parse(cls, text: str) -> UrlRef:
        url, mark, fragment = text.partition("#")
        digest = None
        if mark:
            if not fragment.startswith(_SHA256):
                raise UsageError(f"not a model: {text!r}", hint=_HINT_URL)
            digest = Sha256.parse(fragment.removeprefix(_SHA256))
        if not _URL.fullmatch(url):
            raise UsageError(f"not a model: {text!r}", hint=_HINT_URL)
        # What nobody can change on the way needs no hash.
        if not url.startswith("https:") and not digest and not _HERE.match(url):
            raise UsageError(
                f"{url} can be changed on the way by anybody",
                hint="write https://, or add #sha256=DIGEST",
            )
        return cls(url, digest)


_HINT = "write NAME[:QUANT], ./file.gguf or hf:owner/repo[:QUANT|/file.gguf]"


def _is_path(text: str) -> bool:
    return (
        _PATH_START.match(text) is not None
        or text.lower().endswith((".gguf", "/", "\\"))
        or text.count("/") > 1
    )
