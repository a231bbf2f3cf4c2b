"""An installation in a folder of the test, and a converter that needs no weights."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.gguf_files import small_llama, string
from wizard_edge.conversion import (
    Converted,
    ConvertedFile,
    Cost,
    ModelFacts,
    QuantCost,
    Recipe,
    Weights,
)
from wizard_edge.errors import CannotConvert
from wizard_edge.gguf import KEY_LICENSES, KEY_TEMPLATE
from wizard_edge.names import Sha256
from wizard_edge.progress import Progress, ProgressEvent
from wizard_edge.service.checkpoints import Request
from wizard_edge.service.conversions import convert_to_store
from wizard_edge.service.installation import Installation, open_installation
from wizard_edge.service.stored import Stored

# 2026-01-02T03:04:05Z
NOW = 1767323045.0
COST = Cost(
    read_bytes=4000,
    peak_disk_bytes=1000,
    peak_memory_bytes=100,
    quants=(QuantCost("F32", 1000, {"F32": 12}),),
    files={"model.safetensors": 4000},
    seconds=1.0,
)


class SmallConvert:
    """Writes the same small model for every checkpoint, and remembers its calls."""

    def __init__(self, *, fail: BaseException | None = None) -> None:
        self.fail = fail
        self.calls: list[tuple[Weights, Recipe, ModelFacts]] = []

    def estimate(self, source: Weights, recipe: Recipe, facts: ModelFacts) -> Cost:
        _check(source)
        return COST

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
        _check(source)
        self.calls.append((source, recipe, facts))
        content = _small_model(facts)
        for output in outputs:
            output.write_bytes(content[: len(content) // 2])
        progress(ProgressEvent("convert", 1, 2))
        if self.fail:
            raise self.fail
        digest = Sha256.parse(sha256(content).hexdigest())
        done = []
        for quant, output in zip(recipe.quants, outputs, strict=True):
            output.write_bytes(content)
            file = ConvertedFile(output, len(content), digest)
            done.append(Converted(quant, (file,), {"rms_error.F16": 0.5}))
        return tuple(done)


def _small_model(facts: ModelFacts) -> bytes:
    file = small_llama()
    if facts.template:
        file.set(KEY_TEMPLATE, string(facts.template))
    ids = " ".join(license.id for license in facts.licenses)
    file.set(KEY_LICENSES, string(ids))
    return file.build()


def an_installation(tmp_path: Path, **environ: str) -> Installation:
    """Point an installation into a folder of the test; nothing is created."""
    found = open_installation(
        {
            "WIZARD_EDGE_HOME": str(tmp_path / "home"),
            "WIZARD_EDGE_CONFIG": str(tmp_path / "config"),
            # Nobody listens there: no test reaches the real one.
            "HF_ENDPOINT": "http://127.0.0.1:9",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
            **environ,
        }
    )
    return Installation(found.home, found.config_dir, found.environ, lambda: NOW)


def a_checkpoint(folder: Path) -> Path:
    """Make a folder that `SmallConvert` takes for a checkpoint."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


# Any: what `Request` takes beside source and quant.
def a_request(source: str | Path, quant: str = "F16", **said: Any) -> Request:
    """Ask for one quant of a checkpoint."""
    return Request(str(source), Recipe((quant,)), **said)


def stored(installation: Installation, folder: Path, quant: str = "Q8_0") -> Stored:
    """Install a small model that goes by the name of its folder."""
    if not folder.exists():
        a_checkpoint(folder)
    request = a_request(f"{folder}/", quant)
    [result] = convert_to_store(
        installation, request, convert=SmallConvert(), consent=lambda terms: ()
    )
    return result


def tree(folder: Path) -> list[str]:
    """List the files below a folder; locks stay for whoever comes next."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    )


def _check(source: Weights) -> None:
    if isinstance(source, Path) and not (source / "config.json").exists():
        raise CannotConvert(f"no config.json in {source}")
