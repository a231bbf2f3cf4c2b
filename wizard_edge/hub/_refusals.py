"""What the hub's refusals mean to a person: an error and what to do next."""

from __future__ import annotations

from dataclasses import dataclass

from wizard_edge.errors import HubError, NotFound, Refused, WizardEdgeError
from wizard_edge.names import RepoId

_LOG_IN = "run 'hf auth login' or set HF_TOKEN"
_BAD_TOKEN = "Invalid credentials in Authorization header"
_DISABLED = "Access to this resource is disabled."


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer of the hub that no retry mends, and what was asked."""

    status: int
    code: str | None
    message: str | None
    repo: RepoId
    what: str
    endpoint: str
    with_token: bool

    @property
    def host(self) -> str:
        return self.endpoint.partition("://")[2]


def refusal(answer: Refusal) -> WizardEdgeError:
    """Turn a refusal into an error. None of the hub's own words are repeated.

    Source: huggingface_hub 2.4.0, utils/_http.py, hf_raise_for_status.
    """
    host, repo = answer.host, answer.repo
    if answer.code == "GatedRepo":
        return _terms(answer)
    if answer.message == _DISABLED:
        return Refused(f"{host} has closed {repo} to everybody")
    if answer.code == "RevisionNotFound":
        return NotFound(
            f"{repo} has no revision {answer.what!r}",
            hint=f"{answer.endpoint}/{repo}/refs shows what there is",
        )
    if answer.code == "EntryNotFound":
        return NotFound(
            f"{repo} has no file {answer.what}",
            hint=f"{answer.endpoint}/{repo}/tree/main shows what there is",
        )
    if _is_about_token(answer):
        return HubError(
            f"{host} does not accept the token",
            hint="'hf auth login' stores a new one, but HF_TOKEN goes before it",
        )
    if answer.code == "RepoNotFound" or answer.status in (401, 404):
        return NotFound(
            f"{host} shows no repository {repo}",
            hint="check the name, and the rights of the token if it is private"
            if answer.with_token
            else f"check the name; if it is private, {_LOG_IN}",
        )
    if answer.status == 403:
        return HubError(
            f"{host} forbids access to {repo}",
            hint="the token may lack the right to read it",
        )
    if answer.status == 416:
        return _too_short(host, answer.what)
    return HubError(f"{host} answers {answer.status}")


def refusal_of_address(status: int, host: str, what: str) -> WizardEdgeError:
    """Turn the refusal of a server that is no hub into an error."""
    if status in (404, 410):
        return NotFound(f"{host} has no file {what}", hint="check the address")
    if status in (401, 403):
        return HubError(
            f"{host} forbids access to {what}", hint="open the address in a browser"
        )
    if status == 416:
        return _too_short(host, what)
    return HubError(f"{host} answers {status}")


def _too_short(host: str, what: str) -> HubError:
    return HubError(
        f"{host} has fewer bytes of {what} than it said",
        hint="run the command again: it asks anew what there is",
    )


def _terms(answer: Refusal) -> Refused:
    page = f"accept them at {answer.endpoint}/{answer.repo}"
    return Refused(
        f"{answer.repo} asks that its terms be accepted first",
        hint=page if answer.with_token else f"{page}, and then {_LOG_IN}",
    )


def _is_about_token(answer: Refusal) -> bool:
    # The hub says 401 without a code of a token that it does not know.
    return (
        answer.with_token
        and answer.status == 401
        and (answer.code is None or answer.message == _BAD_TOKEN)
    )
