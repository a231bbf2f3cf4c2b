"""Acceptances are kept whole, by licence and text, whoever writes beside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.child import environment
from wizard_edge.errors import ConfigError, Corrupt, Refused
from wizard_edge.ledger import MAX_SIZE, Entry, Ledger
from wizard_edge.names import Sha256
from wizard_edge.paths import Home

A, B = Sha256.parse("a" * 64), Sha256.parse("b" * 64)
ENTRY = Entry("llama2", A, "2026-01-02T03:04:05Z", "somebody", "flag")
# Accepts a licence whose id is the first word, over and over under other hashes.
ACCEPTOR = """
import sys
from pathlib import Path
from wizard_edge.ledger import Entry, Ledger
from wizard_edge.names import Sha256
from wizard_edge.paths import Home
ledger = Ledger(Home(Path(sys.argv[1])))
print("ready", flush=True)
sys.stdin.read()
for number in range(20):
    digest = Sha256.parse(f"{number:064x}")
    ledger.record([Entry(sys.argv[2], digest, "2026-01-02T03:04:05Z", "x", "flag")])
"""


def a_ledger(tmp_path: Path) -> Ledger:
    return Ledger(Home(tmp_path / "home"))


def write(ledger: Ledger, text: str | bytes) -> None:
    ledger.path.parent.mkdir(parents=True)
    ledger.path.write_bytes(text if isinstance(text, bytes) else text.encode())


def test_reading_an_empty_home_creates_nothing(tmp_path: Path) -> None:
    ledger = a_ledger(tmp_path)

    assert ledger.entries() == ()
    assert ledger.find("llama2", A) is None
    assert list(tmp_path.iterdir()) == []


def test_what_was_recorded_is_read_back(tmp_path: Path) -> None:
    ledger = a_ledger(tmp_path)

    ledger.record([ENTRY])

    assert ledger.entries() == (ENTRY,)
    assert json.loads(ledger.path.read_text()) == {
        "schema": 1,
        "accepted": [
            {
                "license": "llama2",
                "summary_sha256": A,
                "accepted": "2026-01-02T03:04:05Z",
                "by": "somebody",
                "how": "flag",
            }
        ],
    }


def test_another_text_of_the_summary_is_another_acceptance(tmp_path: Path) -> None:
    ledger = a_ledger(tmp_path)
    ledger.record([ENTRY])

    assert ledger.find("llama2", B) is None
    ledger.record([Entry("llama2", B, "2027-01-02T03:04:05Z", "else", "asked")])

    assert [entry.summary_sha256 for entry in ledger.entries()] == [A, B]


def test_an_acceptance_keeps_its_first_time(tmp_path: Path) -> None:
    ledger = a_ledger(tmp_path)
    ledger.record([ENTRY])
    before = ledger.path.stat().st_mtime_ns

    ledger.record([Entry("llama2", A, "2027-01-02T03:04:05Z", "else", "asked")])

    assert ledger.entries() == (ENTRY,)
    assert ledger.path.stat().st_mtime_ns == before


def test_processes_that_accept_at_once_lose_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    ids = ["one", "two", "three"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ACCEPTOR, str(home), id],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for id in ids
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()

    codes = [process.wait(timeout=60) for process in processes]
    for process in processes:
        assert process.stdout is not None
        process.stdout.close()

    assert codes == [0, 0, 0]
    found = [entry.license for entry in Ledger(Home(home)).entries()]
    assert {id: found.count(id) for id in ids} == dict.fromkeys(ids, 20)


DAMAGED = {
    "empty": "",
    "text": "accepted: everything",
    "bytes": b"\xff\xfe",
    "list": "[]",
    "no schema": '{"accepted": []}',
    "no list": '{"schema": 1, "accepted": {}}',
    "number": '{"schema": 1, "accepted": [1]}',
    "nested": "[" * 100_000,
    "huge": " " * (MAX_SIZE + 1),
}
WHOLE = {
    "license": "llama2",
    "summary_sha256": A,
    "accepted": "2026-01-02T03:04:05Z",
    "by": "somebody",
    "how": "flag",
}
BROKEN_ENTRIES = {
    "license": "",
    "summary_sha256": "a" * 63,
    "accepted": "yesterday",
    "by": "some\x1bbody",
    "how": "never",
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_accepts_nothing_and_is_kept(
    tmp_path: Path, text: str | bytes
) -> None:
    ledger = a_ledger(tmp_path)
    write(ledger, text)
    before = ledger.path.read_bytes()

    for use in (ledger.entries, lambda: ledger.record([ENTRY])):
        with pytest.raises(Corrupt) as caught:
            use()
        assert "licenses accept ID" in (caught.value.hint or "")
    assert ledger.path.read_bytes() == before


@pytest.mark.parametrize("key", BROKEN_ENTRIES)
def test_a_broken_entry_is_named(tmp_path: Path, key: str) -> None:
    ledger = a_ledger(tmp_path)
    rows = [WHOLE, WHOLE | {key: BROKEN_ENTRIES[key]}]
    write(ledger, json.dumps({"schema": 1, "accepted": rows}))

    with pytest.raises(Corrupt, match=rf"accepted\[1\]\.{key}"):
        ledger.entries()


def test_a_truncated_file_is_never_taken_for_less(tmp_path: Path) -> None:
    ledger = a_ledger(tmp_path)
    ledger.record([ENTRY])
    content = ledger.path.read_bytes()

    # Without the line break at its end it is whole still.
    for size in range(len(content) - 1):
        ledger.path.write_bytes(content[:size])
        with pytest.raises(Corrupt):
            ledger.entries()


def test_a_schema_from_the_future_names_the_upgrade(tmp_path: Path) -> None:
    ledger = a_ledger(tmp_path)
    write(ledger, '{"schema": 2, "accepted": "otherwise"}')

    with pytest.raises(ConfigError) as caught:
        ledger.entries()

    assert caught.value.hint == "upgrade with: pip install --upgrade wizard-edge"


def test_what_was_accepted_needs_no_writing(tmp_path: Path) -> None:
    """A script may name the licence every time, on a store that is read only."""
    ledger = a_ledger(tmp_path)
    ledger.record([ENTRY])
    # Nobody can take a lock here, whoever runs the test.
    ledger.path.with_name("accepted.json.lock").mkdir()

    ledger.record([ENTRY])
    with pytest.raises(Refused):
        ledger.record([Entry("msr", B, "2026-01-02T03:04:05Z", "x", "flag")])

    assert ledger.entries() == (ENTRY,)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write all")
def test_a_read_only_home_is_read_and_not_written(tmp_path: Path) -> None:
    ledger = a_ledger(tmp_path)
    ledger.record([ENTRY])
    ledger.path.with_name("accepted.json.lock").unlink(missing_ok=True)
    ledger.path.parent.chmod(0o500)

    try:
        assert ledger.entries() == (ENTRY,)
        with pytest.raises(Refused):
            ledger.record([Entry("msr", B, "2026-01-02T03:04:05Z", "x", "flag")])
    finally:
        ledger.path.parent.chmod(0o700)
