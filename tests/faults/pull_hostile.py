"""Pulls from a hub that answers with hostile strings, in every field it has.

    python -m tests.faults.pull_hostile [--seed N] [--count N] [--jobs N]

70 strings in 28 fields, and addresses of other origins in those that lead somewhere.
A violation is anything written outside the store (all around it is hashed before and
after), an odd name inside it, a token that reaches another origin or the output, an
exit code that is none of ours, wrong bytes that are listed, a control character in
the output, or more than 5 s. `--count` takes so many cases by the dice.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

from tests.faults.forking import Forks
from tests.faults.pulling import REF, REPO, Judge, digest, hosted, told
from tests.gguf_files import small_llama
from tests.hub.content import Content, HostedFile
from tests.hub.faults import Fault, redirected
from tests.hub.hostile import FIELDS, STRINGS
from tests.hub.server import LoopbackHub

TOKEN = "hf_secretsecretsecretsecretsecret"
MOST_SECONDS = 5.0
_ALARM_S = 30
# All but 1, which is a bug.
_CODES = frozenset({0, 2, 3, 4, 5, 6, 7, 8, 9, 10})
_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,120}")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_BY_QUANT = f"hf:{REPO}:F32"
# Fields that a plain web server has too.
_PLAIN_FIELDS = (
    *("ETag", "Content-Disposition", "Content-Type", "Content-Encoding"),
    *("Last-Modified", "Retry-After"),
)
BREAKS: Mapping[str, str] = {
    "": "",
    "believes names": """
from wizard_edge import names
for kind in (names.ModelName, names.RelPath):
    kind.fits = classmethod(lambda cls, text: True)
from wizard_edge.service import ready
ready.as_model_name = names.ModelName
""",
    "shares its token": """
from wizard_edge.hub import _http
_http._origin = lambda url: ("http", "localhost", 80)
""",
    "prints what it gets": """
from wizard_edge.hub import _refusals
def refusal(answer):
    from wizard_edge.errors import HubError
    return HubError(f"the hub says: {answer.message}")
from wizard_edge.hub import _http
_http.refusal = refusal
import re
from wizard_edge.cli import _clean
_clean._HARMFUL = re.compile("(?!)")
""",
}


@dataclass(frozen=True, slots=True)
class Case:
    """One string in one field; `{hub}`, `{cdn}` and `{files}` stand for addresses."""

    field: str
    title: str
    text: str
    ref: str = REF

    def __str__(self) -> str:
        return f"{self.title} as {self.field} for {self.ref}"


@dataclass(slots=True)
class Tally:
    """What came of the cases, by exit code."""

    cases: int = 0
    slowest: float = 0.0
    codes: dict[int, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.cases += other.cases
        self.slowest = max(self.slowest, other.slowest)
        for code, count in other.codes.items():
            self.codes[code] = self.codes.get(code, 0) + count
        self.violations += other.violations

    def __str__(self) -> str:
        codes = ", ".join(f"{n} times {code}" for code, n in sorted(self.codes.items()))
        return (
            f"{self.cases} cases, {len(self.violations)} violations, exit {codes}, "
            f"slowest {self.slowest:.1f} s"
        )


def cases() -> Iterator[Case]:
    """Yield every string in every field, for each way to name a model that it has."""
    strings = {
        **STRINGS,
        "another origin": "{files}/evil",
        "the CDN": "{cdn}/evil",
        "the hub by another name": "http://localhost:{port}/evil",
        "the hub as a user": "http://127.0.0.1:{port}@localhost:{other}/evil",
        "an origin without scheme": "//localhost:{other}/evil",
    }
    for name in FIELDS:
        for title, text in strings.items():
            yield Case(name, title, text)
            if name in _PLAIN_FIELDS:
                yield Case(name, title, text, "{files}/model.F32.gguf")
    for title, text in strings.items():
        # Such a name is one of a model; what it is called in the store follows it.
        yield Case("rfilename", title, f"{text}.F32.gguf", _BY_QUANT)
        yield Case("rfilename", title, f"{text}/m.F32.gguf", f"hf:{REPO}")
        yield Case("Location of files", title, text, "{files}/model.F32.gguf")


def run(
    folder: Path, chosen: Sequence[Case], *, broken: str = "", jobs: int = 1
) -> Tally:
    """Try cases below a folder."""
    tally = Tally()
    shares = [chosen[start::jobs] for start in range(jobs)]
    with ThreadPoolExecutor(jobs) as pool:
        for part in pool.map(
            lambda item: _run_share(folder / str(item[0]), item[1], broken),
            enumerate(shares),
        ):
            tally.add(part)
    return tally


def _run_share(folder: Path, chosen: Sequence[Case], broken: str) -> Tally:
    tally = Tally()
    model = small_llama().write(_made(folder) / "model.gguf")
    files = {"/model.F32.gguf": HostedFile(Content(model), '"1"')}
    forks = Forks(folder, BREAKS[broken])
    try:
        with LoopbackHub(hosted(model), files=files, tokens=(TOKEN,)) as hub:
            hub.hosted.repositories[REPO].xet = True
            for case in chosen:
                _try(case, hub, forks, folder / "case", digest(model), tally)
    finally:
        forks.close()
    return tally


def _try(
    case: Case, hub: LoopbackHub, forks: Forks, place: Path, good: str, tally: Tally
) -> None:
    hub.forget()
    hub.faults.clear()
    hub.faults.add(*_faults(case, hub, good))
    for name in ("work", "user", "tmp"):
        _made(place / name)
    (place / "user" / "precious").write_text("precious")
    before, output = _around(place), place.parent / "output"
    begun = time.monotonic()
    code = forks.run(
        "pull",
        _filled(case.ref, hub),
        environ=_environ(place, hub),
        cwd=place / "work",
        output=output,
        timeout_s=_ALARM_S,
    )
    seconds = time.monotonic() - begun
    said = output.read_bytes()
    judge = Judge.of(place, good)
    judge.look("afterwards", whole=code == 0)
    found = judge.violations
    if code not in _CODES or b"Traceback" in said:
        found.append(f"exit {code}, {said[-300:]!r}")
    if seconds > MOST_SECONDS:
        found.append(f"took {seconds:.1f} s")
    if _around(place) != before:
        found.append("something was written outside the store")
    found += [f"{name!r} lies in the store" for name in _odd(place / "home")]
    found += _leaks(hub, said)
    if _CONTROL.search(said):
        found.append(f"printed a control character: {said[-200:]!r}")
    tally.cases += 1
    tally.slowest = max(tally.slowest, seconds)
    tally.codes[code] = tally.codes.get(code, 0) + 1
    tally.violations += [f"{case}: {text}" for text in found]
    shutil.rmtree(place)


def _faults(case: Case, hub: LoopbackHub, good: str) -> list[Fault]:
    text = _filled(case.text, hub)
    if case.field == "Location of files":
        return [redirected(text, where="files")]
    if case.field == "rfilename" and case.ref != REF:
        # Under that name the file is there, too.
        there = redirected(f"{hub.cdn}/{good}", where="resolve", path="/resolve/")
        return [FIELDS[case.field](text), there]
    return [FIELDS[case.field](text)]


def _filled(text: str, hub: LoopbackHub) -> str:
    port, other = (str(urlsplit(a).port) for a in (hub.endpoint, hub.files))
    for name, value in (
        *(("{hub}", hub.endpoint), ("{cdn}", hub.cdn), ("{files}", hub.files)),
        *(("{port}", port), ("{other}", other)),
    ):
        text = text.replace(name, value)
    return text


def _environ(place: Path, hub: LoopbackHub) -> dict[str, str]:
    return {
        "HOME": str(place / "user"),
        "TMPDIR": str(place / "tmp"),
        "HF_HOME": str(place / "user" / "hf"),
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": TOKEN,
        "NO_PROXY": "127.0.0.1,localhost",
        "WIZARD_EDGE_HOME": str(place / "home"),
        "WIZARD_EDGE_CONFIG": str(place / "user" / "config"),
        "LANG": "C.UTF-8",
        "PATH": "/usr/bin:/bin",
    }


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _around(place: Path) -> dict[str, str]:
    """Return what lies around the store, and the hash of each file.

    Two folders further up too, for what climbs out.
    """
    found = {}
    for path in place.parent.parent.glob("*"):
        found[f"../../{path.name}"] = "there"
    for path in (*place.parent.glob("*"), *place.rglob("*")):
        name = path.relative_to(place.parent).as_posix()
        if name == "output" or name.startswith("case/home"):
            continue
        found[name] = digest(path) if path.is_file() else "folder"
    for path in (Path("/tmp/x"), Path("/x")):
        found[str(path)] = str(path.exists())
    return found


def _odd(home: Path) -> list[str]:
    """Return the names in a store that are none of ours."""
    odd = []
    for path in home.rglob("*"):
        parts = path.relative_to(home).parts
        ours = {"models", "partial", "run", "licenses"}
        deep = {"models": 3, "partial": 2, "run": 2, "licenses": 2}
        is_ours = parts[0] in ours and len(parts) <= deep[parts[0]]
        if not is_ours or not all(map(_PLAIN.fullmatch, parts)) or path.is_symlink():
            odd.append("/".join(parts))
    return odd


def _leaks(hub: LoopbackHub, said: bytes) -> list[str]:
    found = ["printed the token"] if TOKEN.encode() in said else []
    home = urlsplit(hub.endpoint).netloc
    for entry in hub.requests():
        at_home = entry.port in ("api", "resolve") and entry.host == home
        if entry.secret and not at_home:
            found.append(f"the token went to {entry.port} as {entry.host}")
    return found


def sample(seed: int, count: int) -> list[Case]:
    """Return so many cases by the dice."""
    every = list(cases())
    return Random(f"hostile {seed}").sample(every, min(count, len(every)))


def fingerprint(chosen: Sequence[Case]) -> str:
    """Name a choice of cases for the report."""
    return hashlib.sha256("\n".join(map(str, chosen)).encode()).hexdigest()[:8]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.pull_hostile")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--field", choices=[*FIELDS, "Location of files"])
    options = parser.parse_args()
    chosen = sample(options.seed, options.count) if options.count else list(cases())
    if options.field:
        chosen = [case for case in chosen if case.field == options.field]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tally = run(Path(folder), chosen, jobs=options.jobs)
    print(
        f"pull, hostile strings {fingerprint(chosen)}: {tally}, "
        f"{time.monotonic() - begun:.0f} s\n{told(tally.violations, 60)}",
        end="",
    )
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
