"""Serve folders as a hub: `python -m tests.hub --root DIR`.

DIR holds OWNER/NAME/files. `--files DIR` serves another folder as it lies, from a web
server that is no hub. The faults are a JSON list of fields of `Fault`. Prints the
address of the hub as its first line, then those of the CDN and of the web server;
writes each answered request as a line of JSON, and ends when its standard input does,
so that it never outlives who started it.
"""

from __future__ import annotations

import argparse
import json
import sys
from email.utils import formatdate
from pathlib import Path
from typing import Any

from tests.hub.content import Content, HostedFile, HostedRepository, repository
from tests.hub.faults import Fault
from tests.hub.server import LoopbackHub


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hub")
    parser.add_argument("dir", type=Path, metavar="DIR", nargs="?")
    parser.add_argument("--root", type=Path, metavar="DIR", help="the same as DIR")
    parser.add_argument("--files", type=Path, metavar="DIR", help="default: none")
    parser.add_argument("--log", type=Path, help="default: DIR/requests.jsonl")
    parser.add_argument(
        "--rate", type=int, help="bytes/s of a connection; default: any"
    )
    parser.add_argument("--send-buffer", type=int, help="bytes; default: the system's")
    parser.add_argument(
        "--token", action="append", default=[], help="one that is known"
    )
    parser.add_argument(
        "--xet", action="store_true", help="name large files in Xet too"
    )
    parser.add_argument("--faults", type=Path, help="default: none")
    options = parser.parse_args()
    root = options.root or options.dir
    if root is None:
        parser.error("--root DIR is missing")
    repositories = _repositories(root)
    for hosted in repositories:
        hosted.xet = options.xet
    hub = LoopbackHub(
        *repositories,
        tokens=options.token,
        files=_files(options.files) if options.files else {},
        rate=options.rate,
        send_buffer=options.send_buffer,
        log_file=options.log or root / "requests.jsonl",
    )
    if options.faults is not None:
        faults = json.loads(options.faults.read_text(encoding="utf-8"))
        hub.faults.add(*map(_fault, faults))
    with hub:
        print(hub.endpoint, hub.cdn, hub.files, sep="\n", flush=True)
        sys.stdin.read()


def _fault(fields: dict[str, Any]) -> Fault:
    for name in ("body", "surplus"):
        if isinstance(fields.get(name), str):
            fields[name] = fields[name].encode()
    if "more_headers" in fields:
        fields["more_headers"] = tuple(map(tuple, fields["more_headers"]))
    return Fault(**fields)


def _files(folder: Path) -> dict[str, HostedFile]:
    return {
        f"/{path.relative_to(folder).as_posix()}": HostedFile(
            Content(path),
            etag=f'"{path.stat().st_mtime_ns:x}-{path.stat().st_size:x}"',
            modified=formatdate(path.stat().st_mtime, usegmt=True),
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


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
