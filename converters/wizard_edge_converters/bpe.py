"""Reads a byte-level BPE vocabulary: from tokenizer.json, or vocab.json + merges.txt.

Tokens that were added later lie in up to four files beside it; where two of them
disagree about an id the checkpoint is refused.

Source: llama.cpp 0c1e57098, conversion/base.py (`get_vocab_base`,
`_set_vocab_gpt2`), gguf-py/gguf/vocab.py (merges); transformers 5.24,
tokenization_utils_base.py, `_from_pretrained` (which files count).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field

from wizard_edge.errors import CannotConvert, Corrupt
from wizard_edge_converters.checkpoint import SideFiles
from wizard_edge_converters.config import MAX_VOCABULARY, SPECIAL_KINDS
from wizard_edge_converters.hparams import Hparams
from wizard_edge_converters.pre_tokenizers import name_by_merges, name_pre_tokenizer
from wizard_edge_converters.source_files import parse_json, shown
from wizard_edge_converters.special_tokens import (
    TOKENIZER,
    read_special_tokens,
    read_template,
)
from wizard_edge_converters.vocabulary import (
    ADDED,
    CONFIG,
    PAD_SCORE,
    AddedToken,
    Rows,
    TokenType,
    Vocabulary,
    check_id,
    check_token,
    looks_special,
    plain,
    read_added,
    read_decoder,
    read_object,
)

VOCABULARY = "vocab.json"
MERGES = "merges.txt"
SPECIAL_MAP = "special_tokens_map.json"

# Each merge makes at most one token.
MAX_MERGES = MAX_VOCABULARY
# What GPT-2's class of tokenizer takes where no file names a special token.
_DEFAULT_SPECIAL = "<|endoftext|>"


@dataclass(frozen=True, slots=True)
class _Model:
    """The part that was trained: ids by token, merges, and the name of the cut."""

    label: str
    ids: Mapping[str, int]
    merges: tuple[str, ...]
    pre: str


def read_bpe(files: SideFiles, hparams: Hparams) -> Vocabulary:
    """Read the vocabulary of a model with a byte-level BPE tokenizer.

    Raises: CannotConvert without one, or for a kind of it that llama.cpp would not
    cut right; Corrupt naming file and token.
    """
    tokenizer = read_object(files, TOKENIZER)
    config = read_object(files, CONFIG)
    model = _read_json(tokenizer, files) if tokenizer else _read_pair(files)
    rows = Rows.of_size(hparams.vocabulary)
    for token, index in model.ids.items():
        if index >= hparams.vocabulary:
            raise Corrupt(
                model.label,
                f"the id is {index}, the embedding has {hparams.vocabulary} rows",
                where=f"token {shown(token)}",
            )
        rows.put(index, token, PAD_SCORE, TokenType.NORMAL)
    added = _Added(model, files)
    added.collect(tokenizer, config)
    _put_added(rows, added.tokens, model)
    rows.check_unique(model.label)
    special = read_special_tokens(tokenizer, config, hparams, files)
    for note in special.notes:
        rows.note(note)
    special.adds.setdefault("bos", False)
    return Vocabulary(
        model="gpt2",
        pre=model.pre,
        tokens=tuple(rows.tokens),
        scores=(),
        types=tuple(rows.types),
        merges=model.merges,
        special_ids=special.ids,
        adds=special.adds,
        add_space_prefix=None,
        chat_template=read_template(config, files),
        notes=tuple(rows.notes),
    )


def _read_json(tokenizer: Mapping[str, object], files: SideFiles) -> _Model:
    label = files.label(TOKENIZER)
    model = tokenizer.get("model")
    if not isinstance(model, dict):
        raise Corrupt(label, f"is {shown(model)}", where="key model")
    _check_kind(model, label)
    ids = _read_ids(model.get("vocab"), label)
    merges = _read_merges(model.get("merges"), label)
    if not merges:
        merges = _read_merges_file(files)
    _check_merges(merges, ids, label)
    pre = name_pre_tokenizer(
        tokenizer.get("pre_tokenizer"), tokenizer.get("normalizer"), merges, label
    )
    return _Model(label, ids, merges, pre)


def _check_kind(model: Mapping[str, object], label: str) -> None:
    # Some early files do not state the type.
    if model.get("type", "BPE") != "BPE":
        raise CannotConvert(f"{label} is of the type {shown(model['type'])}, not BPE")
    if model.get("byte_fallback"):
        # llama.cpp's converter takes such a file and gives all tokens one score, so
        # that a text is no longer cut into the tokens the model was trained with.
        raise CannotConvert(
            f"{label} was made from a tokenizer.model and lacks its scores",
            hint="put the tokenizer.model of the base model beside the weights",
        )
    if model.get("ignore_merges"):
        raise CannotConvert(f"{label} ignores its merges: a tokenizer of LLaMA 3")


def _read_pair(files: SideFiles) -> _Model:
    data = files.small(VOCABULARY)
    if data is None:
        raise CannotConvert(
            f"no {TOKENIZER} and no {VOCABULARY} beside the weights: "
            f"{files.label(TOKENIZER)}",
            hint="some repositories lack it: it is that of the base model",
        )
    label = files.label(VOCABULARY)
    ids = _read_ids(parse_json(data, label), label)
    merges = _read_merges_file(files)
    _check_merges(merges, ids, files.label(MERGES))
    return _Model(label, ids, merges, name_by_merges(merges, files.label(MERGES)))


def _read_ids(value: object, label: str) -> dict[str, int]:
    if not isinstance(value, dict) or not 0 < len(value) <= MAX_VOCABULARY:
        raise Corrupt(label, "is no vocabulary")
    by_id: dict[int, str] = {}
    for token, entry in value.items():
        check_token(token, label, f"token {shown(token)}")
        index = check_id(entry, label, token)
        first = by_id.setdefault(index, token)
        if first != token:
            where = f"tokens {shown(first)} and {shown(token)}"
            raise Corrupt(label, f"both have the id {index}", where=where)
    return {token: index for index, token in by_id.items()}


def _read_merges(value: object, label: str) -> tuple[str, ...]:
    """Read merges as one text each, or as pairs, which newer files have."""
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_MERGES:
        raise Corrupt(label, "is no list of merges", where="key merges")
    merges = []
    for index, entry in enumerate(value):
        match entry:
            case str():
                merges.append(entry)
            case [str() as left, str() as right]:
                # The byte-level spelling of a space keeps the pair apart.
                merges.append(" ".join(p.replace(" ", "\u0120") for p in (left, right)))
            case _:
                raise Corrupt(label, f"is {shown(entry)}", where=f"merge {index}")
    return tuple(merges)


def _read_merges_file(files: SideFiles) -> tuple[str, ...]:
    label = files.label(MERGES)
    data = files.small(MERGES)
    if data is None:
        raise CannotConvert(
            f"no {MERGES} beside the weights: {label}",
            hint="some repositories lack it: it is that of the base model",
        )
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError as err:
        raise Corrupt(label, "is not UTF-8", where=f"offset {err.start}") from err
    if len(lines) > MAX_MERGES:
        raise Corrupt(label, f"{len(lines)} lines, at most {MAX_MERGES} are expected")
    # The first line is a version, or a merge already.
    start = 1 if lines[0].startswith("#") else 0
    stripped = (line.strip() for line in lines[start:])
    return tuple(line for line in stripped if line)


def _check_merges(merges: tuple[str, ...], ids: Mapping[str, int], label: str) -> None:
    """See that every merge joins two tokens to a third. Raises: Corrupt."""
    for number, merge in enumerate(merges):
        left, _, right = merge.partition(" ")
        if left not in ids or right not in ids or left + right not in ids:
            raise Corrupt(
                label,
                f"{shown(merge)} does not join two tokens to a third",
                where=f"merge {number}",
            )


@dataclass(slots=True)
class _Added:
    """Collects the added tokens of all files by id."""

    model: _Model
    files: SideFiles
    tokens: dict[int, AddedToken] = field(default_factory=dict)

    def collect(
        self, tokenizer: Mapping[str, object], config: Mapping[str, object]
    ) -> None:
        """Read all places. Raises: Corrupt where they disagree."""
        for index, token in _listed(tokenizer, self.files.label(TOKENIZER)):
            self._put(index, token, TOKENIZER)
        names = [*_special_names(config)]
        if "added_tokens_decoder" in config:
            decoder = read_decoder(config, self.files.label(CONFIG))
            for index, token in decoder.items():
                self._put(index, token, CONFIG)
        else:
            names += _special_names(read_object(self.files, SPECIAL_MAP))
            self._read_older(set(names))
        if not tokenizer and _DEFAULT_SPECIAL in self.model.ids:
            names.append(_DEFAULT_SPECIAL)
        self._put_named(names)

    def _read_older(self, names: Set[str]) -> None:
        label = self.files.label(ADDED)
        for token, value in read_object(self.files, ADDED).items():
            index = check_id(value, label, token)
            check_token(token, label, f"id {index}")
            special = token in names
            if index not in self.tokens:
                self._put(index, AddedToken(token, special, not special), ADDED)

    def _put(self, index: int, token: AddedToken, source: str) -> None:
        known = self.tokens.get(index)
        if known is not None and known.token != token.token:
            raise Corrupt(
                self.files.label(source),
                f"is {shown(token.token)}, elsewhere {shown(known.token)}",
                where=f"id {index}",
            )
        self.tokens[index] = token

    def _put_named(self, names: list[str]) -> None:
        """Add the special tokens that nobody gave an id: after all others."""
        known = {added.token for added in self.tokens.values()}
        unused = max((*self.model.ids.values(), *self.tokens)) + 1
        for token in names:
            if token in known:
                continue
            known.add(token)
            index = self.model.ids.get(token, unused)
            unused += index == unused
            added = AddedToken(token, special=True, normalized=False)
            self._put(index, added, CONFIG)


def _listed(
    tokenizer: Mapping[str, object], label: str
) -> Iterator[tuple[int, AddedToken]]:
    entries = tokenizer.get("added_tokens", [])
    if not isinstance(entries, list) or len(entries) > MAX_VOCABULARY:
        raise Corrupt(label, "is no list", where="added_tokens")
    for number, entry in enumerate(entries):
        where = f"added_tokens {number}"
        if not isinstance(entry, dict):
            raise Corrupt(label, f"is {shown(entry)}", where=where)
        token = read_added(entry, label, where)
        yield check_id(entry.get("id"), label, token.token), token


def _special_names(settings: Mapping[str, object]) -> Iterator[str]:
    """Name the special tokens of a tokenizer_config.json or a map of them."""
    for kind in SPECIAL_KINDS:
        yield from _contents([settings.get(f"{kind}_token")])
    for key in ("extra_special_tokens", "additional_special_tokens"):
        value = settings.get(key)
        yield from _contents(value if isinstance(value, list) else [])


def _contents(entries: list[object]) -> Iterator[str]:
    for entry in entries:
        match entry:
            case str() as token if token:
                yield token
            case {"content": str() as token} if token:
                yield token


def _put_added(rows: Rows, added: Mapping[int, AddedToken], model: _Model) -> None:
    by_id = {index: token for token, index in model.ids.items()}
    for index, entry in sorted(added.items()):
        trained = by_id.get(index)
        if trained is not None and trained != entry.token:
            raise Corrupt(
                model.label,
                f"is {shown(trained)}, but {shown(entry.token)} was added as it",
                where=f"id {index}",
            )
        if not rows.fits(index, entry.token, model.label):
            continue
        token = entry.token if entry.normalized else _as_decoded(entry.token)
        if entry.special or looks_special(token):
            rows.put(index, token, PAD_SCORE, TokenType.CONTROL)
        else:
            rows.put(index, plain(token), PAD_SCORE, TokenType.USER_DEFINED)


def _as_decoded(token: str) -> str:
    """Spell a token that is matched before the bytes are spelled as letters.

    Decoding takes it for such letters where it can be read as some.
    Source: huggingface/tokenizers 0.23, pre_tokenizers/byte_level.rs, `decode_chain`.
    """
    if any(letter not in _BYTES for letter in token):
        return token
    return bytes(_BYTES[letter] for letter in token).decode("utf-8", "replace")


def _byte_letters() -> dict[str, int]:
    """Return the byte for each letter of the byte-level alphabet.

    Source: openai/gpt-2 src/encoder.py, `bytes_to_unicode`.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTES = _byte_letters()
