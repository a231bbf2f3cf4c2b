"""Strings that an evil hub might answer, and every place where it can put them.

Each place is a fault that puts one string there in all answers of its kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.hub.faults import ALWAYS, Fault, Where

_SHA = "0123456789abcdef" * 4

STRINGS: Mapping[str, str] = {
    "empty": "",
    "dot": ".",
    "two dots": "..",
    "three dots": "...",
    "space": " ",
    "slash": "/",
    "parent": "../x",
    "parents": "../../../../../../../../tmp/x",
    "parent inside": "a/../../x",
    "parent at the end": "a/..",
    "dot inside": "a/./x",
    "two slashes": "a//x",
    "slash at the end": "a/",
    "absolute": "/tmp/x",
    "absolute twice": "//tmp/x",
    "home": "~/x",
    "home of root": "~root/x",
    "variable": "$HOME/x",
    "braces": "${HOME}/x",
    "command": "$(touch x)",
    "backticks": "`touch x`",
    "pipe": "|touch x",
    "semicolon": ";touch x;",
    "drive": "C:\\x",
    "drive, relative": "C:x",
    "share": "\\\\host\\share\\x",
    "device": "\\\\.\\nul",
    "backslashes": "..\\..\\x",
    "con": "con",
    "con with an ending": "CON.gguf",
    "stream": "x.gguf:evil",
    "file address": "file:///etc/passwd",
    "data address": "data:,x",
    "script address": "javascript:alert(1)",
    "local address": "http://127.0.0.1:1/x",
    "name in an address": "http://user:password@127.0.0.1:1/x",
    "half an address": "http://",
    "an address to brackets": "http://[::1",
    "escaped parent": "%2e%2e%2fx",
    "escaped twice": "%252e%252e%252fx",
    "escaped slash": "a%2f..%2f..%2fx",
    "escaped NUL": "x%00.gguf",
    "overlong UTF-8": "..\u00c0\u00af..\u00c0\u00afx",
    "division slash": "..\u2215x",
    "fraction slash": "..\u2044x",
    "wide slash": "..\uff0fx",
    "wide dots": "\uff0e\uff0e/x",
    "one-dot leader": "\u2024\u2024/x",
    "right to left": "x\u202egguf.exe",
    "NUL": "x\0y",
    "newline": "x\ny",
    "header": "x\r\nX-Evil: 1",
    "two answers": "x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    "tab": "x\ty",
    "escape": "\x1b]0;evil\x07\x1b[31m",
    "leading dash": "-rf",
    "option": "--home=/tmp/x",
    "300 characters": "x" * 300,
    "5,000 characters": "y" * 5_000,
    "70 levels": "a/" * 70 + "x",
    "hash with parent": f"../{_SHA}",
    "upper hash": _SHA.upper(),
    "hash and more": f"{_SHA}/../x",
    "half a hash": _SHA[:40],
    "digits": "9" * 400,
    "negative": "-1",
    "format": "%s%n{0}{x!r}",
    "hidden": ".git/config",
    "receipt": "x.gguf.json",
}


def _json(place: str) -> Callable[[str], Fault]:
    return lambda text: Fault(where="api", times=ALWAYS, values={place: text})


def _header(name: str, where: Where | None = "resolve") -> Callable[[str], Fault]:
    return lambda text: Fault(
        where=where, method=None, times=ALWAYS, headers={name: text}
    )


def _disposition(text: str) -> Fault:
    value = f'attachment; filename="{text}"'
    return Fault(method=None, times=ALWAYS, headers={"Content-Disposition": value})


def _redirect(where: Where) -> Callable[[str], Fault]:
    return lambda text: Fault(
        where=where,
        method=None,
        times=ALWAYS,
        status=302,
        headers={"Location": text},
    )


def _link(text: str) -> Fault:
    value = f'<{text}>; rel="xet-auth", <{text}>; rel="next"'
    return Fault(method=None, times=ALWAYS, headers={"Link": value})


def _error(text: str) -> Fault:
    headers = {"X-Error-Code": text, "X-Error-Message": text}
    return Fault(method=None, times=ALWAYS, status=404, headers=headers)


FIELDS: Mapping[str, Callable[[str], Fault]] = {
    "id": _json("id"),
    "sha": _json("sha"),
    "rfilename": _json("siblings.*.rfilename"),
    "blobId": _json("siblings.*.blobId"),
    "size": _json("siblings.*.size"),
    "lfs.sha256": _json("siblings.*.lfs.sha256"),
    "lfs.size": _json("siblings.*.lfs.size"),
    "gated": _json("gated"),
    "path": _json("*.path"),
    "oid": _json("*.oid"),
    "lfs.oid": _json("*.lfs.oid"),
    "xetHash": _json("*.xetHash"),
    "ETag": _header("ETag", None),
    "X-Linked-ETag": _header("X-Linked-ETag"),
    "X-Linked-Size": _header("X-Linked-Size"),
    "X-Repo-Commit": _header("X-Repo-Commit"),
    "X-Xet-Hash": _header("X-Xet-Hash"),
    "Location": _redirect("resolve"),
    "Location of the CDN": _redirect("cdn"),
    "Location of the API": _redirect("api"),
    "Link": _link,
    "Content-Disposition": _disposition,
    "Content-Type": _header("Content-Type", None),
    "Content-Encoding": _header("Content-Encoding", None),
    "Content-Range": _header("Content-Range", "cdn"),
    "Last-Modified": _header("Last-Modified", None),
    "Retry-After": lambda text: Fault(
        method=None, times=ALWAYS, status=429, headers={"Retry-After": text}
    ),
    "X-Error-Message": _error,
}
