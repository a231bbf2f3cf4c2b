"""The pipeline as the `Convert` that commands hand down to the service layer.

Imports the pipeline when it is used: numpy and llama.cpp are not needed to find out
that there is nothing to convert.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wizard_edge.conversion import (
    Converted,
    ConvertedFile,
    Cost,
    ModelFacts,
    QuantCost,
    Recipe,
    Weights,
)
from wizard_edge.progress import Progress

if TYPE_CHECKING:
    from wizard_edge.names import CommitId
    from wizard_edge_converters.options import ConvertOptions
    from wizard_edge_converters.pipeline import Conversion, Made
    from wizard_edge_converters.plan import Plan
    from wizard_edge_converters.type_rules import TypeRules


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Converts checkpoints; `overwrite` replaces an output that is there.

    `environ` says how to reach the hub.
    """

    overwrite: bool = False
    environ: Mapping[str, str] = field(default_factory=dict)

    def estimate(self, source: Weights, recipe: Recipe, facts: ModelFacts) -> Cost:
        """Say what a conversion takes; see `wizard_edge.conversion.Convert`."""
        from wizard_edge_converters import pipeline
        from wizard_edge_converters.sources import open_source
        from wizard_edge_converters.type_rules import read_rules

        with open_source(source, recipe.base, environ=self.environ) as opened:
            options = self._options(recipe, facts, opened.revision)
            rules = read_rules(options.rules)
            plan = pipeline.plan_checkpoint(
                opened.checkpoint, opened.title, options, rules
            )
            kept = opened.fetched if recipe.keep_weights is not None else 0
        return _cost(plan, recipe, rules, kept=kept)

    def convert(
        self,
        source: Weights,
        outputs: Sequence[Path],
        recipe: Recipe,
        facts: ModelFacts,
        *,
        partial: Path | None = None,
        progress: Progress,
    ) -> tuple[Converted, ...]:
        """Write one GGUF file for each quant; see `wizard_edge.conversion.Convert`."""
        from wizard_edge_converters import pipeline
        from wizard_edge_converters.sources import open_source

        sources = source, recipe.base
        pipeline.check_outputs(sources, outputs, overwrite=self.overwrite)
        with open_source(
            source, recipe.base, environ=self.environ, keep=recipe.keep_weights
        ) as opened:
            done = pipeline.convert_checkpoint(
                opened.checkpoint,
                opened.title,
                outputs,
                self._options(recipe, facts, opened.revision),
                partial=partial,
                progress=progress,
            )
        return tuple(_converted(made, done, opened.revision) for made in done.made)

    def _options(
        self, recipe: Recipe, facts: ModelFacts, revision: CommitId | None
    ) -> ConvertOptions:
        from wizard_edge_converters.options import ConvertOptions

        return ConvertOptions(
            quants=recipe.quants,
            name=facts.title,
            template=facts.template,
            licenses=tuple(license.id for license in facts.licenses),
            license_names=tuple(license.name for license in facts.licenses),
            license_links=tuple(item.url for item in facts.licenses if item.url),
            notices=tuple(item.notice for item in facts.licenses if item.notice),
            source_repo=facts.origin.repo,
            source_revision=revision or facts.origin.revision,
            threads=recipe.threads,
            rules=recipe.rules,
            split_max_size=recipe.split_max_size,
            overwrite=self.overwrite,
        )


@dataclass(frozen=True, slots=True)
class Quantizer:
    """Quantizes GGUF files; `overwrite` replaces an output that is there.

    What is quantized already becomes another type only with `allow_requantize`.
    """

    overwrite: bool = False
    allow_requantize: bool = False

    def estimate(self, source: Path, outputs: Sequence[Path], recipe: Recipe) -> Cost:
        """Say what quantizing takes; writes nothing. Raises: as `quantize`."""
        from wizard_edge_converters.requantize import plan_file
        from wizard_edge_converters.type_rules import read_rules

        plan = plan_file(
            source,
            outputs,
            self._options(recipe),
            allow_requantize=self.allow_requantize,
        )
        return _cost(plan, recipe, read_rules(recipe.rules))

    def quantize(
        self,
        source: Path,
        outputs: Sequence[Path],
        recipe: Recipe,
        *,
        progress: Progress,
    ) -> tuple[Converted, ...]:
        """Write one GGUF file, or its parts, for each quant of the recipe.

        Raises: as `requantize.quantize_file`.
        """
        from wizard_edge_converters.requantize import quantize_file

        done = quantize_file(
            source,
            outputs,
            self._options(recipe),
            allow_requantize=self.allow_requantize,
            progress=progress,
        )
        return tuple(_converted(made, done, None) for made in done.made)

    def _options(self, recipe: Recipe) -> ConvertOptions:
        from wizard_edge_converters.options import ConvertOptions

        return ConvertOptions(
            quants=recipe.quants,
            threads=recipe.threads,
            rules=recipe.rules,
            split_max_size=recipe.split_max_size,
            overwrite=self.overwrite,
        )


def _cost(plan: Plan, recipe: Recipe, rules: TypeRules, *, kept: int = 0) -> Cost:
    from wizard_edge_converters.options import usable_threads
    from wizard_edge_converters.speed import expected_seconds

    return Cost(
        read_bytes=plan.read_bytes,
        peak_disk_bytes=plan.peak_disk_bytes + kept,
        peak_memory_bytes=plan.peak_memory_bytes,
        quants=tuple(
            QuantCost(target.quant, target.size, target.tensors)
            for target in plan.targets
        ),
        files=plan.weight_files,
        seconds=expected_seconds(
            plan,
            threads=usable_threads(recipe.threads),
            importance=rules.weights(
                tensor for file in plan.files for tensor in file.tensors
            ),
        ),
    )


def _converted(made: Made, done: Conversion, revision: CommitId | None) -> Converted:
    quality = {
        f"{name}.{kind}": value
        for kind, deviation in sorted(made.deviations.items())
        for name, value in deviation.figures.items()
    }
    files = tuple(
        ConvertedFile(file.path, file.size, file.sha256) for file in made.files
    )
    return Converted(made.quant, files, quality, done.weights, revision)
