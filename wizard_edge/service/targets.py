"""From what a person typed to the file to open and how to talk to it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from wizard_edge.engine import Sampling
from wizard_edge.errors import NotFound, UnknownModel, UsageError
from wizard_edge.gguf import read_header
from wizard_edge.refs import FileRef, ModelRef, RegistryRef
from wizard_edge.registry import ModelSpec
from wizard_edge.service.checkpoints import pull_command
from wizard_edge.service.installation import Installation
from wizard_edge.service.models import resolve
from wizard_edge.store import Installed
from wizard_edge.templates import TEMPLATES, PromptTemplate, find_template
from wizard_edge.verdicts import Judge, check, check_once


@dataclass(frozen=True, slots=True)
class Target:
    """A file to open; `template` is the id it goes by, None where nobody says.

    `sampling` is what the model's authors used, greedy for a model we do not know.
    `installed` is None for a file that was named by its path.
    """

    name: str
    path: Path
    template: str | None
    sampling: Sampling
    installed: Installed | None = None

    @property
    def judge(self) -> Judge:
        """What decides whether the file may be loaded: once for an installed one."""
        if self.installed is None:
            return check
        return partial(check_once, sha256=self.installed.receipt.sha256)


def find_target(installation: Installation, ref: str) -> Target:
    """Find an installed model, or a GGUF file named by its path.

    Raises: UnknownModel, NotFound for a known model that is not installed,
    UnknownQuant, MissingFile, and Corrupt for a file that is no GGUF.
    """
    parsed = ModelRef.parse(ref)
    if isinstance(parsed, RegistryRef):
        return _installed(installation, parsed)
    if isinstance(parsed, FileRef):
        path = parsed.path.expanduser()
        return Target(path.name, path, _template_in(path), Sampling())
    raise NotFound(
        f"{parsed} is not on this machine",
        hint=f"wizard-edge pull {parsed}",
    )


def note_use(installation: Installation, target: Target) -> None:
    """Note that an installed model was opened, where the store can be written."""
    if target.installed is not None:
        installation.store.mark_used(target.installed, installation.clock())


def choose_template(target: Target, wanted: str | None) -> PromptTemplate:
    """Return the template: the one asked for, else the model's own.

    Raises: UsageError for an unknown one, or where nobody knows the model's.
    """
    if wanted is not None:
        return find_template(wanted)
    if target.template is None:
        raise UsageError(
            f"nobody says which template {target.name} was trained on",
            hint=f"--template {'|'.join(TEMPLATES)}",
        )
    return find_template(target.template)


def _installed(installation: Installation, ref: RegistryRef) -> Target:
    name, spec = resolve(installation, ref)
    try:
        installed = installation.store.find(name, ref.quant)
    except UnknownModel as err:
        if spec is None:
            # It was there a moment ago.
            raise
        raise NotFound(f"{name} is not installed", hint=_way_to(spec)) from err
    return Target(
        name=f"{name}:{installed.receipt.quant}",
        path=installed.path,
        template=_template_of(installed, spec),
        sampling=sampling_of(spec),
        installed=installed,
    )


def _way_to(spec: ModelSpec) -> str:
    source = spec.source
    if source is not None and source.package is not None:
        return f"wizard-edge pull {spec.name}"
    bring = "get a GGUF and 'wizard-edge import FILE'"
    if source is None or source.repo is None:
        return bring
    return f"{bring}, or '{pull_command(spec)}'"


def sampling_of(spec: ModelSpec | None) -> Sampling:
    """Return the sampling the model's authors used; greedy where none is known."""
    if spec is None or spec.sampling is None:
        return Sampling()
    return Sampling(temperature=spec.sampling.temperature, top_p=spec.sampling.top_p)


def _template_of(installed: Installed, spec: ModelSpec | None) -> str | None:
    # The registry first: the user's own file and a corrected release reach what is
    # installed already.
    if spec is not None:
        return spec.template
    return installed.receipt.template or _template_in(installed.path)


def _template_in(path: Path) -> str | None:
    named = read_header(path).template
    return named if named in TEMPLATES else None
