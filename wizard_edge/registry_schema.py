"""The schema of models.toml, and how its tables become values.

`FILE` names every key there is with what reads it; docs/models.md explains them.
`spec_from` and `license_from` take tables that were read and found complete.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

from wizard_edge.models import (
    Base,
    Dtype,
    Format,
    Joined,
    License,
    Mirror,
    ModelSpec,
    Positions,
    RemoteFile,
    RopeScaling,
    SamplingDefaults,
    Scores,
    Shape,
    Source,
    State,
    Tokenizer,
    TokenizerKind,
    Variant,
    Weights,
)
from wizard_edge.names import CommitId, ModelName, RelPath, RepoId, Sha256
from wizard_edge.refs import parse_quant
from wizard_edge.tables import (
    Keys,
    ListOf,
    Misfit,
    Named,
    Table,
    count,
    index,
    knows,
    lines,
    name,
    number,
    one_of,
    text,
    url,
)
from wizard_edge.templates import TEMPLATES

# Stands for the quant in a file name that is given once for all variants.
QUANT_MARK = "{quant}"


def _commercial(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    if value == "unverified":
        return None
    raise Misfit(f"wants true, false or 'unverified', got {value!r}")


def _architecture(value: Any) -> str:
    if text(value) != value.lower() or not value.isidentifier():
        raise Misfit(f"wants llama.cpp's name of an architecture, got {value!r}")
    return str(value)


def _key_of_license(value: Any) -> str:
    return _known_key(LICENSE, value)


def _key_of_model(value: Any) -> str:
    return _known_key(MODEL, value)


def _known_key(table: Keys, value: Any) -> str:
    if not knows(table, text(value).split(".")):
        raise Misfit(f"{value!r} is no key of this table")
    return str(value)


_TEXTS = ListOf(text)
_SIZE_OR_ABOUT = (("size", "about"),)
_FILE_FACTS = {"size": count, "about": count, "sha256": Sha256.parse}
_WEIGHTS = one_of(*get_args(Weights))
_REVISION_OF_REPO = {"revision": "repo"}

LICENSE = Keys(
    required={"name": text, "expression": text, "commercial": _commercial},
    optional={
        "url": url,
        "use_policy": url,
        "obligations": _TEXTS,
        "restrictions": _TEXTS,
        "notice": lines,
        "unverified": ListOf(_key_of_license),
        "sources": _TEXTS,
    },
)

_SHAPE = Keys(
    required=dict.fromkeys(
        ("layers", "hidden", "ffn", "heads", "kv_heads", "vocabulary"), count
    ),
    optional={
        "norm_eps": number,
        "positions": one_of(*get_args(Positions)),
        "rope_theta": number,
        "rope_scaling": Keys(required={"type": one_of("linear"), "factor": number}),
        "sliding_window": count,
        "experts": count,
        "experts_used": count,
    },
)

_TOKENIZER = Keys(
    required={"kind": one_of(*get_args(TokenizerKind))},
    optional={
        "bos": index,
        "eos": index,
        "pad": index,
        "added": Named("<token>", text, index),
    },
)

_SCORES = Keys(
    required={"source": text},
    optional={
        "humaneval": number,
        "humaneval_plus": number,
        "mbpp": number,
        "mbpp_plus": number,
        "gsm8k": number,
        "math": number,
        "mt_bench": number,
        "alpaca_eval": number,
    },
)

_SOURCE = Keys(
    optional={
        "repo": RepoId.parse,
        "package": RelPath.parse,
        "revision": CommitId.parse,
        "former": ListOf(RepoId.parse),
        "state": one_of(*get_args(State)),
        "kind": _WEIGHTS,
        "format": one_of(*get_args(Format)),
        "dtype": one_of(*get_args(Dtype)),
        "shards": count,
        "size": count,
        "about": count,
        "license": name,
        "mirrors": ListOf(
            Keys(
                required={"repo": RepoId.parse},
                optional={"kind": _WEIGHTS, "note": text},
            )
        ),
        "files": Named(
            "<file>",
            RelPath.parse,
            Keys(optional=_FILE_FACTS, rivals=_SIZE_OR_ABOUT),
            whole=True,
        ),
    },
    rivals=(("repo", "package"), *_SIZE_OR_ABOUT),
    part_of=_REVISION_OF_REPO,
)

_VARIANT = Keys(
    optional={
        "repo": RepoId.parse,
        "revision": CommitId.parse,
        "file": RelPath.parse,
        **_FILE_FACTS,
        "joined": one_of(*get_args(Joined)),
        "parts": ListOf(
            Keys(
                required={"file": RelPath.parse},
                optional=_FILE_FACTS,
                rivals=_SIZE_OR_ABOUT,
            )
        ),
    },
    rivals=(*_SIZE_OR_ABOUT, ("parts", "file"), ("parts", "sha256")),
)

MODEL = Keys(
    required={
        "architecture": _architecture,
        "template": one_of(*TEMPLATES),
        "licenses": ListOf(name),
    },
    optional={
        "title": text,
        "family": text,
        "aliases": ListOf(name),
        "hf_class": text,
        "parameters": count,
        "shape": _SHAPE,
        "tokenizer": _TOKENIZER,
        "context": count,
        "training_length": count,
        "alternative_templates": ListOf(one_of(*TEMPLATES)),
        "sampling": Keys(required={"temperature": number, "top_p": number}),
        "license_conflict": text,
        "base": Keys(
            required={"name": text}, optional={"repo": RepoId.parse, "license": name}
        ),
        "scores": _SCORES,
        "traps": _TEXTS,
        "unverified": ListOf(_key_of_model),
        "inferred": ListOf(_key_of_model),
        "sources": _TEXTS,
        "source": _SOURCE,
        "gguf": Keys(
            required={"repo": RepoId.parse, "file": RelPath.parse},
            optional={"revision": CommitId.parse, "llama_cpp": text},
            part_of=_REVISION_OF_REPO,
        ),
        "variants": Named("<quant>", parse_quant, _VARIANT, whole=True),
    },
)

FILE = Keys(
    required={"schema": count},
    optional={
        "licenses": Named("<id>", name, LICENSE),
        "models": Named("<name>", name, MODEL),
    },
)


# ---- from tables to values -------------------------------------------------------


def check_licenses(table: Table, known: Mapping[str, object]) -> None:
    """Check that every licence a model names is there. Raises: Misfit."""
    used = [("licenses", id_) for id_ in table["licenses"]]
    parts = [(key, table.get(key, {}).get("license")) for key in ("base", "source")]
    for key, id_ in (*used, *parts):
        if id_ is not None and id_ not in known:
            hint = f"known: {', '.join(known)}"
            raise Misfit(f"unknown licence {id_!r}", key, hint=hint)


def license_from(id_: str, table: Table) -> License:
    """Make a licence of its complete table."""
    return License(id=id_, **table)


def spec_from(model: str, table: Table) -> ModelSpec:
    """Make a model of its complete table.

    Raises: Misfit where keys that are right alone do not go together.
    """
    fields = {"title": model, **table}
    gguf = fields.pop("gguf", {})
    for key, make in _VALUES.items():
        if key in fields:
            fields[key] = make(**fields[key])
    if "source" in table:
        fields["source"] = _source(table["source"], fields.get("base"))
    fields["variants"] = tuple(
        _variant(quant, entry, gguf)
        for quant, entry in table.get("variants", {}).items()
    )
    if "source" not in fields and not fields["variants"]:
        raise Misfit("has neither a source nor variants", hint="name one of them")
    return ModelSpec(name=ModelName(model), **fields)


def _shape(*, rope_scaling: Table | None = None, **sizes: Any) -> Shape:
    scaling = RopeScaling(**rope_scaling) if rope_scaling else None
    return Shape(rope_scaling=scaling, **sizes)


_VALUES: Mapping[str, Callable[..., object]] = {
    "base": Base,
    "shape": _shape,
    "tokenizer": Tokenizer,
    "sampling": SamplingDefaults,
    "scores": Scores,
}


def _source(table: Table, base: Base | None) -> Source:
    if "repo" not in table and "package" not in table:
        raise Misfit("wants a repo or a package", "source")
    delta = table.get("kind") == "delta"
    if delta and base is None:
        raise Misfit("is missing, and the source is a delta", "base")
    size, size_exact = _size(table)
    fields = {key: table[key] for key in table if key not in ("kind", "size", "about")}
    fields["mirrors"] = tuple(Mirror(**mirror) for mirror in table.get("mirrors", ()))
    fields["files"] = tuple(
        _remote(file, entry, table) for file, entry in table.get("files", {}).items()
    )
    return Source(
        delta_of=base if delta else None, size=size, size_exact=size_exact, **fields
    )


def _variant(quant: str, table: Table, gguf: Table) -> Variant:
    place = table if "repo" in table else {**gguf, **table}
    if "repo" not in place:
        raise Misfit("has no repo, and the model no gguf", "variants", quant)
    joined: Joined = table.get("joined", "whole")
    if (joined == "whole") == ("parts" in table):
        raise Misfit("wants both 'parts' and 'joined', or neither", "variants", quant)
    pattern = table.get("file") or gguf.get("file")
    if "parts" in table:
        files = tuple(_remote(part["file"], part, place) for part in table["parts"])
    elif pattern:
        files = (_remote(pattern.replace(QUANT_MARK, quant), table, place),)
    else:
        raise Misfit("has no file, and the model no gguf", "variants", quant)
    size, size_exact = _size(table)
    return Variant(quant, files, joined, size, size_exact)


def _remote(path: str, table: Table, place: Table) -> RemoteFile:
    size, size_exact = _size(table)
    return RemoteFile(
        repo=place.get("repo"),
        revision=place.get("revision"),
        path=RelPath(path),
        size=size,
        size_exact=size_exact,
        sha256=table.get("sha256"),
    )


def _size(table: Table) -> tuple[int | None, bool]:
    return table.get("size", table.get("about")), "size" in table
