"""Settings: `config.toml` under `WIZARD_EDGE_*` under what the caller says.

`SETTINGS` is the whole list, one row per key. Reading is strict: a misspelt key or
a value that does not fit is an error that names its place, never ignored. Knows no
engine and no model: what a setting does is decided where it is used.
"""

from __future__ import annotations

import json
import logging
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeGuard

from wizard_edge.errors import ConfigError
from wizard_edge.files import write_atomically
from wizard_edge.paths import CONFIG_VARIABLE, HOME_VARIABLE

Value = str | int | float | bool
Kind = Literal["text", "whole", "number", "yes-no", "choice", "layers"]

SCHEMA = 1
VARIABLE_PREFIX = "WIZARD_EDGE_"

UPGRADE_HINT = "upgrade with: pip install --upgrade wizard-edge"

_TITLE = "# Settings of wizard-edge; 'wizard-edge config' lists them.\n"
_LAYER_WORDS = ("auto", "all")
_YES_NO = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table: a key, what it takes and what it is for.

    `low` and `high` bound numbers; they are the bounds of `Sampling` and
    `LoadOptions`.
    """

    key: str
    kind: Kind
    help: str
    low: float = 0
    high: float = 0
    choices: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """The environment variable that overrides the file."""
        return VARIABLE_PREFIX + self.key.replace("-", "_").upper()

    @property
    def field(self) -> str:
        """The attribute of `Settings`."""
        return self.key.replace("-", "_")

    @property
    def wants(self) -> str:
        """What a value has to be, to stand after "must be"."""
        span = f"number from {self.low} to {self.high}"
        if self.kind == "whole":
            return f"a whole {span}"
        if self.kind == "number":
            return f"a {span}"
        if self.kind == "yes-no":
            return "true or false"
        if self.kind == "choice":
            return f"one of {', '.join(self.choices)}"
        if self.kind == "layers":
            return f"{', '.join(self.choices)} or a whole {span}"
        return "a text on one line"


SETTINGS: dict[str, Setting] = {
    setting.key: setting
    for setting in (
        Setting("model", "text", "model that 'run' opens when none is named"),
        Setting("ctx-size", "whole", "context in tokens", 8, 2**24),
        Setting("threads", "whole", "threads that generate", 1, 1024),
        Setting("prompt-threads", "whole", "threads that read the prompt", 1, 1024),
        Setting(
            "gpu-layers",
            "layers",
            "layers moved to a GPU",
            0,
            10_000,
            choices=_LAYER_WORDS,
        ),
        Setting(
            "kv-type",
            "choice",
            "number format of the context memory",
            choices=("f16", "q8_0", "q4_0"),
        ),
        Setting("flash-attention", "yes-no", "use flash attention"),
        Setting("mmap", "yes-no", "map the model file instead of reading it"),
        Setting("mlock", "yes-no", "keep the model from being swapped out"),
        Setting("deterministic", "yes-no", "evaluate every token alone, to the bit"),
        Setting("parallel", "whole", "conversations of an engine at once", 1, 256),
        Setting("lookup", "yes-no", "guess what was said before; unset: if faster"),
        Setting("low-memory", "yes-no", "save memory where nothing else is said"),
        Setting(
            "overflow",
            "choice",
            "what happens when a conversation outgrows the context",
            choices=("drop-oldest-turns", "shift", "error"),
        ),
        Setting(
            "session-disk",
            "whole",
            "disk that saved states of sessions may take, in bytes",
            0,
            2**50,
        ),
        Setting("temperature", "number", "0 takes the likeliest token", 0, 100),
        Setting("top-k", "whole", "choose among the K likeliest, 0 is off", 0, 10**6),
        Setting("top-p", "number", "choose among this share, 1 is off", 0, 1),
        Setting("min-p", "number", "drop tokens below this share of the best", 0, 1),
        Setting("repeat-penalty", "number", "1 does not punish", 0.01, 100),
        Setting("seed", "whole", "start of the random numbers", 0, 2**32 - 2),
        Setting("max-tokens", "whole", "longest answer in tokens", 1, 2**31 - 1),
        Setting("commercial", "yes-no", "refuse models not free for commercial use"),
    )
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What one place says, or several laid over each other; None = says nothing."""

    model: str | None = None
    ctx_size: int | None = None
    threads: int | None = None
    prompt_threads: int | None = None
    gpu_layers: Literal["auto", "all"] | int | None = None
    kv_type: Literal["f16", "q8_0", "q4_0"] | None = None
    flash_attention: bool | None = None
    mmap: bool | None = None
    mlock: bool | None = None
    deterministic: bool | None = None
    parallel: int | None = None
    lookup: bool | None = None
    low_memory: bool | None = None
    overflow: Literal["drop-oldest-turns", "shift", "error"] | None = None
    session_disk: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    commercial: bool | None = None

    def get(self, key: str) -> Value | None:
        """Return the value of a key. Raises: ConfigError for an unknown key."""
        value: Value | None = getattr(self, find_setting(key).field)
        return value

    def over(self, weaker: Settings) -> Settings:
        """Return these settings, and where they say nothing, the weaker ones."""
        return _settings(
            {
                item.name: value
                for item in fields(self)
                for layer in (weaker, self)
                if (value := getattr(layer, item.name)) is not None
            }
        )


def load_settings(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read the file, which need not exist, and lay the environment over it.

    Raises: ConfigError naming file or variable, key and value.
    """
    return read_environment(environ).over(read_file(path))


def read_file(path: Path) -> Settings:
    """Read a settings file; one that is not there says nothing.

    Raises: ConfigError naming file, key and value; for a schema from the future too.
    """
    found: dict[str, Value] = {}
    where = f"{path}: "
    for key, value in _table(path, _text(path)).items():
        if key != "schema":
            setting = find_setting(key, where=where)
            found[setting.field] = _checked(setting, value, where)
    return _settings(found)


def read_environment(environ: Mapping[str, str]) -> Settings:
    """Read the `WIZARD_EDGE_*` variables; an empty one says nothing.

    Raises: ConfigError naming the variable and its value.
    """
    known = {setting.variable: setting for setting in SETTINGS.values()}
    found: dict[str, Value] = {}
    for variable, text in environ.items():
        if variable in known and text:
            setting = known[variable]
            found[setting.field] = parse_value(setting.key, text, where=f"{variable}: ")
        elif variable.startswith(VARIABLE_PREFIX) and variable not in (
            *known,
            HOME_VARIABLE,
            CONFIG_VARIABLE,
        ):
            _logger.warning("environment variable %s means nothing here", variable)
    return _settings(found)


def find_setting(key: str, *, where: str = "") -> Setting:
    """Return the row of a key. Raises: ConfigError naming near keys."""
    if key not in SETTINGS:
        from difflib import get_close_matches

        near = get_close_matches(key, SETTINGS, n=3)
        raise ConfigError(
            f"{where}unknown setting {key!r}",
            hint=f"did you mean {' or '.join(near)}?"
            if near
            else f"known: {', '.join(SETTINGS)}",
        )
    return SETTINGS[key]


def parse_value(key: str, text: str, *, where: str = "") -> Value:
    """Read a value as a variable or a command line spells it.

    Raises: ConfigError for an unknown key or a value that does not fit.
    """
    setting = find_setting(key, where=where)
    try:
        return _checked(setting, _READERS[setting.kind](text), where)
    except (ValueError, KeyError, ConfigError):
        raise _misfit(setting, text, where) from None


def write_setting(path: Path, key: str, value: Value | None) -> None:
    """Put a value into the file, or take it out with None; the rest stays as it is.

    Comments and order are kept. The file is made when there is none.
    Raises: ConfigError for an unknown key, a value that does not fit or a file
    that makes no sense; Refused or NotEnough when it cannot be written.
    """
    setting = find_setting(key)
    # A settings file is often a link into a folder of dotfiles: keep the link.
    path = path.resolve()
    text = _text(path)
    expected = _table(path, text)
    if value is None and key not in expected:
        return
    if "schema" not in expected:
        text = (_TITLE if not text else "") + f"schema = {SCHEMA}\n" + text
        expected = {"schema": SCHEMA, **expected}
    if value is None:
        del expected[key]
        text = _without(text, key)
    else:
        expected[key] = value = _checked(setting, value, "")
        text = _with(text, key, _spell(value))
    if _decode(path, text) != expected:
        raise ConfigError(
            f"{path}: cannot change {key!r} and keep the rest",
            hint="edit the file by hand",
        )
    write_atomically(path, text.encode())


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"{path} cannot be read: {err}") from err


def _table(path: Path, text: str) -> dict[str, object]:
    table = _decode(path, text)
    schema = table.get("schema", SCHEMA)
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise ConfigError(f"{path}: schema must be a whole number, got {schema!r}")
    if schema > SCHEMA:
        raise ConfigError(
            f"{path} has schema {schema}, this version reads up to {SCHEMA}",
            hint=UPGRADE_HINT,
        )
    return table


def _decode(path: Path, text: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    # ValueError also from int(), which bounds its digits; tomllib recurses.
    except (ValueError, RecursionError) as err:
        raise ConfigError(f"{path} is not TOML: {err}") from err


def _checked(setting: Setting, value: object, where: str) -> Value:
    if not _fits(value, setting):
        raise _misfit(setting, value, where)
    return float(value) if setting.kind == "number" else value


def _fits(value: object, setting: Setting) -> TypeGuard[Value]:
    if isinstance(value, bool) or setting.kind == "yes-no":
        return isinstance(value, bool) and setting.kind == "yes-no"
    if isinstance(value, str):
        if setting.kind == "text":
            return value.isprintable() and value != ""
        return value in setting.choices
    if setting.kind == "number":
        return isinstance(value, int | float) and setting.low <= value <= setting.high
    if setting.kind in ("whole", "layers"):
        return isinstance(value, int) and setting.low <= value <= setting.high
    return False


def _misfit(setting: Setting, value: object, where: str) -> ConfigError:
    return ConfigError(f"{where}{setting.key} must be {setting.wants}, got {value!r}")


# Any: every value went through `_checked`, whose rows mirror the fields.
def _settings(values: dict[str, Any]) -> Settings:
    return Settings(**values)


def _spell(value: Value) -> str:
    """Write a value as TOML. JSON's strings, numbers and booleans are valid TOML."""
    return json.dumps(value, ensure_ascii=False)


def _line(key: str) -> re.Pattern[str]:
    """Return the pattern of the line that sets `key`: head, value, comment, ending.

    Source: TOML 1.0, bare and quoted keys, single-line strings, comments.
    """
    return re.compile(
        rf"""^([ \t]*(?:{key}|"{key}"|'{key}')[ \t]*=[ \t]*)"""
        r"""("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[^#\s'"][^#\n]*?)"""
        r"""([ \t]*(?:\#[^\r\n]*)?)(\r?(?:\n|\Z))""",
        re.MULTILINE,
    )


def _with(text: str, key: str, value: str) -> str:
    edited, count = _line(key).subn(
        lambda line: line[1] + value + line[3] + line[4], text, count=1
    )
    if count:
        return edited
    ending = "\r\n" if "\r\n" in text else "\n"
    gap = "" if text.endswith("\n") or not text else ending
    return f"{text}{gap}{key} = {value}{ending}"


def _without(text: str, key: str) -> str:
    def comment(line: re.Match[str]) -> str:
        return line[3].lstrip() + line[4] if line[3].strip() else ""

    return _line(key).sub(comment, text, count=1)


def _layers(text: str) -> str | int:
    return text if text in _LAYER_WORDS else int(text)


_READERS: dict[Kind, Callable[[str], Value]] = {
    "text": str,
    "whole": int,
    "number": float,
    "yes-no": lambda text: _YES_NO[text.lower()],
    "choice": str,
    "layers": _layers,
}
