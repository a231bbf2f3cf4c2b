"""Recognises how a BPE tokenizer cuts a text before it merges, by llama.cpp's names.

llama.cpp's converter asks transformers to encode a fixed text and looks the hash of
the ids up in a table. Without transformers the same follows from the description in
tokenizer.json: each known one is here beside its name, any other is refused.

Source: llama.cpp 0c1e57098, conversion/base.py (`get_vocab_base_pre`),
src/llama-vocab.cpp (the patterns of `refact` and `deepseek-coder`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wizard_edge.errors import CannotConvert, Corrupt
from wizard_edge_converters.source_files import shown

# Digits one by one, then the pattern of GPT-2. The vocabulary of StarCoder, which
# Refact shares, hashes to `refact`; `starcoder` is that of StarCoder 2, which is cut
# alike: seen with tokenizers 0.23 on the vocabularies in llama.cpp's models/.
STARCODER = "refact"
DEEPSEEK_CODER = "deepseek-coder"

# The settings of a step that change the cut, with what tokenizers takes for them.
_SETTINGS: Mapping[str, Mapping[str, object]] = {
    "Digits": {"individual_digits": False},
    "ByteLevel": {"add_prefix_space": True, "use_regex": True},
}
_Step = tuple[object, ...]


def _split(pattern: str) -> _Step:
    return ("Split", pattern, "Isolated", False)


_KNOWN: Mapping[tuple[_Step, ...], str] = {
    (("Digits", True), ("ByteLevel", False, True)): STARCODER,
    (
        _split("[\r\n]"),
        _split(r"\s?\p{L}+"),
        _split(r"\s?\p{P}+"),
        _split("[一-龥ࠀ-一가-퟿]+"),
        ("Digits", True),
        ("ByteLevel", False, False),
    ): DEEPSEEK_CODER,
}
_BYTE_LEVEL_ALONE = (("ByteLevel", False, True),)
_DIGITS = frozenset("0123456789")


def name_pre_tokenizer(
    description: object, normalizer: object, merges: Sequence[str], label: str
) -> str:
    """Return llama.cpp's name of a pre-tokenizer that tokenizer.json describes.

    Raises: CannotConvert for one that is not known; Corrupt for no description.
    """
    if normalizer and normalizer != {"type": "Sequence", "normalizers": []}:
        raise CannotConvert(
            f"{label} has the normalizer {shown(normalizer)}, which llama.cpp has not"
        )
    parts = tuple(_steps(description, label))
    if parts == _BYTE_LEVEL_ALONE:
        return name_by_merges(merges, label)
    name = _KNOWN.get(parts)
    if name is None:
        spelled = " > ".join(str(part[0]) for part in parts) or "none"
        raise CannotConvert(
            f"{label} has a pre-tokenizer that is not known: {spelled}",
            hint=f"known are {', '.join(sorted(set(_KNOWN.values())))}",
        )
    return name


def name_by_merges(merges: Sequence[str], label: str) -> str:
    """Return the name where only the merges tell: where none joins a digit, a text
    cut by GPT-2's pattern alone gives the ids that StarCoder's cut gives.

    llama.cpp's fixed text does, which is how its converter comes to the same name.
    Raises: CannotConvert.
    """
    joined = next((merge for merge in merges if not _DIGITS.isdisjoint(merge)), None)
    if joined is None:
        return STARCODER
    raise CannotConvert(
        f"{label} does not say how it cuts a text, and it is not StarCoder's way: "
        f"it has the merge {shown(joined)}",
        hint="a tokenizer.json that comes with the model says it",
    )


def _steps(description: object, label: str) -> list[_Step]:
    """List the steps, each by its type and by what changes the cut."""
    if description is None:
        return []
    if not isinstance(description, dict):
        raise Corrupt(label, f"is {shown(description)}", where="pre_tokenizer")
    kind = description.get("type")
    parts = description.get("pretokenizers")
    if kind == "Sequence" and isinstance(parts, list):
        return [_describe(part, label) for part in parts]
    return [_describe(description, label)]


def _describe(step: object, label: str) -> _Step:
    if not isinstance(step, dict):
        raise Corrupt(label, f"is {shown(step)}", where="pre_tokenizer")
    kind = step.get("type")
    pattern = step.get("pattern")
    if kind == "Split" and isinstance(pattern, dict):
        behavior, invert = step.get("behavior"), step.get("invert", False)
        return _step(kind, pattern.get("Regex"), behavior, invert)
    settings = _SETTINGS.get(kind, {}) if isinstance(kind, str) else {}
    values = (step.get(key, default) for key, default in settings.items())
    return _step(kind, *values)


def _step(*values: object) -> _Step:
    """Keep what can be compared as it is; anything else is none we know."""
    return tuple(
        value if isinstance(value, str | bool) else shown(value) for value in values
    )
