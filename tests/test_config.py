from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest

from wizard_edge.config import (
    SETTINGS,
    Settings,
    Value,
    load_settings,
    parse_value,
    read_environment,
    read_file,
    write_setting,
)
from wizard_edge.engine import KV_TYPES, LoadOptions, Overflow, Sampling
from wizard_edge.errors import ConfigError, UsageError

# The options of the engine that are no settings, and settings with another name.
PER_REQUEST = {"grammar", "json_schema", "stop", "logit_bias", "logprobs"}
RENAMED = {"context": "ctx_size"}
# What no option of the engine is.
OURS = {"model", "commercial", "low_memory", "overflow", "session_disk"}
# What `low-memory` sets and nothing else does.
BUNDLED = {"default_context", "batch", "repack"}
# What names other files and machines, and is no setting.
ELSEWHERE = {"draft", "rpc"}
OWN = PER_REQUEST | BUNDLED | ELSEWHERE


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


def test_every_row_of_the_table_has_its_field_and_back() -> None:
    assert [row.field for row in SETTINGS.values()] == [
        item.name for item in fields(Settings)
    ]


def test_every_option_of_the_engine_is_a_setting() -> None:
    options = {item.name for item in (*fields(Sampling), *fields(LoadOptions))}

    assert {RENAMED.get(name, name) for name in options - OWN} == {
        row.field for row in SETTINGS.values()
    } - OURS


def test_bounds_are_those_of_the_engine() -> None:
    names = {ours: theirs for theirs, ours in RENAMED.items()}
    for row in SETTINGS.values():
        if row.kind not in ("whole", "number", "layers") or row.field in OURS:
            continue
        option = names.get(row.field, row.field)
        owner = _owner(option)
        step = 1 if row.kind != "number" else 1e-6
        for inside in (row.low, row.high):
            owner(**{option: inside})
        for outside in (row.low - step, row.high + step):
            with pytest.raises(UsageError):
                owner(**{option: outside})


def test_kv_types_are_those_of_the_engine() -> None:
    assert SETTINGS["kv-type"].choices == KV_TYPES


def test_overflow_policies_are_those_of_the_engine() -> None:
    assert SETTINGS["overflow"].choices == get_args(Overflow)


def test_a_file_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "none" / "config.toml"

    assert read_file(path) == Settings()
    assert not path.parent.exists()


def test_every_kind_of_value_is_read_from_a_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'schema = 1\nmodel = "13b"\nthreads = 4\ngpu-layers = "all"\n'
        'kv-type = "q8_0"\ntemperature = 1\nmmap = false\n',
    )

    assert read_file(path) == Settings(
        model="13b",
        threads=4,
        gpu_layers="all",
        kv_type="q8_0",
        temperature=1.0,
        mmap=False,
    )


def test_environment_is_stronger_than_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "threads = 4\ntop-k = 40\n")
    environ = {"WIZARD_EDGE_THREADS": "2", "WIZARD_EDGE_SEED": "", "OTHER": "x"}

    settings = load_settings(path, environ)

    assert settings == Settings(threads=2, top_k=40)


def test_what_the_caller_says_is_stronger_than_both() -> None:
    flags = Settings(temperature=0.0, mmap=False)

    laid = flags.over(Settings(temperature=0.7, mmap=True, seed=3))

    assert laid == Settings(temperature=0.0, mmap=False, seed=3)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("threads", "4", 4),
        ("temperature", "0.5", 0.5),
        ("temperature", "1", 1.0),
        ("gpu-layers", "auto", "auto"),
        ("gpu-layers", "12", 12),
        ("mmap", "off", False),
        ("mlock", "YES", True),
        ("deterministic", "1", True),
        ("lookup", "no", False),
        ("parallel", "8", 8),
        ("kv-type", "f16", "f16"),
        ("model", "hf:owner/name", "hf:owner/name"),
    ],
)
def test_values_as_people_type_them(key: str, text: str, value: Value) -> None:
    assert parse_value(key, text) == value


@pytest.mark.parametrize(
    ("key", "text", "wants"),
    [
        ("threads", "four", "a whole number from 1 to 1024"),
        ("threads", "0", "a whole number from 1 to 1024"),
        ("threads", "2.0", "a whole number from 1 to 1024"),
        ("temperature", "nan", "a number from 0 to 100"),
        ("temperature", "inf", "a number from 0 to 100"),
        ("top-p", "1.5", "a number from 0 to 1"),
        ("gpu-layers", "most", "auto, all or a whole number from 0 to 10000"),
        ("mmap", "maybe", "true or false"),
        ("kv-type", "q2_k", "one of f16, q8_0, q4_0"),
        ("model", "", "a text on one line"),
        ("model", "a\nb", "a text on one line"),
    ],
)
def test_a_value_that_does_not_fit_says_what_would(
    key: str, text: str, wants: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_value(key, text)

    assert caught.value.message == f"{key} must be {wants}, got {text!r}"


@pytest.mark.parametrize(
    "line",
    [
        "threads = true",
        'threads = "4"',
        "threads = 4.0",
        "threads = [4]",
        "temperature = nan",
        "temperature = 1979-05-27",
        "mmap = 1",
        'gpu-layers = "some"',
        "model = 13",
        f"threads = {10**400}",
    ],
)
def test_a_wrong_type_in_the_file_names_file_and_key(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, line + "\n")

    with pytest.raises(ConfigError) as caught:
        read_file(path)

    assert caught.value.message.startswith(f"{path}: {line.split()[0]} must be ")
    assert caught.value.exit_code == 10


def test_a_misspelt_key_is_an_error_that_offers_the_right_one(tmp_path: Path) -> None:
    path = write(tmp_path, "thread = 4\n")

    with pytest.raises(ConfigError) as caught:
        read_file(path)

    assert caught.value.message == f"{path}: unknown setting 'thread'"
    assert caught.value.hint is not None
    assert "threads" in caught.value.hint


def test_a_wrong_variable_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^WIZARD_EDGE_TOP_P: top-p must be"):
        read_environment({"WIZARD_EDGE_TOP_P": "2"})


def test_a_variable_that_means_nothing_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    environ = {"WIZARD_EDGE_THRAEDS": "2", "WIZARD_EDGE_HOME": "/x"}

    assert read_environment(environ) == Settings()
    assert [record.getMessage() for record in caplog.records] == [
        "environment variable WIZARD_EDGE_THRAEDS means nothing here"
    ]


def test_a_file_from_the_future_is_refused_with_the_upgrade(tmp_path: Path) -> None:
    path = write(tmp_path, 'schema = 2\nspell = "new"\n')

    with pytest.raises(ConfigError) as caught:
        read_file(path)

    assert caught.value.message == f"{path} has schema 2, this version reads up to 1"
    assert caught.value.hint == "upgrade with: pip install --upgrade wizard-edge"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"threads = ", id="no TOML"),
        pytest.param(b"\xff\xfe", id="no UTF-8"),
        pytest.param(b"seed = " + b"1" * 5000, id="a number of 5000 digits"),
        pytest.param(b"seed = " + b"[" * 100_000, id="lists without end"),
        pytest.param(b'schema = "1"', id="schema is a text"),
        pytest.param(b"schema = 0", id="schema 0"),
        pytest.param(b"schema = true", id="schema is a bool"),
    ],
)
def test_a_file_that_makes_no_sense_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)

    with pytest.raises(ConfigError, match=r"config\.toml"):
        read_file(path)


def test_the_first_setting_makes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "wizard-edge" / "config.toml"

    write_setting(path, "threads", 4)

    assert path.read_text() == (
        "# Settings of wizard-edge; 'wizard-edge config' lists them.\n"
        "schema = 1\n"
        "threads = 4\n"
    )


BEFORE = """\
# mine
schema = 1

threads = 4   # all of them
"top-k" = 40
model = "a \\"b\\" # c" # default
"""


@pytest.mark.parametrize(
    ("key", "value", "old", "new"),
    [
        ("threads", 2, "threads = 4   # all", "threads = 2   # all"),
        ("top-k", 7, '"top-k" = 40', '"top-k" = 7'),
        ("model", "x", '"a \\"b\\" # c"', '"x"'),
        ("seed", 1, "# default\n", "# default\nseed = 1\n"),
        ("gpu-layers", "all", "# default\n", '# default\ngpu-layers = "all"\n'),
        ("mmap", False, "# default\n", "# default\nmmap = false\n"),
        ("threads", None, "threads = 4   # all of them\n", "# all of them\n"),
        ("top-k", None, '"top-k" = 40\n', ""),
        ("seed", None, "", ""),
    ],
)
def test_writing_changes_one_line_and_keeps_the_rest(
    tmp_path: Path, key: str, value: Value | None, old: str, new: str
) -> None:
    path = write(tmp_path, BEFORE)

    write_setting(path, key, value)

    assert path.read_text() == BEFORE.replace(old, new, 1)
    assert read_file(path).get(key) == value


def test_windows_line_endings_and_a_missing_last_one_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbfschema = 1\r\nthreads = 4 # x\r\nseed = 1")

    write_setting(path, "threads", 2)
    write_setting(path, "top-k", 5)

    assert path.read_bytes() == (
        b"schema = 1\r\nthreads = 2 # x\r\nseed = 1\r\ntop-k = 5\r\n"
    )


def test_a_wrong_value_can_be_repaired(tmp_path: Path) -> None:
    path = write(tmp_path, "threads = 'many'\n")

    write_setting(path, "threads", 4)

    assert path.read_text() == "schema = 1\nthreads = 4\n"


def test_a_file_that_cannot_be_edited_by_lines_is_left_alone(tmp_path: Path) -> None:
    text = 'model = """\nthreads = 4\n"""\nthreads = 1\n'
    path = write(tmp_path, text)

    with pytest.raises(ConfigError, match="cannot change 'threads'"):
        write_setting(path, "threads", 2)

    assert path.read_text() == text


def test_a_link_to_the_settings_stays_a_link(tmp_path: Path) -> None:
    real = write(tmp_path, "schema = 1\n")
    link = tmp_path / "link.toml"
    link.symlink_to(real)

    write_setting(link, "threads", 4)

    assert link.is_symlink()
    assert real.read_text() == "schema = 1\nthreads = 4\n"


# Any: a row's bounds have the type of its option.
def _owner(option: str) -> Callable[..., Any]:
    sampling = {item.name for item in fields(Sampling)}
    return Sampling if option in sampling else LoadOptions
