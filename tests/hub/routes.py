"""What a hub answers to a request, without faults and without sockets.

Marks say how each behaviour is known: [client] from the source of huggingface_hub
2.4.0 that reads it, [report] from public reports of the production hub, [assumed]
from neither. None is captured from production yet.
"""

from __future__ import annotations

import gzip
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from tests.hub.content import Content, HostedFile, HostedRepository, is_large

_PAGE = 1000
_MAX_REPOSITORY_PARTS = 2
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
# How long a token for Xet is good, in s. [assumed]
_XET_TOKEN_S = 3600
_EXPOSED = (
    "X-Repo-Commit,X-Request-Id,X-Error-Code,X-Error-Message,X-Total-Count,ETag,"
    "Link,Accept-Ranges,Content-Range,X-Linked-Size,X-Linked-ETag,X-Xet-Hash"
)


@dataclass(frozen=True)
class Asked:
    """A request, taken apart."""

    method: str
    target: str
    token: str | None
    byte_range: str | None
    if_range: str | None = None
    form: bytes = b""

    @property
    def parts(self) -> list[str]:
        return [unquote(p) for p in self.target.partition("?")[0].split("/")[1:]]

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(self.target.partition("?")[2])


@dataclass
class Reply:
    """An answer: the body is `content` from `start` to `end`."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    content: Content = field(default_factory=lambda: Content(b""))
    start: int = 0
    end: int = 0

    @classmethod
    def of(
        cls, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        return cls(status, dict(headers or {}), Content(body), 0, len(body))


@dataclass
class Hosted:
    """All that a hub knows; `cdn` is the address that its redirects lead to.

    `files` are what the third port serves, by the path of the address.
    """

    repositories: dict[str, HostedRepository] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    files: dict[str, HostedFile] = field(default_factory=dict)
    endpoint: str = ""
    cdn: str = ""
    # What the hub names as the address of Xet's own storage.
    xet_storage: str = ""

    def answer_hub(self, asked: Asked) -> Reply:
        """Answer on the hub's own port."""
        parts = asked.parts
        if parts[:2] == ["api", "models"]:
            return self._api(asked, parts[2:])
        if "resolve" in parts:
            at = parts.index("resolve")
            name, rest = "/".join(parts[:at]), parts[at + 1 :]
            return self._resolve(asked, name, rest[0], "/".join(rest[1:]))
        return refused(404, None, "Not found")

    def answer_cdn(self, asked: Asked) -> Reply:
        """Answer on the second port: content by its digest."""
        digest = asked.parts[0]
        for hosted in self.repositories.values():
            for files in hosted.commits.values():
                for content in files.values():
                    if content.sha256 == digest:
                        # S3 makes ETags of its own. [report]
                        etag = f'"{content.blob[:32]}"'
                        return _part(asked, content, {"ETag": etag})
        return Reply.of(403)

    def answer_files(self, asked: Asked) -> Reply:
        """Answer on the third port: a web server that is no hub."""
        file = self.files.get("/" + "/".join(asked.parts))
        if file is None:
            return Reply.of(404, b"<html>Not found", {"Content-Type": "text/html"})
        stated = {
            "ETag": file.etag,
            "Last-Modified": file.modified,
            "Content-Type": file.kind,
            "Accept-Ranges": "bytes" if file.ranges else "none",
        }
        headers = {name: text for name, text in stated.items() if text is not None}
        if file.ranges:
            return _part(asked, file.content, headers)
        return Reply(200, headers, file.content, 0, file.content.size)

    def _api(self, asked: Asked, parts: list[str]) -> Reply:
        name, rest = "/".join(parts[:2]), parts[2:]
        hosted = self.repositories.get(name)
        # A gated repository is shown to everybody. [report]
        refusal = self._refusal(asked, hosted, files=False)
        if refusal is not None or hosted is None:
            return refusal or _no_repository(asked)
        if hosted.moved_to is not None:
            where = asked.target.replace(name, hosted.moved_to, 1)
            return Reply.of(307, headers={"Location": where})
        kind = rest[0] if rest else "revision"
        if kind == "refs":
            main = {"name": "main", "ref": "refs/heads/main"}
            main["targetCommit"] = hosted.head
            return _json({"branches": [main], "converts": [], "tags": []})
        if kind == "auth-check":
            return self._refusal(asked, hosted, files=True) or Reply.of(200)
        revision = rest[1] if len(rest) > 1 else "main"
        commit = hosted.at(revision)
        if commit is None:
            return refused(404, "RevisionNotFound", f"Invalid rev id: {revision!a}")
        if kind == "revision":
            return _json(_model(hosted, commit, blobs="blobs" in asked.query))
        if kind == "paths-info":
            paths = parse_qs(asked.form.decode())["paths"]
            entries = [e for e in _tree(hosted, commit) if e["path"] in paths]
            return _json(entries)
        if kind == "tree":
            return self._tree(asked, hosted, commit)
        if kind == "xet-read-token" and hosted.xet:
            return self._refusal(asked, hosted, files=True) or self._xet_token()
        return refused(404, None, "Not found")

    def _tree(self, asked: Asked, hosted: HostedRepository, commit: str) -> Reply:
        entries = _tree(hosted, commit)
        start = int(asked.query.get("cursor", ["0"])[0])
        reply = _json(entries[start : start + _PAGE])
        if start + _PAGE < len(entries):
            base = asked.target.partition("&cursor=")[0]
            mark = "&" if "?" in base else "?"
            more = f"{self.endpoint}{base}{mark}cursor={start + _PAGE}"
            reply.headers["Link"] = f'<{more}>; rel="next"'
        return reply

    def _xet_token(self) -> Reply:
        """Lend access to Xet's storage, in headers and again as JSON. [client]"""
        end = int(time.time()) + _XET_TOKEN_S
        token = f"xet_{end}"
        reply = _json({"casUrl": self.xet_storage, "accessToken": token, "exp": end})
        reply.headers |= {
            "X-Xet-Cas-Url": self.xet_storage,
            "X-Xet-Access-Token": token,
            "X-Xet-Token-Expiration": str(end),
        }
        return reply

    def _resolve(self, asked: Asked, name: str, revision: str, path: str) -> Reply:
        hosted = self.repositories.get(name)
        if hosted is not None and hosted.moved_to is not None:
            where = asked.target.replace(name, hosted.moved_to, 1)
            return Reply.of(307, headers={"Location": where})
        refusal = self._refusal(asked, hosted, files=True)
        if refusal is not None or hosted is None:
            return refusal or _no_repository(asked)
        commit = hosted.at(revision)
        if commit is None:
            return refused(404, "RevisionNotFound", f"Invalid rev id: {revision!a}")
        headers = {
            "X-Repo-Commit": commit,
            "Accept-Ranges": "bytes",
            "Access-Control-Expose-Headers": _EXPOSED,
        }
        content = hosted.commits[commit].get(path)
        if content is None:
            return refused(404, "EntryNotFound", "Entry not found", headers)
        if not is_large(path, content):
            return _part(asked, content, headers | {"ETag": f'"{content.blob}"'})
        if hosted.xet:
            route = f"{self.endpoint}/api/models/{name}/xet-read-token/{commit}"
            headers["X-Xet-Hash"] = content.xet_hash
            headers["Link"] = f'<{route}>; rel="xet-auth"'
        body = f"Found. Redirecting to {self.cdn}\n".encode()
        return Reply.of(
            302,
            body,
            headers
            | {
                "X-Linked-ETag": f'"{content.sha256}"',
                "X-Linked-Size": str(content.size),
                "Location": f"{self.cdn}/{content.sha256}?Signature={quote(name)}",
            },
        )

    def _refusal(
        self, asked: Asked, hosted: HostedRepository | None, *, files: bool
    ) -> Reply | None:
        """Return why this repository is not for this token, None if it is. [client]"""
        if asked.token is not None and asked.token not in self.tokens:
            return refused(401, None, "Invalid credentials in Authorization header")
        if hosted is None or (hosted.private and asked.token not in hosted.members):
            return _no_repository(asked)
        if hosted.disabled:
            return refused(403, None, "Access to this resource is disabled.")
        if files and hosted.gated and asked.token not in hosted.members:
            status = 401 if asked.token is None else 403
            message = f"Access to model {hosted.name} is restricted."
            return refused(status, "GatedRepo", message)
        return None


def refused(
    status: int,
    code: str | None,
    message: str,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Answer with an error in the hub's form. [client]"""
    reply = _json({"error": message}, status)
    reply.headers |= {"X-Error-Message": message, **(headers or {})}
    if code is not None:
        reply.headers["X-Error-Code"] = code
    return reply


def _no_repository(asked: Asked) -> Reply:
    # 401 without a token, so that private names cannot be told from free ones.
    return refused(
        401 if asked.token is None else 404, "RepoNotFound", "Repository not found"
    )


def _json(value: object, status: int = 200) -> Reply:
    kind = {"Content-Type": "application/json; charset=utf-8"}
    return Reply.of(status, json.dumps(value).encode(), kind)


def _part(asked: Asked, content: Content, headers: Mapping[str, str]) -> Reply:
    """Answer with a file or with the part of it that was asked for."""
    kind = {
        "Content-Type": "application/octet-stream",
        "Accept-Ranges": "bytes",
        **headers,
    }
    etag = kind.get("ETag", "")
    # A weak one is never enough for a part. Source: RFC 9110, section 13.1.5.
    is_same = asked.if_range is None or (
        not etag.startswith("W/")
        and asked.if_range in (etag, kind.get("Last-Modified"))
    )
    match = _RANGE.fullmatch(asked.byte_range or "") if is_same else None
    if match is None or not (match[1] or match[2]):
        return Reply(200, kind, content, 0, content.size)
    start, end = _place(match[1], match[2], content.size)
    if start >= content.size or end <= start:
        return Reply.of(
            416, headers=kind | {"Content-Range": f"bytes */{content.size}"}
        )
    kind["Content-Range"] = f"bytes {start}-{end - 1}/{content.size}"
    return Reply(206, kind, content, start, end)


def _place(first: str, last: str, size: int) -> tuple[int, int]:
    """Return the bytes that a range means: the last so many without a first."""
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(int(last) + 1 if last else size, size)


def zipped(reply: Reply) -> Reply:
    """Return the same answer, its body compressed."""
    body = b"".join(reply.content.pieces(reply.start, reply.end))
    packed = Reply.of(reply.status, gzip.compress(body, 1, mtime=0), reply.headers)
    packed.headers["Content-Encoding"] = "gzip"
    return packed


def resized(reply: Reply, more: int) -> Reply:
    """Return the same answer with so many bytes more, or fewer."""
    body = b"".join(reply.content.pieces(reply.start, reply.end))
    body = body[:more] if more < 0 else body + bytes(more)
    return Reply.of(reply.status, body, reply.headers)


def with_values(value: Any, places: Mapping[str, Any]) -> Any:
    """Return a JSON value with others put in at places such as `siblings.*.size`.

    A place that is not there is passed over, but for a last key of an object.
    """
    for place, wanted in places.items():
        value = _put(value, place.split("."), wanted)
    return value


def _put(value: Any, steps: list[str], wanted: Any) -> Any:
    if not steps:
        return wanted
    step, rest = steps[0], steps[1:]
    if isinstance(value, list):
        return [
            _put(item, rest, wanted) if step in ("*", str(index)) else item
            for index, item in enumerate(value)
        ]
    if isinstance(value, dict) and (step in value or not rest):
        return value | {step: _put(value.get(step), rest, wanted)}
    return value


def _model(hosted: HostedRepository, commit: str, *, blobs: bool) -> dict[str, Any]:
    """Describe a model. Source: huggingface_hub 2.4.0, hf_api.py, ModelInfo."""
    return {
        "_id": hosted.head[:24],
        "id": hosted.name,
        "modelId": hosted.name,
        "sha": commit,
        "author": hosted.name.partition("/")[0],
        "private": hosted.private,
        "gated": "manual" if hosted.gated else False,
        "disabled": hosted.disabled,
        "lastModified": "2024-01-01T00:00:00.000Z",
        "createdAt": "2024-01-01T00:00:00.000Z",
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": [
            {"rfilename": path, **(_sibling(path, content) if blobs else {})}
            for path, content in hosted.commits[commit].items()
        ],
    }


def _sibling(path: str, content: Content) -> dict[str, Any]:
    if not is_large(path, content):
        return {"size": content.size, "blobId": content.blob}
    lfs = {
        "sha256": content.sha256,
        "size": content.size,
        "pointerSize": content.pointer.size,
    }
    return {"size": content.size, "blobId": content.pointer.blob, "lfs": lfs}


def _tree(hosted: HostedRepository, commit: str) -> list[dict[str, Any]]:
    """List all files; the digest of a large one is `oid` here. [client]"""
    entries: list[dict[str, Any]] = []
    for path, content in hosted.commits[commit].items():
        entry = {"type": "file", "path": path, **_sibling(path, content)}
        entry["oid"] = entry.pop("blobId")
        if "lfs" in entry:
            entry["lfs"]["oid"] = entry["lfs"].pop("sha256")
            if hosted.xet:
                entry["xetHash"] = content.xet_hash
        entries.append(entry)
    return entries
