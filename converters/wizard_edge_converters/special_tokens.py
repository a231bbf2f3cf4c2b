"""Which tokens are special and which of them the runtime adds to a text.

Hugging Face says it in three places: the post-processor of tokenizer.json, the names
in tokenizer_config.json, whose ids tokenizer.json knows, and the ids of config.json.
special_tokens_map.json is not one of them: those of several WizardLM repositories
call `</s>` the begin of a text.

Source: llama.cpp 0c1e57098, gguf-py/gguf/vocab.py, `SpecialVocab`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from wizard_edge.errors import CannotConvert, Corrupt
from wizard_edge_converters.checkpoint import SideFiles
from wizard_edge_converters.config import CONFIG as MODEL_CONFIG
from wizard_edge_converters.config import SPECIAL_KINDS
from wizard_edge_converters.hparams import Hparams
from wizard_edge_converters.source_files import parse_json, shown
from wizard_edge_converters.vocabulary import CONFIG, read_flag

TOKENIZER = "tokenizer.json"

_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")
_MAX_TEMPLATE = 1 << 20


@dataclass(slots=True)
class SpecialTokens:
    """`ids` and `adds` by kind, in the order in which they are to be written.

    `notes` says in sentences which ids have no row among the `size` of the embedding.
    """

    size: int
    ids: dict[str, int] = field(default_factory=dict)
    adds: dict[str, bool] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def put(self, kind: str, index: int, label: str) -> None:
        """Take an id for a kind that has none yet."""
        if index < self.size:
            self.ids.setdefault(kind, index)
        else:
            self.notes.append(
                f"{label} says {kind} is {index}, which has no row in the embedding "
                f"of {self.size}"
            )


def read_special_tokens(
    tokenizer: Mapping[str, object],
    config: Mapping[str, object],
    hparams: Hparams,
    files: SideFiles,
) -> SpecialTokens:
    """Put together what tokenizer.json, tokenizer_config.json and config.json say.

    Raises: Corrupt; CannotConvert for a post-processor of other model families.
    """
    special = SpecialTokens(hparams.vocabulary)
    names = {f"{kind}_token": config.get(f"{kind}_token") for kind in SPECIAL_KINDS}
    kinds = [*SPECIAL_KINDS]
    if tokenizer:
        # Without a tokenizer_config.json llama.cpp remembers no names.
        reader = _PostProcessor(names, kinds, special.adds, files.label(TOKENIZER))
        reader.read(tokenizer.get("post_processor"))
    ids = _ids_by_token(tokenizer, files.label(TOKENIZER))
    for kind in kinds if config else ():
        wanted = read_flag(config, f"add_{kind}_token", files.label(CONFIG))
        if wanted is not None:
            special.adds.setdefault(kind, wanted)
        index = ids.get(_content(names.get(f"{kind}_token")))
        if index is not None:
            special.put(kind, index, TOKENIZER)
    for kind, index in hparams.special_ids.items():
        special.put(kind, index, MODEL_CONFIG)
    return special


def read_template(config: Mapping[str, object], files: SideFiles) -> str | None:
    """Return the Jinja text to carry along; nothing here ever compiles it.

    Without a tokenizer_config.json there is none. Raises: Corrupt.
    """
    if not config:
        return None
    value = config.get("chat_template", _template_file(files))
    if not isinstance(value, str):
        return None
    if len(value) > _MAX_TEMPLATE:
        raise Corrupt(
            files.label(CONFIG), f"has {len(value)} letters", where="key chat_template"
        )
    return value


def _template_file(files: SideFiles) -> object:
    for name in _TEMPLATE_FILES:
        data = files.small(name)
        if data is None:
            continue
        if name.endswith(".json"):
            return parse_json(data, files.label(name)).get("chat_template")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as err:
            where = f"offset {err.start}"
            raise Corrupt(files.label(name), "is not UTF-8", where=where) from err
    return None


def _ids_by_token(tokenizer: Mapping[str, object], label: str) -> dict[str | None, int]:
    ids: dict[str | None, int] = {}
    for entry in _objects(tokenizer.get("added_tokens", []), label, "added_tokens"):
        token, index = entry.get("content"), entry.get("id")
        if isinstance(token, str) and type(index) is int and index >= 0:
            ids.setdefault(token, index)
    return ids


def _content(name: object) -> str | None:
    """Return the token that a setting names, bare or with its properties."""
    match name:
        case str():
            return name
        case {"content": str() as token}:
            return token
    return None


@dataclass(slots=True)
class _PostProcessor:
    """Reads from a post-processor what it adds, and what that says about names.

    `names` are those of tokenizer_config.json, as they stand there: with an object
    in place of a name llama.cpp takes the token for an unknown one, and so do we.
    """

    names: dict[str, object]
    kinds: list[str]
    adds: dict[str, bool]
    label: str

    def read(self, processor: object) -> None:
        if not self.names.get("bos_token") and self.names.get("cls_token"):
            self.names["bos_token"] = self.names["cls_token"]
        if not self.names.get("eos_token") and self.names.get("sep_token"):
            self.names["eos_token"] = self.names["sep_token"]
        for part in self._parts(processor):
            match part.get("type"):
                case "ByteLevel":
                    self.adds.setdefault("bos", False)
                    self.adds.setdefault("eos", False)
                case "TemplateProcessing":
                    self._read_template(part)
                case other:
                    raise CannotConvert(
                        f"{self.label} has the post-processor {shown(other)}, which "
                        "no model of the family has"
                    )

    def _parts(self, processor: object) -> list[dict[str, object]]:
        if not processor:
            return []
        whole = self._object(processor)
        if "processors" not in whole:
            return [whole]
        return list(_objects(whole["processors"], self.label, "post_processor"))

    def _read_template(self, part: dict[str, object]) -> None:
        single = list(_objects(part.get("single", []), self.label, "post_processor"))
        first = last = None
        if len(single) > 1:
            first = self._named(single[0], "SpecialToken")
            if first:
                self._read_first(first)
            last = self._named(single[-1], "SpecialToken")
            if last:
                self._read_last(last)
        pair = list(_objects(part.get("pair", []), self.label, "post_processor"))
        if pair:
            self._read_pair(pair, first, last)

    def _read_first(self, token: str) -> None:
        if token not in (self.names["bos_token"], self.names["cls_token"]):
            for name in ("bos_token", "cls_token"):
                self.names[name] = self.names[name] or token
        known = (self.names["bos_token"], self.names["cls_token"])
        self.adds["bos"] = token in known

    def _read_last(self, token: str) -> None:
        before = self.names["eos_token"]
        if token != before:
            # A template that ends with another token: the one before ends a turn.
            for kind in ("eot", "eom"):
                if kind not in self.kinds:
                    self.kinds.append(kind)
                    self.names[f"{kind}_token"] = before
                    break
            self.names["eos_token"] = token
        self.adds["eos"] = True

    def _read_pair(
        self, pair: list[dict[str, object]], first: str | None, last: str | None
    ) -> None:
        """See whether a separator stands between two texts: A [sep] [eos] B."""
        if first and self._named(pair[0], "SpecialToken") == first:
            pair = pair[1:]
        if pair and last and self._named(pair[-1], "SpecialToken") == last:
            pair = pair[:-1]
        if len(pair) < 3:
            return
        ends = self._named(pair[0], "Sequence"), self._named(pair[-1], "Sequence")
        if ends != ("A", "B"):
            return
        between = [self._named(item, "SpecialToken") for item in pair[1:-1]]
        ending = (self.names["sep_token"], self.names["eos_token"])
        adds = bool(between[0]) and between[0] in ending and not last
        if len(between) == 2 and between[1] and between[1] in ending:
            adds = True
        self.adds["sep"] = adds
        if adds and not self.names["sep_token"]:
            self.names["sep_token"] = self.names["eos_token"]

    def _named(self, item: dict[str, object], kind: str) -> str | None:
        """Return the id, a name, of a template's item of that kind."""
        name = self._object(item.get(kind, {})).get("id")
        if name is not None and not isinstance(name, str):
            raise Corrupt(self.label, f"names {shown(name)}", where="post_processor")
        return name

    def _object(self, value: object) -> dict[str, object]:
        if not isinstance(value, dict):
            raise Corrupt(self.label, "makes no sense", where="post_processor")
        return value


def _objects(value: object, label: str, where: str) -> Iterator[dict[str, object]]:
    if not isinstance(value, list):
        raise Corrupt(label, "is no list", where=where)
    for entry in value:
        if not isinstance(entry, dict):
            raise Corrupt(label, f"holds {shown(entry)}", where=where)
        yield entry
