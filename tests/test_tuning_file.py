from __future__ import annotations

import json
from pathlib import Path

import pytest

from wizard_edge.tuning import Tuned
from wizard_edge.tuning_file import Entry, TuningFile

ENTRY = Entry(
    Tuned(
        flash_attention=True,
        threads=3,
        prompt_threads=4,
        batch_cost={2: 1.25, 8: 3.0},
        token_s={512: 0.05, 1024: 0.0625},
        quiet=False,
    ),
    off=(1.5,),
)


def test_what_is_kept_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "home/tuning.json"
    TuningFile(path).keep("a", ENTRY)

    assert TuningFile(path).find("a") == ENTRY
    assert TuningFile(path).find("b") is None


def test_the_measurements_of_others_stay(tmp_path: Path) -> None:
    file = TuningFile(tmp_path / "tuning.json")
    file.keep("a", ENTRY)
    file.keep("b", Entry(ENTRY.tuned))
    file.keep("a", Entry(ENTRY.tuned))

    assert (file.find("a"), file.find("b")) == (Entry(ENTRY.tuned),) * 2


def test_the_oldest_measurement_makes_room(tmp_path: Path) -> None:
    file = TuningFile(tmp_path / "tuning.json")
    for number in range(65):
        file.keep(str(number), ENTRY)

    assert [file.find(key) for key in ("0", "1", "64")] == [None, ENTRY, ENTRY]


def content(**changed: object) -> str:
    entry = {
        "flash_attention": True,
        "threads": 3,
        "prompt_threads": 4,
        "batch_cost": {},
        "token_s": {},
        "quiet": True,
        "off": [],
        **changed,
    }
    return json.dumps({"schema": 1, "measured": {"a": entry}})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 10**5,
        "[]",
        '{"schema": 2, "measured": {}}',
        '{"schema": 1}',
        '{"schema": 1, "measured": {"a": 1}}',
        '{"schema": 1, "measured": {"a": {}}}',
        content(flash_attention=1),
        content(quiet="no"),
        content(threads=0),
        content(threads=2.0),
        content(threads=True),
        content(prompt_threads=10**9),
        content(batch_cost=[1]),
        content(batch_cost={"two": 1.0}),
        content(token_s={"512": -1.0}),
        content(token_s={"512": float("inf")}),
        content(token_s={"512": float("nan")}),
        content(off=5),
        content(off=["much"]),
        "\udcff",
    ],
)
def test_what_makes_no_sense_is_measured_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tuning.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    file = TuningFile(path)
    before = file.find("a")
    file.keep("a", ENTRY)

    assert (before, file.find("a")) == (None, ENTRY)


def test_a_file_of_our_form_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tuning.json"
    path.write_text(content())

    assert TuningFile(path).find("a") == Entry(Tuned(True, 3, 4, {}, {}))


def test_a_home_that_cannot_be_written_keeps_nothing(tmp_path: Path) -> None:
    blocked = tmp_path / "home"
    blocked.write_text("no folder")
    file = TuningFile(blocked / "tuning.json")
    file.keep("a", ENTRY)

    assert file.find("a") is None
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
