"""One request to the hub: redirects by hand, the token for the hub alone, patience.

A problem that may pass (a cut, silence, 5xx, 429) is a `Passing`; whoever asks
decides with `Retries` how often to ask again. All else is an error of the package.
"""

from __future__ import annotations

import http.client
import logging
import os
import random
import re
import ssl
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cache
from urllib.parse import SplitResult, urljoin, urlsplit

from wizard_edge import __version__
from wizard_edge.errors import ConfigError, HubError, WizardEdgeError
from wizard_edge.hub._refusals import Refusal, refusal, refusal_of_address
from wizard_edge.names import RepoId

_logger = logging.getLogger(__name__)

# Source: huggingface_hub 2.4.0, utils/_http.py, _MAX_REDIRECTS.
_MAX_REDIRECTS = 20
_REDIRECTS = {301, 302, 303, 307, 308}
# Source: huggingface_hub 2.4.0, utils/_http.py, _DEFAULT_RETRY_ON_STATUS_CODES.
_PASSING = {408, 429, 500, 502, 503, 504}
_PORTS = {"http": 80, "https": 443}
_URL = re.compile(r"[!-~]+")
# `RateLimit: "api";r=0;t=55`.
# Source: draft-ietf-httpapi-ratelimit-headers-09, section 4.
_RATE_LIMIT = re.compile(r'"\w+"\s*;\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d{1,9})\b')
_SECONDS = re.compile(r"\d{1,9}")
# Longer than any server's; it is kept in a receipt.
_MAX_TAG = 256
# What the hub says of a file, on the redirect to its bytes or on the bytes.
_STATED = ("X-Repo-Commit", "X-Linked-ETag", "X-Linked-Size", "ETag")
_ENDPOINT_HINT = "write https://HOST"
_AGENT = f"wizard-edge/{__version__}"

Origin = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for the hub, and how often to ask again; all waits in s.

    `timeout_s` bounds a connection and every single read. `tries_to_start` holds
    until the first byte came, `tries_to_go_on` for tries in a row that brought
    nothing after that. `longest_asked_s` is the most that the hub may ask for.
    """

    timeout_s: float = 30.0
    tries_to_start: int = 3
    tries_to_go_on: int = 10
    first_wait_s: float = 1.0
    # After a cut that came behind some bytes: many a line is cut all the time.
    wait_after_progress_s: float = 0.05
    longest_wait_s: float = 30.0
    longest_asked_s: float = 300.0
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    clock: Callable[[], float] = field(default=time.time, repr=False)
    random: Callable[[], float] = field(default=random.random, repr=False)


class Passing(Exception):
    """A problem that may be gone at the next try; `asked_s` if the hub said when."""

    def __init__(self, host: str, problem: str, asked_s: float = 0.0) -> None:
        super().__init__(f"{host}: {problem}")
        self.host = host
        self.problem = problem
        self.asked_s = asked_s


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask for; `what` names it in messages, a file or a revision.

    `repo` is None for an address that is no hub's.
    """

    url: str
    repo: RepoId | None
    what: str
    # The first and the last byte, as `0-99`; None for all.
    byte_range: str | None = None


@dataclass(slots=True)
class Answer:
    """A successful response; whoever holds it closes it."""

    response: http.client.HTTPResponse
    host: str
    # Headers of the hub itself about the file, not of those it redirects to.
    stated: Mapping[str, str]

    @property
    def status(self) -> int:
        return self.response.status

    def header(self, name: str) -> str | None:
        return self.response.headers.get(name)

    @property
    def tag(self) -> str | None:
        """What the server calls this state of a file, if that can be written down."""
        text = self.header("ETag") or self.header("Last-Modified") or ""
        return text if 0 < len(text) <= _MAX_TAG and text.isprintable() else None

    def read_some(self, size: int) -> bytes:
        """Return what has come, at most `size` bytes; nothing at the end.

        Raises: Passing.
        """
        try:
            # read1 makes one call to the socket: what came before a cut is kept.
            return self.response.read1(size)
        except (OSError, http.client.HTTPException) as err:
            raise Passing(self.host, _describe(err)) from err

    def close(self) -> None:
        self.response.close()


class Retries:
    """Counts the tries of one purpose, and waits between them."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._failures = 0
        self._started = False

    def progressed(self) -> None:
        """Begin to count anew: something came."""
        self._failures = 0
        self._started = True

    def wait(self, problem: Passing) -> None:
        """Wait before the next try, longer each time.

        Raises: HubError when there were enough, or the hub asks for too long a wait.
        """
        patience = self._patience
        self._failures += 1
        tries = patience.tries_to_go_on if self._started else patience.tries_to_start
        if self._failures >= tries:
            # Whoever asks again after this has all tries again.
            self._failures = 0
            raise _given_up(problem, tries, started=self._started)
        if problem.asked_s > patience.longest_asked_s:
            raise HubError(
                f"{problem.host} asks to wait {problem.asked_s:.0f} s",
                hint="run the same command again after that",
            )
        after_progress = self._started and self._failures == 1
        grown = (
            patience.wait_after_progress_s
            if after_progress
            else patience.first_wait_s * 2.0 ** (self._failures - 1)
        )
        # Between half and the whole, so that many clients do not come back at once.
        own = min(grown, patience.longest_wait_s) * (0.5 + patience.random() / 2)
        wait_s = max(own, problem.asked_s)
        # A line that is cut all the time is no news each time.
        level = logging.INFO if after_progress else logging.WARNING
        _logger.log(level, "hub asked again: %s, wait_s=%.1f", problem, wait_s)
        patience.sleep(wait_s)


@dataclass(frozen=True, slots=True)
class Transport:
    """Sends requests to one hub and to where it redirects."""

    endpoint: str
    token: str | None = field(repr=False)
    patience: Patience

    @property
    def host(self) -> str:
        return host_of(self.endpoint)

    def get(self, request: Request) -> Answer:
        """Ask once, and follow the redirects.

        Raises: Passing, HubError, NotFound, Refused, ConfigError.
        """
        url, home = request.url, _origin(request.url)
        stated: dict[str, str] = {}
        for _ in range(_MAX_REDIRECTS):
            at_home = _origin(url) == home
            response = self._send(url, request.byte_range, with_token=at_home)
            answer = Answer(response, host_of(url), stated)
            if at_home:
                stated.update(_stated(response))
            if answer.status < 300:
                return answer
            answer.close()
            if answer.status not in _REDIRECTS:
                raise self._failure(request, answer, at_home=at_home)
            url = _target(url, answer.header("Location"))
        raise HubError(f"{self.host} redirects in a circle")

    def _send(
        self, url: str, byte_range: str | None, *, with_token: bool
    ) -> http.client.HTTPResponse:
        headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity"}
        if byte_range is not None:
            headers["Range"] = f"bytes={byte_range}"
        if self.token is not None and with_token:
            headers["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(url, headers=headers)
        try:
            response = _opener().open(request, timeout=self.patience.timeout_s)
        except (OSError, http.client.HTTPException, UnicodeError) as err:
            raise _connection_error(host_of(url), err) from err
        assert isinstance(response, http.client.HTTPResponse)
        return response

    def _failure(
        self, request: Request, answer: Answer, *, at_home: bool
    ) -> Passing | WizardEdgeError:
        if answer.status in _PASSING:
            asked_s = _asked_s(answer, self.patience.clock())
            return Passing(answer.host, f"answers {answer.status}", asked_s)
        if not at_home:
            return HubError(f"{answer.host} answers {answer.status}")
        if request.repo is None:
            return refusal_of_address(answer.status, answer.host, request.what)
        return refusal(
            Refusal(
                answer.status,
                answer.header("X-Error-Code"),
                answer.header("X-Error-Message"),
                request.repo,
                request.what,
                self.endpoint,
                with_token=self.token is not None,
            )
        )


def host_of(url: str) -> str:
    """Return host and port for a message: no user, no signed query."""
    return urlsplit(url).netloc.rpartition("@")[2]


def is_address(text: str) -> bool:
    """Tell whether a text is an http(s) address that a request can use."""
    try:
        _origin(text)
    except ValueError:
        return False
    return True


def check_endpoint(text: str) -> str:
    """Return the address of a hub without a slash at its end.

    Raises: ConfigError.
    """
    try:
        _origin(text)
    except ValueError as err:
        # Not shown: it may hold a password.
        raise ConfigError(f"HF_ENDPOINT is {err}", hint=_ENDPOINT_HINT) from err
    if "?" in text or "#" in text:
        raise ConfigError("HF_ENDPOINT is more than an address", hint=_ENDPOINT_HINT)
    return text.rstrip("/")


def _origin(url: str) -> Origin:
    """Return scheme, host and port. Raises: ValueError for what no request can use."""
    if not _URL.fullmatch(url):
        raise ValueError("not an address")
    parts: SplitResult = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError("not an http(s) address of a host")
    return parts.scheme, parts.hostname.lower(), parts.port or _PORTS[parts.scheme]


def _target(url: str, location: str | None) -> str:
    """Return where a redirect leads.

    Raises: HubError if nowhere, or from https to http.
    """
    host = host_of(url)
    if not location:
        raise HubError(f"{host} redirects to no address")
    try:
        target = urljoin(url, location)
        scheme = _origin(target)[0]
    except ValueError as err:
        raise HubError(f"{host} redirects to no address") from err
    if urlsplit(url).scheme == "https" and scheme != "https":
        raise HubError(
            f"{host} redirects from https to http",
            hint="the network or a proxy may interfere: try another one",
        )
    return target


def _stated(response: http.client.HTTPResponse) -> dict[str, str]:
    found = ((name, response.headers.get(name)) for name in _STATED)
    return {name: text for name, text in found if text is not None}


def _asked_s(answer: Answer, now: float) -> float:
    """Return how long the hub asks to wait, 0 where it does not say."""
    text = (answer.header("Retry-After") or "").strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    if text:
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - now)
        except (ValueError, OverflowError):
            return 0.0
    limit = _RATE_LIMIT.search(answer.header("RateLimit") or "")
    return float(limit[1]) if limit else 0.0


def _connection_error(host: str, err: Exception) -> Passing | HubError:
    # urllib puts what went wrong into `reason`, an error or a text.
    reason = getattr(err, "reason", err)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return HubError(
            f"the certificate of {host} is not trusted: {reason.verify_message}",
            hint="a proxy's own certificate can be named with SSL_CERT_FILE",
        )
    if isinstance(reason, (OSError, http.client.HTTPException)):
        return Passing(host, _describe(reason))
    return HubError(f"cannot reach {host}: not a host name")


def _describe(err: Exception) -> str:
    if isinstance(err, TimeoutError):
        return "no answer in time"
    if isinstance(err, ConnectionRefusedError):
        return "connection refused"
    if isinstance(err, (ConnectionError, http.client.IncompleteRead)):
        return "the connection was cut"
    if isinstance(err, OSError):
        return (err.strerror or str(err)).lower()
    return "no answer in HTTP"


def _given_up(problem: Passing, tries: int, *, started: bool) -> HubError:
    return HubError(
        f"cannot read from {problem}, {tries} times",
        # Whoever can go on from here says so.
        hint="check the network, then try again"
        if started
        else "check the network, the proxy and HF_ENDPOINT, then try again",
    )


@cache
def _opener() -> urllib.request.OpenerDirector:
    """Return what opens http and https, and neither redirects nor raises by status."""
    proxies = urllib.request.getproxies()
    for scheme in _PORTS:
        if "all" in proxies:
            proxies.setdefault(scheme, proxies["all"])
        kind, mark, _ = proxies.get(scheme, "http://").partition("://")
        # Without a kind it is HTTP, as it is for curl. It may hold a password.
        if mark and kind not in _PORTS:
            raise ConfigError(
                f"a proxy of kind {kind!r} is not supported",
                hint=f"set {scheme.upper()}_PROXY to an http:// address",
            )
    opener = urllib.request.OpenerDirector()
    opener.add_handler(urllib.request.ProxyHandler(proxies))
    opener.add_handler(urllib.request.HTTPHandler())
    opener.add_handler(urllib.request.HTTPSHandler(context=_tls()))
    return opener


def _tls() -> ssl.SSLContext:
    """Return the trust of the system, as huggingface_hub has it.

    Source: httpcore2 2.16.2, _ssl.py, default_ssl_context.
    """
    own = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")
    if own or sys.platform not in ("win32", "darwin"):
        return ssl.create_default_context()
    # OpenSSL sees no certificates of these systems. Comes with huggingface_hub.
    try:
        import truststore
    except ImportError:
        return ssl.create_default_context()
    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
