"""Pulls over a network that cuts, lies and spoils: right bytes or a clear error.

    python -m tests.faults.pull_network [--quick] [--only WORD]

A link that is cut every 64 KiB, 1 MiB and 8 MiB has to bring a file of 40 MiB, each
byte at most 1.05 times. Everything else that can be wrong with an answer ends in the
right bytes or in an error of ours that says so (exit 4 or 6), with nothing installed
and nothing spoilt left behind: the next run, over a good network, has to succeed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.pulling import (
    FILE,
    REPO,
    Ended,
    Judge,
    digest,
    hosted,
    make_model,
    pull,
    told,
)
from tests.hub.content import Content, HostedFile
from tests.hub.faults import (
    ALWAYS,
    Fault,
    bombed,
    captive_portal,
    rate_limited,
    redirected,
)
from tests.hub.server import LoopbackHub

FULL, QUICK = 40 << 20, 4 << 20
MOST_FETCHED = 1.05
# What a run may end with besides success.
_CLEAR = frozenset({4, 6})
_RESOLVE = f"/{REPO}/resolve/"
BREAKS: Mapping[str, str] = {
    "": "",
    # Takes what comes for what was asked.
    "checks nothing": """
from wizard_edge.download import _download, _follower
_download._check = lambda *arguments: None
""",
    # Puts the part of one content behind that of another.
    "splices": """
from wizard_edge.hub._stream import ByteStream
ByteStream._check_file = lambda self, answer: None
from wizard_edge.service import ready
ready._key = lambda pieces: "0" * 64
""",
}


@dataclass(frozen=True, slots=True)
class Case:
    """Something wrong with the network.

    `faults` make it so; `codes` are those a run may end with, 0 where it has to
    succeed. `most` is how often each byte may be fetched then.
    """

    faults: Callable[[LoopbackHub], Sequence[Fault]]
    codes: frozenset[int] = frozenset({0})
    most: float | None = None
    words: tuple[str, ...] = ()


def _always(**fields: object) -> Callable[[LoopbackHub], Sequence[Fault]]:
    # Any field of a Fault.
    return lambda hub: [Fault(**{"where": "cdn", "times": ALWAYS} | fields)]  # type: ignore[arg-type]


def _once(**fields: object) -> Callable[[LoopbackHub], Sequence[Fault]]:
    return lambda hub: [Fault(**{"where": "cdn"} | fields)]  # type: ignore[arg-type]


def _cut(size: int, *, reset: bool = False) -> Case:
    return Case(_always(cut_after=size, reset=reset), most=MOST_FETCHED)


def _refused(
    faults: Callable[[LoopbackHub], Sequence[Fault]], *codes: int, words: str = ""
) -> Case:
    return Case(faults, frozenset(codes) or _CLEAR, words=tuple(words.split()))


_EITHER = _CLEAR | {0}
_ALONE = ("--connections", "1")

CUTS: Mapping[str, Case] = {
    "cut every 64 KiB": _cut(64 << 10),
    "cut every 1 MiB": _cut(1 << 20),
    "cut every 8 MiB": _cut(8 << 20),
    "reset every 64 KiB": _cut(64 << 10, reset=True),
    "reset every 1 MiB": _cut(1 << 20, reset=True),
}
CASES: Mapping[str, Case] = {
    "a byte flipped once": Case(_once(flip=1_000_000)),
    "a byte flipped always": _refused(_always(flip=1_000_000), 6),
    "a byte of the header flipped always": _refused(_always(flip=100), 6),
    "a byte flipped always, one connection": _refused(
        _always(flip=1_000_000), 6, words="--connections 1"
    ),
    "one byte too few": _refused(_always(resize=-1)),
    "one byte too few, once": Case(_once(resize=-1), _EITHER),
    "one byte too many": _refused(_always(resize=1)),
    "half a body": _refused(_always(resize=-(1 << 20))),
    "cut once, over one connection": Case(
        _once(cut_after=1_500_000), most=MOST_FETCHED, words=_ALONE
    ),
    "a longer length than the body": Case(
        _once(headers={"Content-Length": "999999999"}, cut_after=1 << 20), _EITHER
    ),
    "bytes behind the body": Case(_always(surplus=b"HTTP/1.1 200 OK\r\n\r\nx")),
    "no length": Case(_always(chunked=True)),
    "Range ignored": Case(_always(ignore_range=True)),
    "Range ignored after a cut": Case(
        lambda hub: [
            Fault(where="cdn", cut_after=1_500_000),
            Fault(where="cdn", ignore_range=True, times=ALWAYS),
        ],
        words=_ALONE,
    ),
    "416 once": Case(_once(status=416), _EITHER),
    "416 always": _refused(_always(status=416)),
    "Content-Range of other bytes": _refused(
        _always(headers={"Content-Range": "bytes 7-999/1000"})
    ),
    "Content-Range of another size": _refused(
        _always(headers={"Content-Range": "bytes 0-1/*"})
    ),
    "no Content-Range": _refused(_always(headers={"Content-Range": None})),
    "another hash on the redirect": _refused(
        lambda hub: [
            Fault(
                where="resolve",
                path=_RESOLVE,
                times=ALWAYS,
                headers={"X-Linked-ETag": f'"{"0" * 64}"'},
            )
        ]
    ),
    "another commit on the redirect": _refused(
        lambda hub: [
            Fault(where="resolve", times=ALWAYS, headers={"X-Repo-Commit": "0" * 40})
        ]
    ),
    "another size on the redirect": _refused(
        lambda hub: [
            Fault(where="resolve", times=ALWAYS, headers={"X-Linked-Size": "7"})
        ]
    ),
    "gzip": _refused(_always(gzip=True)),
    "a bomb": _refused(lambda hub: [bombed(256 << 20, where="cdn")]),
    "a bomb for a listing": _refused(lambda hub: [bombed(256 << 20, where="api")]),
    "a login page for a listing": _refused(lambda hub: [captive_portal(where="api")]),
    "a login page for a file": _refused(lambda hub: [captive_portal(where="cdn")]),
    "weak tags, odd headers": Case(
        lambda hub: [Fault(times=ALWAYS, odd_case=True, weak_etag=True)]
    ),
    "headers twice": Case(
        _always(more_headers=(("ETag", '"x"'), ("Content-Type", "text/html"))), _EITHER
    ),
    "a circle": _refused(
        lambda hub: [redirected(f"/{REPO}/resolve/main/{FILE}", where="resolve")]
    ),
    "a redirect to nowhere": _refused(
        lambda hub: [redirected("ftp://x/y", where="resolve")]
    ),
    "a circle on the CDN": _refused(lambda hub: [redirected("/x", where="cdn")]),
    "500 twice": Case(_once(status=500, times=2)),
    "503 always": _refused(_always(status=503)),
    "403 always": _refused(_always(status=403)),
    "429 for a second": Case(lambda hub: [rate_limited(1, where="cdn")]),
    "429 for an hour": _refused(
        lambda hub: [rate_limited(3600, where="cdn", times=ALWAYS)]
    ),
    "429 by the draft": Case(lambda hub: [rate_limited(1, draft=True, where="api")]),
}


# A server that says nothing is waited for half a minute.
SILENCES: Mapping[str, Case] = {
    "silence amid the bytes": Case(_once(stall_after=1 << 20), most=MOST_FETCHED),
    "silence before the answer": Case(_once(stall_after=-1)),
}


@dataclass(slots=True)
class Tally:
    """What came of the cases."""

    cases: int = 0
    succeeded: int = 0
    worst: float = 0.0
    slowest: float = 0.0
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.cases} networks, {self.succeeded} brought the file, "
            f"{len(self.violations)} violations; cut links fetched each byte "
            f"{self.worst:.3f} times at most, slowest {self.slowest:.1f} s"
        )


def run(
    folder: Path, cases: Mapping[str, Case], *, size: int, broken: str = ""
) -> Tally:
    """Pull once over each network below a folder, then again over a good one."""
    path = make_model(folder / "model.gguf", size)
    tally, good = Tally(), digest(path)
    with LoopbackHub(hosted(path), send_buffer=1 << 16) as hub:
        for title, case in cases.items():
            judge = Judge.of(folder, good)
            ended = _over(hub, folder, case, title, judge, tally, broken)
            _over_a_good_one(hub, folder, title, judge, ended)
            tally.violations += judge.violations
            shutil.rmtree(folder / "home", ignore_errors=True)
    return tally


def _over(
    hub: LoopbackHub,
    folder: Path,
    case: Case,
    title: str,
    judge: Judge,
    tally: Tally,
    broken: str,
) -> Ended:
    hub.forget()
    hub.faults.clear()
    hub.faults.add(*case.faults(hub))
    ended = pull(hub.endpoint, folder, *case.words, prelude=BREAKS[broken]).end()
    tally.cases += 1
    tally.slowest = max(tally.slowest, ended.seconds)
    tally.succeeded += ended.code == 0
    _expect(ended, case.codes, title, judge)
    judge.look(title, whole=ended.code == 0)
    if case.most is not None and ended.code == 0:
        times = hub.sent("cdn") / hub.hosted.repositories[REPO].files[FILE].size
        tally.worst = max(tally.worst, times)
        if times > case.most:
            judge.violations.append(f"{title}: each byte was fetched {times:.2f} times")
    return ended


def _over_a_good_one(
    hub: LoopbackHub, folder: Path, title: str, judge: Judge, before: Ended
) -> None:
    hub.faults.clear()
    if before.code:
        after = pull(hub.endpoint, folder).end()
        _expect(after, frozenset({0}), f"{title}, and then none", judge)
    judge.look(f"{title}, and then none", whole=True)
    judge.nothing_left(f"{title}, and then none")


def _expect(ended: Ended, codes: frozenset[int], title: str, judge: Judge) -> None:
    if ended.code not in codes:
        judge.violations.append(f"{title}: exit {ended.code}, {ended.stderr[-300:]}")
    elif ended.code and not ended.error.get("message"):
        judge.violations.append(f"{title}: exit {ended.code} without a word")


# Plain addresses ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """What a server says of a file before, and after its content has changed."""

    before: tuple[str | None, str | None]
    after: tuple[str | None, str | None]


_DAYS = ("Mon, 01 Jan 2024 00:00:00 GMT", "Tue, 02 Jan 2024 00:00:00 GMT")
CHANGES: Mapping[str, Change] = {
    "another ETag": Change(('"1"', _DAYS[0]), ('"2"', _DAYS[0])),
    "another day": Change((None, _DAYS[0]), (None, _DAYS[1])),
    "weak tags": Change(('W/"1"', None), ('W/"2"', None)),
}


def run_changes(
    folder: Path, changes: Mapping[str, Change], *, size: int, broken: str = ""
) -> Tally:
    """Have the file at an address change while half of it is fetched."""
    old = make_model(folder / "old.gguf", size, seed=1)
    new = make_model(folder / "new.gguf", size, seed=2)
    tally = Tally()
    for title, change in changes.items():
        judge = Judge.of(folder, digest(new))
        with LoopbackHub(send_buffer=1 << 16) as hub:
            files = hub.hosted.files
            files["/model.F32.gguf"] = HostedFile(Content(old), *change.before)
            hub.faults.add(Fault(where="files", skip=1, stall_after=size // 2))
            address = f"{hub.files}/model.F32.gguf"
            words, prelude = _ALONE, BREAKS[broken]
            first = pull(hub.endpoint, folder, *words, ref=address, prelude=prelude)
            first.fetched(size // 4)
            first.kill()
            first.end()
            files["/model.F32.gguf"] = HostedFile(Content(new), *change.after)
            hub.faults.clear()
            again = pull(hub.endpoint, folder, *words, ref=address, prelude=prelude)
            ended = again.end()
        tally.cases += 1
        tally.succeeded += ended.code == 0
        _expect(ended, frozenset({0}), title, judge)
        judge.look(title, whole=True)
        tally.violations += judge.violations
        shutil.rmtree(folder / "home", ignore_errors=True)
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.pull_network")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="", metavar="WORD")
    parser.add_argument("--break", dest="broken", default="", choices=BREAKS)
    options = parser.parse_args()
    size, bad = QUICK if options.quick else FULL, False
    campaigns = {"cut links": CUTS, "bad answers": CASES}
    if not options.quick:
        campaigns["silences"] = SILENCES
    for name, cases in campaigns.items():
        chosen = {t: case for t, case in cases.items() if options.only in t}
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            tally = run(Path(folder), chosen, size=size, broken=options.broken)
        seconds = time.monotonic() - begun
        print(f"pull, {name}: {tally}, {seconds:.0f} s\n{told(tally.violations, 40)}")
        bad = bad or bool(tally.violations)
    with tempfile.TemporaryDirectory() as folder:
        tally = run_changes(Path(folder), CHANGES, size=size, broken=options.broken)
    print(f"pull, changed files: {tally}\n{told(tally.violations)}")
    return 1 if bad or tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
