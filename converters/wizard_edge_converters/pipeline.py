"""The way from a checkpoint to GGUF files: plan, read, quantize, write, verify.

One pass: every tensor goes from stored rows through f32 rows to ggml rows and to its
final place, in the file of every quant that was asked for. One thread reads in
order; the others quantize and write. In memory are a few row blocks, never a tensor.
What is final stands in a journal, so that a run that was killed can be continued.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wizard_edge._llama import library
from wizard_edge.conversion import Weights
from wizard_edge.errors import (
    HubError,
    Interrupted,
    NotEnough,
    NotFound,
    Refused,
    UsageError,
)
from wizard_edge.names import Sha256
from wizard_edge.progress import Progress, ProgressEvent, silent
from wizard_edge.receipts import CheckedFile
from wizard_edge_converters.checkpoint import Checkpoint
from wizard_edge_converters.journal import StepDone
from wizard_edge_converters.metadata import Provenance
from wizard_edge_converters.model import Model, read_model
from wizard_edge_converters.options import ConvertOptions, is_note, usable_threads
from wizard_edge_converters.plan import OutputFile, Plan, plan_conversion
from wizard_edge_converters.quality import Deviation, quality_entries
from wizard_edge_converters.quantize import NUMBER_TYPES
from wizard_edge_converters.sources import open_source
from wizard_edge_converters.split import split_paths
from wizard_edge_converters.type_rules import TypeRules, read_rules
from wizard_edge_converters.verify import Advance, count_sound, pieces_of, verify_file
from wizard_edge_converters.work import write_tensors
from wizard_edge_converters.writer import PartFiles, check_output, replacing

# Part of every plan's key: a program that would write other bytes has another.
_ENCODING = "1"
_NAMELESS = "model"
NO_RULES = TypeRules()
_GO_ON = "the same command goes on where this one stopped"


@dataclass(frozen=True, slots=True)
class MadeFile:
    """A finished file; `size` in bytes."""

    path: Path
    size: int
    sha256: Sha256


@dataclass(frozen=True, slots=True)
class Made:
    """One quant that was made: its files, and how far their numbers are off.

    `deviations` has the tensor types that lose something.
    """

    quant: str
    files: tuple[MadeFile, ...]
    deviations: Mapping[str, Deviation]

    @property
    def path(self) -> Path:
        """The file to open."""
        return self.files[0].path

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def sha256(self) -> Sha256:
        """The hash of the file to open."""
        return self.files[0].sha256


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was made, what had been planned, and how the weights were checked."""

    made: tuple[Made, ...]
    plan: Plan
    weights: tuple[CheckedFile, ...]


def plan_source(
    source: Weights, options: ConvertOptions, *, base: Weights | None = None
) -> Plan:
    """Decide how to convert original weights; writes nothing.

    Raises: as `convert`, but for what only reading the weights brings to light.
    """
    with open_source(source, base) as opened:
        rules = read_rules(options.rules)
        return plan_checkpoint(opened.checkpoint, opened.title, options, rules)


def convert(
    source: Weights,
    outputs: Sequence[Path],
    options: ConvertOptions,
    *,
    base: Weights | None = None,
    environ: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> Conversion:
    """Convert original weights to a GGUF file for each quant of the options.

    A weight delta needs its base. `environ` says how to reach the hub.
    Events: `check` in bytes that an earlier run left, `convert` in source bytes,
    `verify` in output bytes.
    Raises: MissingFile; UsageError; Corrupt; CannotConvert for no checkpoint, an
    architecture or a quant that cannot be had; NotEnough before the first byte;
    BackendError. After an error the outputs are as they were before.
    """
    check_outputs((source, base), outputs, overwrite=options.overwrite)
    with open_source(source, base, environ=environ) as opened:
        return convert_checkpoint(
            opened.checkpoint, opened.title, outputs, options, progress=progress
        )


def check_outputs(
    sources: Sequence[Weights | None], outputs: Sequence[Path], *, overwrite: bool
) -> None:
    """See that outputs can be written and are no part of what is read.

    Raises: MissingFile; UsageError.
    """
    for output in outputs:
        check_output(_followed(output), overwrite=overwrite)
        for source in sources:
            if isinstance(source, Path) and source.is_dir():
                _keep_apart(source, output)


def plan_checkpoint(
    checkpoint: Checkpoint,
    name: str,
    options: ConvertOptions,
    rules: TypeRules = NO_RULES,
) -> Plan:
    """Decide how to convert an open checkpoint; `name` is for one without a name."""
    model = read_model(checkpoint, _provenance(name, options))
    return plan_model(model, checkpoint.size, options, rules)


def plan_model(
    model: Model, read_bytes: int, options: ConvertOptions, rules: TypeRules = NO_RULES
) -> Plan:
    """Decide how to convert a model of which `read_bytes` have to be read."""
    return plan_conversion(
        model.matches,
        [model.wish(quant, rules) for quant in options.quants],
        architecture=model.architecture,
        read_bytes=read_bytes,
        threads=usable_threads(options.threads),
        split_max_size=options.split_max_size,
        notes=model.notes,
    )


def convert_checkpoint(
    checkpoint: Checkpoint,
    name: str,
    outputs: Sequence[Path],
    options: ConvertOptions,
    *,
    partial: Path | None = None,
    progress: Progress = silent,
) -> Conversion:
    """Convert an open checkpoint; see `convert`.

    `partial` is the folder for what is not finished, None for that of the outputs.
    """
    rules = read_rules(options.rules)
    plan = plan_checkpoint(checkpoint, name, options, rules)
    return carry_out(
        plan,
        checkpoint,
        outputs,
        options,
        rules=rules,
        partial=partial,
        progress=progress,
    )


def carry_out(
    plan: Plan,
    checkpoint: Checkpoint,
    outputs: Sequence[Path],
    options: ConvertOptions,
    *,
    rules: TypeRules = NO_RULES,
    partial: Path | None = None,
    progress: Progress = silent,
) -> Conversion:
    """Read, quantize, write and verify what was planned; see `convert_checkpoint`."""
    paths = [
        path
        for output, target in zip(outputs, plan.targets, strict=True)
        for path in split_paths(_followed(output), len(target.files))
    ]
    for path in paths:
        check_output(path, overwrite=options.overwrite)
    sizes = [file.size for file in plan.files]
    key = plan_key(plan, f"{checkpoint.identity}\n{rules.identity}")
    with (
        replacing(paths, sizes, key, keep=checkpoint.is_remote, folder=partial) as work,
        # Inside: who could not begin has nothing to go on with.
        resumable(keep=checkpoint.is_remote),
    ):
        _keep_sound(plan, work, progress)
        write_tensors(
            plan,
            checkpoint,
            work,
            threads=usable_threads(options.threads),
            importance=rules.weights(t for file in plan.files for t in file.tensors),
            progress=progress,
        )
        deviations = _sum_up(plan, work.journal.progress.steps)
        digests = _seal(plan, deviations, work, progress)
        weights = tuple(work.journal.progress.files.values())
    made = _made(plan, paths, digests, deviations)
    return Conversion(made, plan, weights)


@contextmanager
def resumable(*, keep: bool) -> Iterator[None]:
    """Say how to go on, where what was fetched is kept for the next run."""
    try:
        yield
    except KeyboardInterrupt as err:
        if not keep:
            raise
        raise Interrupted(hint=_GO_ON) from err
    except (HubError, NotFound, Refused, NotEnough) as err:
        if keep:
            err.hint = f"{err.hint}; {_GO_ON}" if err.hint else _GO_ON
        raise


def plan_key(plan: Plan, identity: str) -> str:
    """Return a hash that plans share when they write the same bytes.

    `identity` tells what is read apart.
    """
    digest = hashlib.sha256(f"{_ENCODING}\n{identity}\n".encode())
    types = {place.type for step in plan.steps for place in step.places}
    if not types <= NUMBER_TYPES:
        # Another build of ggml rounds otherwise: half a file of each is neither's.
        digest.update(library.identity().encode())
    for file in plan.files:
        digest.update(file.header)
    for step in plan.steps:
        digest.update(repr(step).encode())
    return digest.hexdigest()


def _keep_sound(plan: Plan, work: PartFiles, progress: Progress) -> None:
    """Forget the steps of an earlier run that the partial files do not bear out."""
    kept = work.journal.progress.steps
    sound = count_sound(
        plan,
        kept,
        [part.path for part in work.parts],
        advance=_counting("check", _size(plan, kept), progress),
    )
    if sound < len(kept):
        work.journal.forget_from(sound)


def _sum_up(plan: Plan, steps: Sequence[StepDone]) -> list[dict[str, Deviation]]:
    """Add up deviations by target and tensor type, in the order of reading."""
    sums: list[dict[str, Deviation]] = [{} for _ in plan.targets]
    # Which target a file belongs to.
    owners = [
        number for number, target in enumerate(plan.targets) for _ in target.files
    ]
    for done in steps:
        places = plan.steps[done.step].places
        for place, deviation in zip(places, done.deviations, strict=True):
            if deviation.count:
                found, kind = sums[owners[place.file]], place.type.name
                found[kind] = found.get(kind, Deviation()) + deviation
    return sums


def _seal(
    plan: Plan,
    deviations: Sequence[Mapping[str, Deviation]],
    work: PartFiles,
    progress: Progress,
) -> list[Sha256]:
    """Write the headers with the measured figures, and read every file back."""
    files = _with_figures(plan, deviations)
    for part, file in zip(work.parts, files, strict=True):
        part.write(0, file.header)
    steps = work.journal.progress.steps
    advance = _counting("verify", plan.output_bytes, progress)
    with ThreadPoolExecutor(1) as pool:
        # The disk takes what is left while the processor checks it.
        # All of it before the first file gets its name: after that a run that was
        # killed could not go on.
        synced = pool.submit(work.sync)
        digests = [
            verify_file(
                part.path, file, pieces_of(plan, steps, number), advance=advance
            )
            for number, (part, file) in enumerate(zip(work.parts, files, strict=True))
        ]
        synced.result()
    return list(map(Sha256.parse, digests))


def _with_figures(
    plan: Plan, deviations: Sequence[Mapping[str, Deviation]]
) -> list[OutputFile]:
    """Put the measured figures into the headers, where zeros keep their places."""
    sealed = []
    for target, measured in zip(plan.targets, deviations, strict=True):
        entries = {e.key: e for e in quality_entries(measured, measured)}
        first, *others = target.files
        sealed += [first.with_entries(entries), *others]
    return sealed


def _counting(stage: str, total: int, progress: Progress) -> Advance:
    """Return what adds up bytes and reports them as one stage."""
    done = 0

    def advance(size: int) -> None:
        nonlocal done
        done += size
        progress(ProgressEvent(stage, done, total))

    return advance


def _size(plan: Plan, steps: Sequence[StepDone]) -> int:
    """Count the bytes that steps wrote."""
    return sum(
        place.row_size * plan.steps[done.step].rows
        for done in steps
        for place in plan.steps[done.step].places
    )


def _made(
    plan: Plan,
    paths: Sequence[Path],
    digests: Sequence[Sha256],
    deviations: Sequence[Mapping[str, Deviation]],
) -> tuple[Made, ...]:
    made = [
        MadeFile(path, file.size, digest)
        for path, file, digest in zip(paths, plan.files, digests, strict=True)
    ]
    result, start = [], 0
    for target, measured in zip(plan.targets, deviations, strict=True):
        end = start + len(target.files)
        result.append(Made(target.quant, tuple(made[start:end]), measured))
        start = end
    return tuple(result)


def _provenance(name: str, options: ConvertOptions) -> Provenance:
    return Provenance(
        name=options.name or (name if is_note(name) else _NAMELESS),
        template=options.template,
        licenses=options.licenses,
        license_names=options.license_names,
        license_links=options.license_links,
        notices=options.notices,
        repo=options.source_repo,
        revision=options.source_revision,
    )


def _followed(output: Path) -> Path:
    # The file a link points to is meant, not the link.
    return output.resolve() if output.is_symlink() else output


def _keep_apart(source: Path, output: Path) -> None:
    """Refuse an output that is a file of the checkpoint itself."""
    if output.exists() and any(output.samefile(file) for file in source.iterdir()):
        raise UsageError(f"the output is a part of the checkpoint: {output}")
