"""An installation in a folder of the test, and a converter that needs no weights."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from tests.gguf_files import small_llama, string
from wizard_edge.conversion import Converted, Cost, ModelFacts
from wizard_edge.errors import CannotConvert
from wizard_edge.gguf import KEY_LICENSES, KEY_TEMPLATE
from wizard_edge.names import Sha256
from wizard_edge.progress import Progress, ProgressEvent
from wizard_edge.service.conversions import Stored, convert_to_store
from wizard_edge.service.installation import Installation, open_installation

# 2026-01-02T03:04:05Z
NOW = 1767323045.0
COST = Cost(
    read_bytes=4000,
    output_bytes=1000,
    peak_disk_bytes=1000,
    peak_memory_bytes=100,
    tensors={"F32": 12},
)


class SmallConvert:
    """Writes the same small model for every checkpoint, and remembers its calls."""

    def __init__(self, *, fail: BaseException | None = None) -> None:
        self.fail = fail
        self.calls: list[tuple[Path, str, ModelFacts]] = []

    def estimate(self, source: Path, *, quant: str) -> Cost:
        _check(source)
        return COST

    def convert(
        self,
        source: Path,
        output: Path,
        *,
        quant: str,
        facts: ModelFacts,
        progress: Progress,
    ) -> Converted:
        _check(source)
        self.calls.append((source, quant, facts))
        file = small_llama()
        if facts.template:
            file.set(KEY_TEMPLATE, string(facts.template))
        ids = " ".join(license.id for license in facts.licenses)
        file.set(KEY_LICENSES, string(ids))
        content = file.build()
        output.write_bytes(content[: len(content) // 2])
        progress(ProgressEvent("convert", 1, 2))
        if self.fail:
            raise self.fail
        output.write_bytes(content)
        digest = Sha256.parse(sha256(content).hexdigest())
        return Converted(output, len(content), digest)


def an_installation(tmp_path: Path, **environ: str) -> Installation:
    """Point an installation into a folder of the test; nothing is created."""
    found = open_installation(
        {
            "WIZARD_EDGE_HOME": str(tmp_path / "home"),
            "WIZARD_EDGE_CONFIG": str(tmp_path / "config"),
            **environ,
        }
    )
    return Installation(found.home, found.config_dir, found.environ, lambda: NOW)


def a_checkpoint(folder: Path) -> Path:
    """Make a folder that `SmallConvert` takes for a checkpoint."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def stored(installation: Installation, folder: Path, quant: str = "Q8_0") -> Stored:
    """Install a small model that goes by the name of its folder."""
    if not folder.exists():
        a_checkpoint(folder)
    return convert_to_store(installation, f"{folder}/", quant, convert=SmallConvert())


def tree(folder: Path) -> list[str]:
    """List the files below a folder; locks stay for whoever comes next."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    )


def _check(source: Path) -> None:
    if not (source / "config.json").exists():
        raise CannotConvert(f"no config.json in {source}")
