"""The pipeline as the `Convert` that commands hand down to the service layer.

Imports the pipeline when it is used: numpy and llama.cpp are not needed to find out
that there is nothing to convert.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wizard_edge.conversion import Converted, Cost, ModelFacts
from wizard_edge.progress import Progress


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Converts checkpoint directories; `overwrite` replaces an output that is there."""

    overwrite: bool = False

    def estimate(self, source: Path, *, quant: str) -> Cost:
        """Say what a conversion takes; see `wizard_edge.conversion.Convert`."""
        from wizard_edge_converters import pipeline

        plan = pipeline.plan_directory(source, pipeline.ConvertOptions((quant,)))
        return Cost(
            read_bytes=plan.read_bytes,
            output_bytes=plan.output_bytes,
            peak_disk_bytes=plan.peak_disk_bytes,
            peak_memory_bytes=plan.peak_memory_bytes,
            tensors=plan.targets[0].tensors,
        )

    def convert(
        self,
        source: Path,
        output: Path,
        *,
        quant: str,
        facts: ModelFacts,
        progress: Progress,
    ) -> Converted:
        """Write one GGUF file; see `wizard_edge.conversion.Convert`."""
        from wizard_edge_converters import pipeline

        options = pipeline.ConvertOptions(
            quants=(quant,),
            name=facts.title,
            template=facts.template,
            licenses=tuple(license.id for license in facts.licenses),
            source_repo=facts.origin.repo,
            source_revision=facts.origin.revision,
            overwrite=self.overwrite,
        )
        done = pipeline.convert(source, [output], options, progress=progress)
        [made] = done.made
        return Converted(made.path, made.size, made.sha256)
