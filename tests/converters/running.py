"""Converts a directory to one quant, which is what most tests want."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wizard_edge.progress import Progress, silent
from wizard_edge_converters import pipeline
from wizard_edge_converters.options import ConvertOptions
from wizard_edge_converters.pipeline import Made
from wizard_edge_converters.plan import OutputFile, Plan


@dataclass(frozen=True, slots=True)
class Converted:
    """What came out, and how it had been planned."""

    made: Made
    plan: Plan

    @property
    def path(self) -> Path:
        return self.made.path

    @property
    def size(self) -> int:
        return self.made.size

    @property
    def sha256(self) -> str:
        return self.made.sha256

    @property
    def file(self) -> OutputFile:
        """The file as it was planned, zeros in place of measured figures."""
        return self.plan.files[0]


def convert(
    source: Path, output: Path, options: ConvertOptions, *, progress: Progress = silent
) -> Converted:
    """Convert a checkpoint directory to the one quant of the options."""
    done = pipeline.convert(source, [output], options, progress=progress)
    [made] = done.made
    return Converted(made, done.plan)
