"""The way from a checkpoint to one GGUF file: plan, read, quantize, write, verify.

One pass: every tensor goes from stored rows through f32 rows to ggml rows and to its
final place. One thread reads in order; the others quantize and write. In memory are
a few row blocks, never a tensor.
"""

from __future__ import annotations

import os
import re
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wizard_edge._llama.tensor_types import decide_types
from wizard_edge.errors import CannotConvert, Corrupt, UsageError
from wizard_edge.gguf_types import FileType, GgmlType
from wizard_edge.names import RepoId
from wizard_edge.progress import Progress, ProgressEvent, silent
from wizard_edge.refs import DEFAULT_QUANT, parse_quant
from wizard_edge.templates import find_template
from wizard_edge_converters.checkpoint import Checkpoint
from wizard_edge_converters.directory import open_checkpoint
from wizard_edge_converters.header import lay_out
from wizard_edge_converters.hparams import LlamaHparams, read_hparams
from wizard_edge_converters.metadata import Provenance, build_metadata
from wizard_edge_converters.plan import (
    Block,
    Plan,
    Step,
    lossless_type,
    plain_types,
    plan_conversion,
    tensor_entries,
)
from wizard_edge_converters.quantize import NotFinite, encode_block
from wizard_edge_converters.tensors import Match, llama_rules, match_tensors
from wizard_edge_converters.tokenizer import read_vocabulary
from wizard_edge_converters.verify import Checks, verify_file
from wizard_edge_converters.writer import (
    PartFile,
    check_output,
    check_space,
    replacing,
)

# Quants that only say how to store a number: nothing has to be decided per tensor.
PLAIN_QUANTS = {"F32": GgmlType.F32, "F16": GgmlType.F16, "BF16": GgmlType.BF16}

_LICENSE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_MAX_NOTE = 200
_NAMELESS = "model"


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """What to make of a checkpoint, checked when it is made.

    `quant` is any that llama.cpp makes without an importance matrix. `name` defaults
    to that of the directory. `threads` None means one for each usable core.
    Raises: UnknownQuant; UsageError for an unknown template or a malformed value.
    """

    quant: str = DEFAULT_QUANT
    name: str | None = None
    template: str | None = None
    licenses: tuple[str, ...] = ()
    source_repo: RepoId | None = None
    source_revision: str | None = None
    threads: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "quant", parse_quant(self.quant))
        if self.template is not None:
            find_template(self.template)
        for license_id in self.licenses:
            if not _LICENSE_ID.fullmatch(license_id):
                raise UsageError(f"not a licence id: {license_id!r}")
        for text in (self.name, self.source_revision):
            if text is not None and not _is_note(text):
                raise UsageError(f"not a plain text of one line: {text[:80]!r}")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads must be 1 or more, not {self.threads}")


@dataclass(frozen=True, slots=True)
class Converted:
    """What a conversion left: the file, its sha256 and size, and what was planned."""

    path: Path
    sha256: str
    size: int
    plan: Plan


def plan_directory(source: Path, options: ConvertOptions) -> Plan:
    """Decide how to convert a checkpoint directory; writes nothing.

    Raises: as `convert`, but for what only reading the weights brings to light.
    """
    with open_checkpoint(source) as checkpoint:
        return plan_checkpoint(checkpoint, source.absolute().name, options)


def convert(
    source: Path,
    output: Path,
    options: ConvertOptions,
    *,
    progress: Progress = silent,
) -> Converted:
    """Convert a checkpoint directory to one GGUF file.

    Events: `convert` in source bytes, `verify` in output bytes.
    Raises: MissingFile; UsageError; Corrupt; CannotConvert for no checkpoint, an
    architecture or a quant that cannot be had; NotEnough before the first byte;
    BackendError. After an error the output is as it was before.
    """
    if output.is_symlink():
        # The file it points to is meant, not the link.
        output = output.resolve()
    check_output(output, overwrite=options.overwrite)
    with open_checkpoint(source) as checkpoint:
        _keep_apart(source, output)
        plan = plan_checkpoint(checkpoint, source.absolute().name, options)
        check_space(output.parent, plan.peak_disk_bytes)
        with replacing(output, plan.output_bytes) as part:
            checks = write_tensors(
                plan, checkpoint, part, threads=_threads(options), progress=progress
            )
            checkpoint.finish()
            digest = verify_file(part.path, plan, checks, progress=progress)
    return Converted(output, digest, plan.output_bytes, plan)


def plan_checkpoint(checkpoint: Checkpoint, name: str, options: ConvertOptions) -> Plan:
    """Decide how to convert an open checkpoint; `name` is for one without a name."""
    hparams = read_hparams(checkpoint)
    vocabulary = read_vocabulary(checkpoint, hparams.vocabulary, hparams.special_ids)
    matches = match_tensors(llama_rules(hparams), checkpoint.tensors, checkpoint.name)
    provenance = _provenance(name, options)
    types = _choose_types(hparams, matches, provenance, options.quant)
    entries = build_metadata(
        hparams,
        vocabulary,
        provenance,
        parameters=_count_parameters(matches),
        file_type=FileType[options.quant],
    )
    return plan_conversion(
        matches,
        types,
        entries,
        quant=options.quant,
        architecture=hparams.architecture,
        read_bytes=checkpoint.size,
        threads=_threads(options),
        notes=vocabulary.notes,
    )


def write_tensors(
    plan: Plan,
    checkpoint: Checkpoint,
    part: PartFile,
    *,
    threads: int,
    progress: Progress = silent,
) -> Checks:
    """Carry out a plan; return the CRC-32 of every block that was written.

    Blocks are read in the plan's order and are in memory `threads` + 2 at a time.
    Raises: Corrupt naming the tensor; NotEnough.
    """
    part.write(0, plan.header)
    checks = {
        step.name: np.zeros(step.block_count, dtype=np.uint32) for step in plan.steps
    }
    total = sum(step.source.size for step in plan.steps)
    done = 0
    running: deque[Future[int]] = deque()

    def carry(data: bytes, step: Step, block: Block) -> int:
        encoded = _encode(data, step, block, checkpoint)
        checks[step.name][block.index] = zlib.crc32(encoded)
        part.write(block.offset, encoded)
        return len(data)

    def wait() -> None:
        nonlocal done
        done += running.popleft().result()
        progress(ProgressEvent("convert", done, total))

    with ThreadPoolExecutor(threads) as pool:
        try:
            for data, step, block in _read_blocks(plan, checkpoint):
                running.append(pool.submit(carry, data, step, block))
                if len(running) > threads:
                    wait()
            while running:
                wait()
        except BaseException:
            for future in running:
                future.cancel()
            raise
    return checks


def _read_blocks(
    plan: Plan, checkpoint: Checkpoint
) -> Iterator[tuple[bytes, Step, Block]]:
    for step in plan.steps:
        for block in step.blocks():
            start, count = block.start * step.columns, block.rows * step.columns
            yield checkpoint.read(step.source, start, count), step, block


def _encode(
    data: bytes, step: Step, block: Block, checkpoint: Checkpoint
) -> memoryview:
    try:
        return encode_block(data, step, block)
    except NotFinite as err:
        source = step.source
        raise Corrupt(
            checkpoint.label(source.file), str(err), where=f"tensor {source.name}"
        ) from err


def _choose_types(
    hparams: LlamaHparams,
    matches: tuple[Match, ...],
    provenance: Provenance,
    quant: str,
) -> dict[str, GgmlType]:
    """Return the type of every tensor, for a quantized file as llama.cpp decides.

    It is asked about the file that would lie between in two steps: the one that
    holds the checkpoint without loss, whose types its decision leans on a little.
    """
    if quant in PLAIN_QUANTS:
        return plain_types(matches, PLAIN_QUANTS[quant])
    matrix = lossless_type(matches)
    between = plain_types(matches, matrix)
    entries = build_metadata(
        hparams,
        None,
        provenance,
        parameters=_count_parameters(matches),
        file_type=FileType[matrix.name],
    )
    layout = lay_out(entries, tensor_entries(matches, between))
    decision = decide_types(layout.header, layout.size, FileType[quant], between)
    if decision.needs_imatrix:
        raise CannotConvert(
            f"{quant} needs an importance matrix",
            hint="Q4_K_M, IQ4_XS and all larger quants do without one",
        )
    return dict(decision.types)


def _provenance(name: str, options: ConvertOptions) -> Provenance:
    return Provenance(
        name=options.name or (name if _is_note(name) else _NAMELESS),
        template=options.template,
        licenses=options.licenses,
        repo=options.source_repo,
        revision=options.source_revision,
    )


def _count_parameters(matches: tuple[Match, ...]) -> int:
    return sum(match.stored.elements for match in matches)


def _keep_apart(source: Path, output: Path) -> None:
    """Refuse an output that is a file of the checkpoint itself."""
    if output.exists() and any(output.samefile(file) for file in source.iterdir()):
        raise UsageError(f"the output is a part of the checkpoint: {output}")


def _threads(options: ConvertOptions) -> int:
    if options.threads is not None:
        return options.threads
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _is_note(text: str) -> bool:
    return 0 < len(text) <= _MAX_NOTE and text.isprintable()
