"""A few kills of a pull, and one at the worst moment; the campaign is `make faults`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.pull_kills import QUICK, run
from tests.faults.pulling import Judge, digest, hosted, make_model, pull
from tests.hub.server import LoopbackHub

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")

# Ends the process when it is about to give what it names its name.
DIES_AT = """
import os
from wizard_edge.changes import Changes
put = Changes.put
def dying(self, path):
    if path.name.endswith({suffix!r}):
        os._exit(9)
    put(self, path)
Changes.put = dying
"""


def test_a_pull_survives_kills(tmp_path: Path) -> None:
    tally = run(4, 1, tmp_path, size=QUICK)

    assert tally.violations == []
    assert tally.kills == 4


@pytest.mark.parametrize(
    ("broken", "late"),
    [("fetches anew", False), ("receipt first", True), ("in its place", False)],
)
def test_a_broken_pull_is_found_out(broken: str, late: bool, tmp_path: Path) -> None:
    tally = run(3, 2, tmp_path, size=QUICK, broken=broken, late=late)

    assert [text for text in tally.violations if "prune" not in text]


@pytest.mark.parametrize("suffix", [".gguf.chunks", "NOTICE", ".gguf.json"])
def test_a_model_that_was_moved_but_not_noted_is_not_fetched_again(
    suffix: str, tmp_path: Path
) -> None:
    path = make_model(tmp_path / "model.gguf", 4 << 20)
    judge = Judge.of(tmp_path, digest(path))
    with LoopbackHub(hosted(path)) as hub:
        died = pull(hub.endpoint, tmp_path, prelude=DIES_AT.format(suffix=suffix))
        assert died.end().code == 9
        judge.look("after the end", whole=False)

        ended = pull(hub.endpoint, tmp_path).end()

        assert ended.code == 0, ended.stderr
        assert hub.sent("cdn") == path.stat().st_size
    judge.look("after the second run", whole=True)
    judge.nothing_left("after the second run")
    assert judge.violations == []
