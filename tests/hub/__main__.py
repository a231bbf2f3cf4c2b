"""Serve a folder as a hub: `python -m tests.hub DIR [--log FILE] [--faults FILE]`.

DIR holds OWNER/NAME/files; the faults are a JSON list of fields of `Fault`. Prints the
endpoint as its first line, writes each answered request as a line of JSON, and ends
when its standard input does, so that it never outlives who started it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tests.hub.content import HostedRepository, repository
from tests.hub.faults import Fault
from tests.hub.server import LoopbackHub


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hub")
    parser.add_argument("dir", type=Path, metavar="DIR")
    parser.add_argument("--log", type=Path, help="default: DIR/requests.jsonl")
    parser.add_argument("--send-buffer", type=int, help="bytes; default: the system's")
    parser.add_argument("--faults", type=Path, help="default: none")
    options = parser.parse_args()
    log = options.log or options.dir / "requests.jsonl"
    hub = LoopbackHub(
        *_repositories(options.dir), send_buffer=options.send_buffer, log_file=log
    )
    if options.faults is not None:
        faults = json.loads(options.faults.read_text(encoding="utf-8"))
        hub.faults.add(*(Fault(**fields) for fields in faults))
    with hub:
        print(hub.endpoint, flush=True)
        sys.stdin.read()


def _repositories(folder: Path) -> list[HostedRepository]:
    return [
        repository(
            f"{owner.name}/{name.name}",
            {
                path.relative_to(name).as_posix(): path
                for path in sorted(name.rglob("*"))
                if path.is_file()
            },
        )
        for owner in sorted(folder.iterdir())
        if owner.is_dir()
        for name in sorted(owner.iterdir())
        if name.is_dir()
    ]


if __name__ == "__main__":
    main()
