"""Measure a model on a text, and write down what was found where it is installed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.config import Settings
from wizard_edge.engine import KvType, LoadOptions
from wizard_edge.errors import NotEnough, UsageError
from wizard_edge.evaluate import DEFAULT_CONTEXT, Evaluation, evaluate, figure_names
from wizard_edge.files import open_regular
from wizard_edge.hardware import Memory, find_memory
from wizard_edge.names import Sha256
from wizard_edge.progress import Progress, ProgressEvent, silent
from wizard_edge.receipts import EvaluatedOn, Receipt
from wizard_edge.service.chat import check_memory, load_options_from
from wizard_edge.service.consent import refuse_target
from wizard_edge.service.installation import TOOL, Installation
from wizard_edge.service.targets import Target, find_target, note_use

_HASHED_AT_ONCE = 1 << 22


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A finished measurement; `recorded` says whether a receipt has it.

    The KV cache of the model was of `kv_type`, that of the reference of f16.
    `text_sha256` is the hash of the text's file, byte for byte.
    """

    model: str
    reference: str | None
    text_sha256: Sha256
    evaluation: Evaluation
    recorded: bool
    kv_type: KvType = "f16"


def evaluate_model(
    installation: Installation,
    model: str,
    text: Path,
    *,
    reference: str | None = None,
    context: int = DEFAULT_CONTEXT,
    chunks: int | None = None,
    threads: int | None = None,
    kv_type: KvType = "f16",
    commercial: bool | None = None,
    progress: Progress = silent,
) -> Evaluated:
    """Measure an installed model, or a GGUF file, on the text in a file.

    The figures of an installed model replace those of its last evaluation, in its
    receipt; other figures there stay. Those of another `kv_type` than f16 are not
    the file's alone and are not recorded. Model and reference are loaded both, also
    where they are the same; a reference has a KV cache of f16.
    Raises: UnknownModel, NotFound, UnknownQuant, MissingFile, Corrupt, BackendError,
    what `evaluate` raises; UsageError for a file that is no UTF-8 text; Refused for
    one that may not be read, and for a model not free for commercial use where that
    is wanted; NotEnough for weights beyond this machine's memory.
    """
    content, text_sha256 = _read_text(text)
    target = find_target(installation, model)
    other = None if reference is None else find_target(installation, reference)
    targets = [item for item in (target, other) if item is not None]
    for opened in targets:
        refuse_target(installation, opened, commercial=commercial)
    options = _load_options(installation.settings, context, threads)
    _check_memory(target, other, options, find_memory())
    # Early, since it warms the cache for the load, and may be interrupted.
    reference_sha256 = (
        _sha256_of(other, progress) if other and target.installed else None
    )
    ways = [replace(options, kv_type=kv_type), options]
    recorded = target.installed is not None and kv_type == "f16"
    with _loaded(targets, ways, progress) as engines:
        for opened in targets:
            note_use(installation, opened)
        evaluation = evaluate(
            engines[0],
            content,
            context=context,
            chunks=chunks,
            reference=engines[1] if other else None,
            progress=progress,
        )
    if target.installed is not None and recorded:
        found = EvaluatedOn(
            text_sha256=text_sha256,
            context=evaluation.context,
            chunks=evaluation.chunks,
            tool=TOOL,
            evaluated=installation.now(),
            reference=other.name if other else None,
            reference_sha256=reference_sha256,
        )
        installation.store.amend(
            target.installed, lambda receipt: _record(receipt, evaluation, found)
        )
    return Evaluated(
        model=target.name,
        reference=other.name if other else None,
        text_sha256=text_sha256,
        evaluation=evaluation,
        recorded=recorded,
        kv_type=kv_type,
    )


def _read_text(path: Path) -> tuple[str, Sha256]:
    with os.fdopen(open_regular(path), "rb") as file:
        content = file.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise UsageError(f"{path} is not UTF-8 text: byte {err.start}") from err
    return text, Sha256.parse(hashlib.sha256(content).hexdigest())


def _load_options(settings: Settings, context: int, threads: int | None) -> LoadOptions:
    """Return options under which a figure says something of the file alone.

    Where it is computed is the machine's business, how exactly is not: settings that
    trade accuracy for room or speed do not count.
    """
    options = load_options_from(settings)
    if threads is not None:
        options = replace(options, threads=threads, prompt_threads=threads)
    return replace(
        options,
        context=context,
        kv_type="f16",
        flash_attention=None,
        deterministic=False,
    )


def _check_memory(
    target: Target, other: Target | None, options: LoadOptions, memory: Memory
) -> None:
    """Refuse weights that do not fit together. Raises: NotEnough."""
    check_memory(_size(target), options, memory)
    if other is None:
        return
    try:
        check_memory(_size(target) + _size(other), options, memory)
    except NotEnough as err:
        err.hint = "take a smaller reference, such as Q8_0"
        raise


@contextmanager
def _loaded(
    targets: Sequence[Target], ways: Sequence[LoadOptions], progress: Progress
) -> Iterator[list[LlamaEngine]]:
    with ExitStack() as opened:
        yield [
            opened.enter_context(
                closing(
                    LlamaEngine(
                        target.path, options, judge=target.judge, progress=progress
                    )
                )
            )
            for target, options in zip(targets, ways, strict=False)
        ]


def _size(target: Target) -> int:
    if target.installed is not None:
        return target.installed.receipt.size
    return target.path.stat().st_size


def _sha256_of(target: Target, progress: Progress) -> Sha256:
    """Return the hash of the file to open; a receipt knows it already."""
    if target.installed is not None:
        return target.installed.receipt.sha256
    digest, done = hashlib.sha256(), 0
    with os.fdopen(open_regular(target.path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        while block := file.read(_HASHED_AT_ONCE):
            digest.update(block)
            done += len(block)
            progress(ProgressEvent("hash", done, size))
    return Sha256.parse(digest.hexdigest())


def _record(receipt: Receipt, evaluation: Evaluation, found: EvaluatedOn) -> Receipt:
    """Put figures in the place of those of the last evaluation, beside all others."""
    ours = figure_names()
    others = {
        name: value
        for name, value in (receipt.quality or {}).items()
        if name not in ours
    }
    return replace(
        receipt, quality={**others, **evaluation.figures()}, evaluated_on=found
    )
