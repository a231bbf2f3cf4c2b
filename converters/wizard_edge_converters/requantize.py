"""From a GGUF file to others: the pipeline's plan, work and verify, another source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wizard_edge.errors import UsageError
from wizard_edge.files import translated
from wizard_edge.progress import Progress, silent
from wizard_edge_converters.gguf_source import GgufCheckpoint, gguf_model, open_gguf
from wizard_edge_converters.options import ConvertOptions
from wizard_edge_converters.pipeline import Conversion, carry_out, plan_model
from wizard_edge_converters.plan import Plan
from wizard_edge_converters.split import split_paths
from wizard_edge_converters.type_rules import TypeRules, read_rules


def plan_file(
    source: Path,
    outputs: Sequence[Path],
    options: ConvertOptions,
    *,
    allow_requantize: bool = False,
) -> Plan:
    """Decide how to quantize a GGUF file; writes nothing. Raises: as `quantize_file`.

    Of `options` what describes a checkpoint does not count.
    """
    rules = read_rules(options.rules)
    with open_gguf(source) as checkpoint:
        return _plan(
            checkpoint, outputs, options, rules, allow_requantize=allow_requantize
        )


def quantize_file(
    source: Path,
    outputs: Sequence[Path],
    options: ConvertOptions,
    *,
    allow_requantize: bool = False,
    progress: Progress = silent,
) -> Conversion:
    """Write a GGUF file, whole or split, in each quant of the options.

    A tensor that has the wanted type already is copied. What is quantized to another
    type loses twice: that is only done with `allow_requantize`.
    Events: `convert` in source bytes, `verify` in output bytes.
    Raises: MissingFile; UsageError, also for an output that is the source; Corrupt;
    BackendError for an architecture or tokenizer that llama.cpp would not run here;
    CannotConvert; NotEnough. After an error the outputs are as they were before.
    """
    rules = read_rules(options.rules)
    with open_gguf(source) as checkpoint, translated(outputs[0]):
        plan = _plan(
            checkpoint, outputs, options, rules, allow_requantize=allow_requantize
        )
        return carry_out(
            plan, checkpoint, outputs, options, rules=rules, progress=progress
        )


def _plan(
    checkpoint: GgufCheckpoint,
    outputs: Sequence[Path],
    options: ConvertOptions,
    rules: TypeRules,
    *,
    allow_requantize: bool,
) -> Plan:
    _keep_apart(checkpoint.paths, outputs)
    model = gguf_model(checkpoint, allow_requantize=allow_requantize)
    plan = plan_model(model, checkpoint.size, options, rules)
    for output, target in zip(outputs, plan.targets, strict=True):
        _keep_apart(checkpoint.paths, split_paths(output, len(target.files)))
    return plan


def _keep_apart(sources: Sequence[Path], outputs: Sequence[Path]) -> None:
    """Refuse an output that is the source, by whatever name."""
    for output in outputs:
        if output.exists() and any(map(output.samefile, sources)):
            raise UsageError(
                f"the output is the source: {output}",
                hint="write to another file",
            )
