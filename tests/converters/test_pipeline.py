"""From a directory to a file: what comes out, what is refused, what is left behind."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.child import environment
from tests.converters.checkpoints import (
    SHAPES,
    Format,
    Shape,
    random_weights,
    write_checkpoint,
    write_weights,
)
from tests.converters.comparison import read_metadata
from tests.converters.running import Converted, convert
from wizard_edge import part_files
from wizard_edge._llama import library
from wizard_edge._llama.library import load
from wizard_edge.errors import (
    CannotConvert,
    Corrupt,
    MissingFile,
    NotEnough,
    UsageError,
)
from wizard_edge.files import move_into_place
from wizard_edge.gguf_rules import read_valid
from wizard_edge.names import RepoId
from wizard_edge.part_files import PartFile
from wizard_edge.progress import ProgressEvent
from wizard_edge.templates import TEMPLATES
from wizard_edge_converters import pipeline
from wizard_edge_converters.options import ConvertOptions
from wizard_edge_converters.pipeline import plan_source
from wizard_edge_converters.plan import JOURNAL_RESERVE

Convert = Callable[[str, str], Converted]
SMALL = Shape(layers=1, vocabulary=330)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "source", SMALL)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A path in a folder of its own, so that its content can be looked at."""
    folder = tmp_path / "output"
    folder.mkdir()
    return folder / "model.gguf"


def left_in(output: Path) -> list[str]:
    return sorted(path.name for path in output.parent.iterdir())


@pytest.mark.parametrize("name", ["gqa", "llama-1", "f32", "bf16"])
@pytest.mark.parametrize(
    ("form", "shards"), [("bin", 1), ("bin", 3), ("safetensors", 2)]
)
def test_the_form_of_the_checkpoint_leaves_no_trace(
    name: str, form: Format, shards: int, converted: Convert, tmp_path: Path
) -> None:
    source = write_checkpoint(tmp_path / "s", SHAPES[name], form=form, shards=shards)
    options = ConvertOptions(quants=("Q5_0",), name="Test Model")

    result = convert(source, tmp_path / "model.gguf", options)

    expected = converted(name, "Q5_0")
    assert result.path.read_bytes() == expected.path.read_bytes()
    assert result.sha256 == expected.sha256


def test_shards_without_an_index_are_found(converted: Convert, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "s", SHAPES["gqa"], form="bin", shards=2)
    (source / "pytorch_model.bin.index.json").unlink()
    options = ConvertOptions(quants=("Q5_0",), name="Test Model")

    result = convert(source, tmp_path / "model.gguf", options)

    assert result.sha256 == converted("gqa", "Q5_0").sha256


def test_threads_leave_no_trace(source: Path, tmp_path: Path) -> None:
    hashes = {
        convert(
            source,
            tmp_path / f"{threads}",
            ConvertOptions(quants=("Q4_K_M",), threads=threads),
        ).sha256
        for threads in (1, 2, 7)
    }

    assert len(hashes) == 1


def test_the_result_says_what_was_written(source: Path, output: Path) -> None:
    result = convert(source, output, ConvertOptions(quants=("q8_0",)))

    data = output.read_bytes()
    assert result.path == output
    assert result.sha256 == hashlib.sha256(data).hexdigest()
    assert result.size == len(data) == result.plan.output_bytes
    assert result.made.quant == "Q8_0"
    assert left_in(output) == ["model.gguf"]


def test_the_plan_is_known_without_writing(source: Path, output: Path) -> None:
    options = ConvertOptions(quants=("Q4_K_M",))

    plan = plan_source(source, options)

    assert left_in(output) == []
    written = convert(source, output, options)
    assert plan == written.plan
    assert plan.read_bytes == (source / "model.safetensors").stat().st_size
    assert plan.output_bytes == output.stat().st_size
    assert plan.peak_disk_bytes == output.stat().st_size + JOURNAL_RESERVE
    assert plan.targets[0].tensors == {"Q4_K": 6, "Q6_K": 3, "F32": 3}
    assert str(plan).endswith(", 6 Q4_K, 3 Q6_K, 3 F32")


def test_provenance_is_in_the_metadata(source: Path, output: Path) -> None:
    options = ConvertOptions(
        quants=("F16",),
        name="WizardLM 13B V1.2",
        template="vicuna",
        licenses=("llama2", "research-only"),
        license_names=("Llama 2", "Research only"),
        license_links=("https://example.org/2",),
        notices=("Llama 2, Copyright.", "For research."),
        source_repo=RepoId.parse("WizardLM/WizardLM-13B-V1.2"),
        source_revision="a" * 40,
    )

    convert(source, output, options)

    found = read_metadata(output)
    expected = {
        "general.name": "WizardLM 13B V1.2",
        "general.license": "llama2,research-only",
        "general.license.name": "Llama 2; Research only",
        "general.license.link": "https://example.org/2",
        "general.source.repo_url": "https://huggingface.co/WizardLM/WizardLM-13B-V1.2",
        "wizard_edge.template": "vicuna",
        "wizard_edge.licenses": "llama2 research-only",
        "wizard_edge.notices": "Llama 2, Copyright.\nFor research.",
        "wizard_edge.source.repo": "WizardLM/WizardLM-13B-V1.2",
        "wizard_edge.source.revision": "a" * 40,
    }
    assert {key: found[key] for key in expected} == {
        key: ["STRING", value] for key, value in expected.items()
    }
    assert read_valid(output).template == "vicuna"


def test_the_trained_template_goes_along_for_other_programs(
    output: Path, tmp_path: Path
) -> None:
    """It counts before what the checkpoint's own files say."""
    source = write_checkpoint(tmp_path / "s", SHAPES["scaled"])

    convert(source, output, ConvertOptions(quants=("F16",), template="vicuna"))

    found = read_metadata(output)["tokenizer.chat_template"]
    assert found == ["STRING", TEMPLATES["vicuna"].jinja]


def test_what_nobody_said_is_said_plainly(source: Path, output: Path) -> None:
    convert(source, output, ConvertOptions(quants=("F16",)))

    found = read_metadata(output)
    assert found["general.name"] == ["STRING", "source"]
    assert found["wizard_edge.template"] == ["STRING", "none"]
    assert found["wizard_edge.licenses"] == ["STRING", "none"]
    assert found["wizard_edge.source.repo"] == ["STRING", "unknown"]
    assert found["wizard_edge.source.revision"] == ["STRING", "unknown"]
    assert not [key for key in found if key.startswith("general.license")]
    assert "wizard_edge.notices" not in found


@pytest.mark.parametrize(
    "name",
    [
        *("gqa", "tied", "llama-1", "scaled", "outside", "two-added", "python"),
        *("mistral", "mixtral", "deepseek", "starcoder", "starcoder-json"),
    ],
)
def test_llama_cpp_loads_the_file(name: str, converted: Convert) -> None:
    library = load()
    parameters = library.llama_model_default_params()
    parameters.n_gpu_layers = 0
    path = converted(name, "Q4_K_M").path

    model = library.llama_model_load_from_file(str(path).encode(), parameters)

    assert model
    vocabulary = library.llama_model_get_vocab(model)
    assert library.llama_vocab_n_tokens(vocabulary) == SHAPES[name].vocabulary
    # StarCoder's vocabulary has no token for the begin of a text.
    begins = SHAPES[name].family != "starcoder"
    assert library.llama_vocab_get_add_bos(vocabulary) == begins
    library.llama_model_free(model)


def test_progress_ends_at_its_total(source: Path, output: Path) -> None:
    events: list[ProgressEvent] = []

    convert(source, output, ConvertOptions(quants=("Q8_0",)), progress=events.append)

    for stage in ("convert", "verify"):
        done = [event.done for event in events if event.stage == stage]
        assert done == sorted(done)
        assert done[-1] == next(e.total for e in events if e.stage == stage)


def test_notes_say_what_was_left_out(output: Path, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "s", Shape(layers=1, vocabulary=322))
    (source / "added_tokens.json").write_text('{"[PAD]": 322}')

    result = convert(source, output, ConvertOptions(quants=("F16",)))

    assert len(result.plan.notes) == 1
    assert "'[PAD]' is left out" in result.plan.notes[0]


# What is refused -----------------------------------------------------------------


class Refusal(NamedTuple):
    """A way to spoil a checkpoint, and what then must be said."""

    spoil: Callable[[Path], None]
    error: type[Exception]
    said: str


def _drop(name: str) -> Callable[[Path], None]:
    return lambda source: (source / name).unlink()


def _drop_weights(source: Path) -> None:
    for path in source.glob("*.bin*"):
        path.unlink()


def _cut(name: str) -> Callable[[Path], None]:
    def spoil(source: Path) -> None:
        path = source / name
        path.write_bytes(path.read_bytes()[:-100_000])

    return spoil


def _index(change: Callable[[dict[str, str]], object]) -> Callable[[Path], None]:
    def spoil(source: Path) -> None:
        path = source / "pytorch_model.bin.index.json"
        index = json.loads(path.read_text())
        change(index["weight_map"])
        path.write_text(json.dumps(index))

    return spoil


def _point_to(file: str) -> Callable[[Path], None]:
    return _index(lambda weights: weights.update({"model.norm.weight": file}))


def _config(**changes: object) -> Callable[[Path], None]:
    def spoil(source: Path) -> None:
        path = source / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


SHARD = "pytorch_model-00002-of-00002.bin"
REFUSALS = {
    "no-weights": Refusal(
        _drop_weights,
        CannotConvert,
        "looked for model.safetensors, model.safetensors.index.json, pytorch_model.bin",
    ),
    "no-config": Refusal(_drop("config.json"), CannotConvert, "no config.json"),
    "no-tokenizer": Refusal(_drop("tokenizer.model"), CannotConvert, "no tokenizer"),
    "missing-shard": Refusal(_drop(SHARD), MissingFile, SHARD),
    "cut-shard": Refusal(_cut(SHARD), Corrupt, SHARD),
    "outside": Refusal(_point_to("../other/x.bin"), Corrupt, "'../other/x.bin'"),
    "absolute": Refusal(_point_to("/etc/passwd"), Corrupt, "'/etc/passwd'"),
    "windows": Refusal(_point_to("C:\\x"), Corrupt, "C:"),
    "a-number": Refusal(_index(lambda w: w.update({"a": 1})), Corrupt, "weight_map"),  # type: ignore[dict-item]
    "empty-index": Refusal(_index(dict.clear), Corrupt, "weight_map"),
    "index-knows-more": Refusal(
        _index(lambda weights: weights.update({"extra.weight": SHARD})),
        Corrupt,
        "lacks 'extra.weight'",
    ),
    "index-knows-less": Refusal(
        _index(lambda weights: weights.pop("model.norm.weight")),
        Corrupt,
        "also has 'model.norm.weight'",
    ),
    "architecture": Refusal(
        _config(architectures=["GPTNeoXForCausalLM"]),
        CannotConvert,
        "GPTNeoXForCausalLM",
    ),
    "other-shape": Refusal(_config(hidden_size=512), Corrupt, "embed_tokens"),
    "fewer-layers": Refusal(_config(num_hidden_layers=2), CannotConvert, "layers.2"),
    "more-layers": Refusal(_config(num_hidden_layers=4), Corrupt, "layers.3"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_bad_checkpoint_leaves_nothing_behind(
    case: str, output: Path, tmp_path: Path
) -> None:
    refusal = REFUSALS[case]
    source = write_checkpoint(tmp_path / "s", SHAPES["gqa"], form="bin", shards=2)
    refusal.spoil(source)

    with pytest.raises(refusal.error) as caught:
        convert(source, output, ConvertOptions(quants=("Q8_0",)))

    assert refusal.said in str(caught.value)
    assert left_in(output) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers_name_file_and_tensor(
    bad: float, source: Path, output: Path
) -> None:
    weights = random_weights(SMALL)
    weights["model.layers.0.mlp.up_proj.weight"][3, 5] = bad
    write_weights(source, weights, form="safetensors")

    with pytest.raises(Corrupt) as caught:
        convert(source, output, ConvertOptions(quants=("Q8_0",)))

    assert caught.value.path == str(source / "model.safetensors")
    assert caught.value.where == "tensor model.layers.0.mlp.up_proj.weight"
    assert left_in(output) == []


def test_a_changed_byte_in_a_shard_is_noticed(output: Path, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "s", SMALL, form="bin")
    path = source / "pytorch_model.bin"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    with pytest.raises(Corrupt, match="CRC-32"):
        convert(source, output, ConvertOptions(quants=("Q8_0",)))

    assert left_in(output) == []


def test_a_missing_directory_is_named(output: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="absent"):
        convert(tmp_path / "absent", output, ConvertOptions())


def test_a_file_is_no_checkpoint(source: Path, output: Path) -> None:
    with pytest.raises(UsageError, match="not a directory"):
        convert(source / "model.safetensors", output, ConvertOptions())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
def test_a_fifo_in_place_of_a_file_is_not_waited_for(
    source: Path, output: Path
) -> None:
    (source / "config.json").unlink()
    os.mkfifo(source / "config.json")

    with pytest.raises(UsageError, match="not a regular file"):
        convert(source, output, ConvertOptions())


def test_quants_that_need_a_matrix_say_so(source: Path, output: Path) -> None:
    with pytest.raises(CannotConvert, match="IQ2_XXS needs an importance matrix"):
        convert(source, output, ConvertOptions(quants=("IQ2_XXS",)))


def test_a_folder_with_a_strange_name_still_has_a_name(
    output: Path, tmp_path: Path
) -> None:
    source = write_checkpoint(tmp_path / "two\nlines", SMALL)

    convert(source, output, ConvertOptions(quants=("Q8_0",)))

    assert read_metadata(output)["general.name"] == ["STRING", "model"]


# What is left behind -------------------------------------------------------------


def test_an_output_that_exists_is_kept(source: Path, output: Path) -> None:
    output.write_bytes(b"precious")

    with pytest.raises(UsageError, match="there already"):
        convert(source, output, ConvertOptions())

    assert output.read_bytes() == b"precious"


def test_an_output_is_replaced_when_asked(source: Path, output: Path) -> None:
    output.write_bytes(b"old")

    convert(source, output, ConvertOptions(quants=("Q8_0",), overwrite=True))

    assert read_valid(output).quant == "Q8_0"
    assert left_in(output) == ["model.gguf"]


def test_the_checkpoint_itself_is_never_replaced(source: Path) -> None:
    weights = source / "model.safetensors"

    with pytest.raises(UsageError, match="part of the checkpoint"):
        convert(source, weights, ConvertOptions(overwrite=True))

    assert weights.exists()


@pytest.mark.parametrize("name", ["absent/model.gguf", "."])
def test_an_output_that_cannot_be_is_refused(
    name: str, source: Path, output: Path
) -> None:
    with pytest.raises((MissingFile, UsageError)):
        convert(source, output.parent / name, ConvertOptions())


@pytest.mark.parametrize("stage", ["convert", "verify"])
def test_ctrl_c_leaves_nothing_behind(stage: str, source: Path, output: Path) -> None:
    output.write_bytes(b"old")

    def interrupt(event: ProgressEvent) -> None:
        if event.stage == stage and event.done > event.total // 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(
            source,
            output,
            ConvertOptions(quants=("Q8_0",), overwrite=True),
            progress=interrupt,
        )

    assert left_in(output) == ["model.gguf"]
    assert output.read_bytes() == b"old"


def test_a_disk_too_small_is_noticed_before_the_first_byte(
    source: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = plan_source(source, ConvertOptions(quants=("Q8_0",))).output_bytes
    monkeypatch.setattr(part_files, "free_disk", lambda _: needed)
    monkeypatch.setattr(os, "ftruncate", lambda *_: pytest.fail("wrote to the disk"))

    with pytest.raises(NotEnough) as caught:
        convert(source, output, ConvertOptions(quants=("Q8_0",)))

    assert caught.value.free == needed < caught.value.needed
    assert left_in(output) == []


def test_a_disk_that_fills_up_is_named(
    source: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = os.pwrite, iter(range(100))

    def fill_up(descriptor: int, data: bytes, offset: int) -> int:
        if next(calls) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", fill_up)

    with pytest.raises(NotEnough, match="not enough disk"):
        convert(source, output, ConvertOptions(quants=("Q8_0",)))

    assert left_in(output) == []


def test_short_writes_are_continued(
    source: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = convert(source, output, ConvertOptions(quants=("Q8_0",))).sha256
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda d, data, at: write(d, data[:1000], at))

    found = convert(source, output, ConvertOptions(quants=("Q8_0",), overwrite=True))

    assert found.sha256 == expected


def test_a_disk_that_changes_bytes_is_noticed(
    source: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose_a_bit(descriptor: int, data: bytes, offset: int) -> int:
        changed = bytearray(data)
        changed[-1] ^= 1
        return write(descriptor, changed, offset)

    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lose_a_bit)

    with pytest.raises(Corrupt):
        convert(source, output, ConvertOptions(quants=("Q8_0",)))

    assert left_in(output) == []


# Memory --------------------------------------------------------------------------

MEASURE = """
import sys
from pathlib import Path
from tests.converters.running import convert
from wizard_edge_converters.options import ConvertOptions
options = ConvertOptions(quants=("Q8_0",), threads=2)
plan = convert(Path(sys.argv[1]), Path(sys.argv[2]), options).plan
status = Path("/proc/self/status").read_text()
peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
print(peak, plan.peak_memory_bytes)
"""


def measure(source: Path, output: Path) -> tuple[int, int]:
    """Return measured and planned peak memory of a conversion in a child process."""
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, str(source), str(output)],
        env=environment(output.parent),
        capture_output=True,
        text=True,
        check=True,
    )
    measured, planned = map(int, result.stdout.split())
    return measured, planned


# Not getrusage: on Linux a child's figure includes its parent's at the time of fork.
@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_memory_is_bounded_by_blocks_not_by_tensors(tmp_path: Path) -> None:
    """The larger model has tensors of 67 MB in f32, five times the smaller one's."""
    peaks = []
    for inner in (3_328, 16_384):
        shape = Shape(hidden=1024, inner=inner, layers=1, heads=8, dtype="F16")
        source = write_checkpoint(tmp_path / f"{inner}", shape, form="bin")
        measured, planned = measure(source, tmp_path / f"{inner}.gguf")
        assert measured < planned
        peaks.append(measured)

    assert peaks[1] - peaks[0] < 12_000_000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_device_is_never_replaced(source: Path, tmp_path: Path) -> None:
    """`-o /dev/null --overwrite` must not make a file of it."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    with pytest.raises(UsageError, match="no regular file"):
        convert(source, fifo, ConvertOptions(quants=("F16",), overwrite=True))


def test_a_link_is_followed_not_replaced(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.gguf"
    target.write_bytes(b"old")
    link = tmp_path / "link.gguf"
    link.symlink_to(target)

    convert(source, link, ConvertOptions(quants=("F16",), overwrite=True))

    assert link.is_symlink()
    assert target.read_bytes()[:4] == b"GGUF"


# Several outputs -----------------------------------------------------------------


def test_long_names_that_differ_in_their_end_are_kept_apart(
    source: Path, tmp_path: Path
) -> None:
    options = ConvertOptions(quants=("F16", "Q8_0"))
    outputs = [tmp_path / f"{'m' * 70}-{quant}.gguf" for quant in options.quants]

    pipeline.convert(source, outputs, options)

    for quant, output in zip(options.quants, outputs, strict=True):
        alone = tmp_path / f"{quant}.gguf"
        convert(source, alone, ConvertOptions(quants=(quant,)))
        assert output.read_bytes() == alone.read_bytes()


def test_all_files_are_on_the_disk_before_the_first_has_its_name(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Syncing takes minutes; a kill between two names would cost the whole work."""
    events: list[str] = []
    sync, move = PartFile.sync, move_into_place

    def synced(part: PartFile) -> None:
        events.append("sync")
        sync(part)

    def moved(temp: Path, path: Path) -> None:
        events.append("move")
        move(temp, path)

    monkeypatch.setattr(PartFile, "sync", synced)
    monkeypatch.setattr("wizard_edge_converters.writer.move_into_place", moved)
    options = ConvertOptions(quants=("F16", "Q8_0"))

    pipeline.convert(source, [tmp_path / "a", tmp_path / "b"], options)

    assert events == ["sync", "sync", "move", "move"]


def test_another_build_of_ggml_does_not_go_on_with_the_file_of_this(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(quant: str) -> str:
        plan = pipeline.plan_source(source, ConvertOptions(quants=(quant,)))
        return pipeline.plan_key(plan, "")

    before = key("Q8_0"), key("F16")
    monkeypatch.setattr(library, "identity", lambda: "another")

    assert key("Q8_0") != before[0]
    assert key("F16") == before[1]
