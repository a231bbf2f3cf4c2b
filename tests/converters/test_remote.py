"""Weights that stream from the hub become the same file, whatever happens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.converters.checkpoints import (
    Format,
    Shape,
    random_weights,
    tensor_pickle,
    text,
    write_bin,
    write_checkpoint,
    write_torch_zip,
)
from tests.converters.running import Converted
from tests.converters.running import convert as convert_directory
from tests.hub.content import repository
from tests.hub.faults import Fault, random_cuts
from tests.hub.server import LoopbackHub
from wizard_edge import hashing
from wizard_edge.conversion import HubWeights
from wizard_edge.errors import (
    CannotConvert,
    Corrupt,
    Interrupted,
    MissingFile,
    NotEnough,
    NotFound,
    Refused,
)
from wizard_edge.names import RepoId
from wizard_edge.progress import Progress, ProgressEvent, silent
from wizard_edge.receipts import Check
from wizard_edge_converters import remote
from wizard_edge_converters.options import ConvertOptions
from wizard_edge_converters.pipeline import Conversion, convert, plan_source
from wizard_edge_converters.sources import open_source

# Tensors of up to 1 MB, 12 MB in all.
SHAPE = Shape(
    hidden=512, inner=1024, layers=2, heads=8, vocabulary=900, pieces=322, seed=30
)
REPO = "somebody/Model-1B"
SOURCE = HubWeights(RepoId.parse(REPO))
OPTIONS = ConvertOptions(quants=("Q8_0",), name="Test Model", threads=2)
LARGEST = 1024 * 512 * 2
FORMS: list[tuple[Format, int]] = [("bin", 1), ("bin", 3), ("safetensors", 2)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint", SHAPE, form="bin", shards=3)


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub(send_buffer=1 << 16) as hub:
        yield hub


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model.gguf"


def host(hub: LoopbackHub, folder: Path, name: str = REPO) -> None:
    files: dict[str, bytes | Path] = {path.name: path for path in folder.iterdir()}
    hub.add(repository(name, files))


def stream(
    hub: LoopbackHub, output: Path, options: ConvertOptions = OPTIONS
) -> Conversion:
    return convert(SOURCE, [output], options, environ={"HF_ENDPOINT": hub.endpoint})


def direct(folder: Path, tmp_path: Path) -> Converted:
    return convert_directory(folder, tmp_path / "direct.gguf", OPTIONS)


def weights_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*[0-9l].*"))


def left_in(output: Path) -> list[str]:
    return sorted(path.name for path in output.parent.iterdir())


@pytest.mark.parametrize(("form", "shards"), FORMS)
def test_a_stream_gives_the_bytes_of_the_directory(
    form: Format, shards: int, hub: LoopbackHub, output: Path, tmp_path: Path
) -> None:
    folder = write_checkpoint(tmp_path / "s", SHAPE, form=form, shards=shards)
    host(hub, folder)

    done = stream(hub, output)

    assert done.made[0].sha256 == direct(folder, tmp_path).sha256
    assert left_in(output) == ["model.gguf"]
    assert len(done.weights) == shards
    assert {file.check for file in done.weights} == {Check.SHA256}


def test_every_weight_file_passes_by_once(
    hub: LoopbackHub, folder: Path, output: Path
) -> None:
    host(hub, folder)

    stream(hub, output)

    streams = [entry for entry in hub.requests() if entry.sent > 1 << 20]
    assert len(streams) == 3
    assert hub.sent("cdn") < 1.1 * weights_size(folder)


def test_a_plan_fetches_no_weights(hub: LoopbackHub, folder: Path) -> None:
    host(hub, folder)

    with open_source(SOURCE, environ={"HF_ENDPOINT": hub.endpoint}) as opened:
        names = set(opened.checkpoint.tensors)

    with open_source(folder) as here:
        assert names == set(here.checkpoint.tensors)
    assert hub.sent("cdn") < 3 * (3 << 16)


def write_views(folder: Path, *, gap: int = 0, overlap: int = 0) -> Path:
    """Write a checkpoint all of whose tensors are views into two storages.

    Around each tensor lie `gap` numbers that no tensor wants; `overlap` are its own
    and those of the tensor before.
    """
    write_checkpoint(folder, SHAPE, form="safetensors")
    (folder / "model.safetensors").unlink()
    weights = random_weights(SHAPE)
    names = list(weights)
    storages: dict[str, bytes] = {}
    places: dict[str, tuple[str, int]] = {}
    for key, part in (("0", names[::2]), ("1", names[1::2])):
        data = b""
        for name in part:
            data = data[: len(data) - 2 * overlap] + b"\x01\x3c" * gap
            places[name] = key, len(data) // 2
            data += weights[name].tobytes()
        storages[key] = data + b"\x01\x3c" * gap
    pickled = b"".join(
        text(name)
        + tensor_pickle(
            key,
            "F16",
            weights[name].shape,
            length=len(storages[key]) // 2,
            offset=offset,
        )
        for name, (key, offset) in places.items()
    )
    state = b"\x80\x02}(" + pickled + b"u."
    write_torch_zip(folder / "pytorch_model.bin", state, storages)
    return folder


@pytest.mark.parametrize("gap", [0, 7, 70_000])
def test_storages_larger_than_their_tensors_stream(
    gap: int, hub: LoopbackHub, output: Path, tmp_path: Path
) -> None:
    """torch saves the whole storage of a view; what nobody wants passes by."""
    folder = write_views(tmp_path / "s", gap=gap)
    host(hub, folder)
    interrupted_at(0.6, hub, output)

    done = stream(hub, output)

    assert done.made[0].sha256 == direct(folder, tmp_path).sha256
    assert [file.check for file in done.weights] == [Check.SHA256]


def test_tensors_that_overlap_cannot_be_streamed(
    hub: LoopbackHub, output: Path, tmp_path: Path
) -> None:
    folder = write_views(tmp_path / "s", overlap=1)
    host(hub, folder)

    with pytest.raises(CannotConvert, match="overlap"):
        stream(hub, output)

    assert left_in(output) == []
    assert direct(folder, tmp_path).size


# What goes wrong -----------------------------------------------------------------


def test_a_line_that_is_cut_again_and_again_changes_nothing(
    hub: LoopbackHub, folder: Path, output: Path, tmp_path: Path
) -> None:
    host(hub, folder)
    hub.faults.add(*random_cuts(1, 12, 2 << 20, ".bin"))

    done = stream(hub, output)

    assert done.made[0].sha256 == direct(folder, tmp_path).sha256
    assert hub.sent("cdn") < 1.4 * weights_size(folder)


@pytest.mark.parametrize("form", ["bin", "safetensors"])
def test_a_changed_byte_leaves_nothing(
    form: Format, hub: LoopbackHub, output: Path, tmp_path: Path
) -> None:
    folder = write_checkpoint(tmp_path / "s", SHAPE, form=form)
    host(hub, folder)
    hub.faults.add(Fault(where="cdn", flip=weights_size(folder) // 2, times=99))

    with pytest.raises(Corrupt) as caught:
        stream(hub, output)

    assert ("CRC-32" if form == "bin" else "sha256") in caught.value.message
    assert caught.value.path.startswith(f"hf:{REPO}/")
    assert left_in(output) == []


def test_a_changed_byte_between_the_tensors_is_noticed_by_the_hash(
    hub: LoopbackHub, folder: Path, output: Path
) -> None:
    """What no sum inside the file covers: the padding of a member's header."""
    host(hub, folder)
    content = (folder / "pytorch_model-00002-of-00003.bin").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    # Past all tensors, before the directory: asked for only by the stream.
    at = content.index(b"version")
    hub.faults.add(Fault(where="cdn", path=digest, flip=at, times=99))

    with pytest.raises(Corrupt, match=r"sha256 [0-9a-f]{64}, the hub states"):
        stream(hub, output)

    assert left_in(output) == []


def test_a_shard_that_is_not_there_is_named(
    hub: LoopbackHub, folder: Path, output: Path
) -> None:
    (folder / "pytorch_model-00002-of-00003.bin").unlink()
    host(hub, folder)

    with pytest.raises(MissingFile, match=r"pytorch_model-00002-of-00003\.bin"):
        stream(hub, output)


# What is interrupted -------------------------------------------------------------


def interrupted_at(
    share: float, hub: LoopbackHub, output: Path, options: ConvertOptions = OPTIONS
) -> None:
    """Press Ctrl-C when that share of the source was converted."""

    def press(event: ProgressEvent) -> None:
        if event.stage == "convert" and event.done >= share * event.total:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        convert(
            SOURCE,
            [output],
            options,
            environ={"HF_ENDPOINT": hub.endpoint},
            progress=press,
        )
    assert caught.value.hint == "the same command goes on where this one stopped"


@pytest.mark.parametrize(("form", "shards"), FORMS)
@pytest.mark.parametrize("share", [0.05, 0.4, 0.7, 1.0])
def test_the_next_run_goes_on(
    form: Format,
    shards: int,
    share: float,
    hub: LoopbackHub,
    output: Path,
    tmp_path: Path,
) -> None:
    folder = write_checkpoint(tmp_path / "s", SHAPE, form=form, shards=shards)
    host(hub, folder)
    interrupted_at(share, hub, output)
    assert [name.rpartition(".")[2] for name in left_in(output)] == ["journal", "part"]
    first = hub.sent("cdn")

    done = stream(hub, output)

    assert done.made[0].sha256 == direct(folder, tmp_path).sha256
    assert {file.check for file in done.weights} == {Check.SHA256}
    assert len(done.weights) == shards
    assert left_in(output) == ["model.gguf"]
    # Twice the plan, twice a socket's buffers, and a tensor.
    planning, buffers = 2 * shards * (3 << 16), 2 << 20
    again = hub.sent("cdn") - weights_size(folder)
    assert again < planning + buffers + LARGEST
    assert first < hub.sent("cdn")


def test_what_was_made_is_not_measured_anew(
    hub: LoopbackHub, folder: Path, output: Path, tmp_path: Path
) -> None:
    """The figures of quality come out alike, so the whole file does."""
    host(hub, folder)
    interrupted_at(0.6, hub, output)

    stream(hub, output)

    assert output.read_bytes() == direct(folder, tmp_path).path.read_bytes()


def test_a_damaged_part_is_made_again(
    hub: LoopbackHub, folder: Path, output: Path, tmp_path: Path
) -> None:
    """As after a power cut: the journal was on the disk, the data were not."""
    host(hub, folder)
    interrupted_at(0.6, hub, output)
    [part] = output.parent.glob(".*.part")
    data = bytearray(part.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 4096] = bytes(4096)
    part.write_bytes(data)

    done = stream(hub, output)

    assert done.made[0].sha256 == direct(folder, tmp_path).sha256


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_torn_journal_is_believed_up_to_the_tear(
    cut: int, hub: LoopbackHub, folder: Path, output: Path, tmp_path: Path
) -> None:
    host(hub, folder)
    interrupted_at(0.6, hub, output)
    [journal] = output.parent.glob(".*.journal")
    journal.write_bytes(journal.read_bytes()[:-cut])

    done = stream(hub, output)

    assert done.made[0].sha256 == direct(folder, tmp_path).sha256


def test_another_commit_begins_anew(
    hub: LoopbackHub, folder: Path, output: Path, tmp_path: Path
) -> None:
    host(hub, folder)
    interrupted_at(0.6, hub, output)
    other = write_checkpoint(
        tmp_path / "o", replace(SHAPE, seed=31), form="bin", shards=3
    )
    host(hub, other)

    done = stream(hub, output)

    assert done.made[0].sha256 == direct(other, tmp_path).sha256


@pytest.mark.parametrize(
    ("form", "check"), [("bin", Check.CRC32), ("safetensors", Check.SHA256)]
)
def test_without_libcrypto_the_sums_of_the_file_are_the_second_line(
    form: Format,
    check: Check,
    hub: LoopbackHub,
    output: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file without sums is read again from its beginning, for the hash's sake."""
    monkeypatch.setattr(remote, "new_sha256", hashing.PlainSha256)
    folder = write_checkpoint(tmp_path / "s", SHAPE, form=form, shards=1)
    host(hub, folder)
    interrupted_at(0.6, hub, output)

    done = stream(hub, output)

    assert done.made[0].sha256 == direct(folder, tmp_path).sha256
    assert [file.check for file in done.weights] == [check]


def test_a_state_of_a_machine_with_libcrypto_is_read_by_one_without(
    hub: LoopbackHub, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_checkpoint(tmp_path / "s", SHAPE, form="safetensors")
    host(hub, folder)
    interrupted_at(0.6, hub, output)
    monkeypatch.setattr(hashing, "_libcrypto", lambda: None)

    done = stream(hub, output)

    assert done.made[0].sha256 == direct(folder, tmp_path).sha256
    assert [file.check for file in done.weights] == [Check.SHA256]


def test_who_finds_another_at_work_is_not_told_to_go_on(
    hub: LoopbackHub, folder: Path, output: Path
) -> None:
    host(hub, folder)
    found: list[Refused] = []

    def again(event: ProgressEvent) -> None:
        if not found:
            with pytest.raises(Refused) as caught:
                stream(hub, output)
            found.append(caught.value)

    convert(
        SOURCE,
        [output],
        OPTIONS,
        environ={"HF_ENDPOINT": hub.endpoint},
        progress=again,
    )

    assert found[0].hint == "wait until it is done"


def test_a_hub_that_goes_away_leaves_what_was_made(
    hub: LoopbackHub, folder: Path, output: Path, tmp_path: Path
) -> None:
    host(hub, folder)
    # After the two looks of the plan.
    hub.faults.add(
        Fault(where="resolve", path="00003-of", status=404, skip=2, times=99)
    )

    with pytest.raises(NotFound):
        stream(hub, output)
    kept = left_in(output)
    hub.faults.clear()
    hub.forget()
    done = stream(hub, output)

    assert len(kept) == 2
    assert done.made[0].sha256 == direct(folder, tmp_path).sha256
    assert hub.sent("cdn") < 0.6 * weights_size(folder)


# What is kept, what is added -----------------------------------------------------


def test_weights_are_kept_when_asked(
    hub: LoopbackHub, folder: Path, output: Path, tmp_path: Path
) -> None:
    host(hub, folder)
    kept = tmp_path / "kept"

    with open_source(
        SOURCE, environ={"HF_ENDPOINT": hub.endpoint}, keep=kept
    ) as opened:
        from wizard_edge_converters.pipeline import convert_checkpoint

        convert_checkpoint(opened.checkpoint, "x", [output], OPTIONS)

    assert_same(kept, folder)


def assert_same(kept: Path, folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir())
    assert sorted(path.name for path in kept.iterdir()) == names
    for name in names:
        assert (kept / name).read_bytes() == (folder / name).read_bytes()


def keep(
    hub: LoopbackHub,
    output: Path,
    kept: Path,
    share: float = 2.0,
    source: HubWeights = SOURCE,
) -> None:
    """Convert and keep the weights; Ctrl-C at that share of the source."""
    from wizard_edge_converters.pipeline import convert_checkpoint

    def press(event: ProgressEvent) -> None:
        if event.stage == "convert" and event.done >= share * event.total:
            raise KeyboardInterrupt

    environ = {"HF_ENDPOINT": hub.endpoint}
    with open_source(source, environ=environ, keep=kept) as opened:
        convert_checkpoint(
            opened.checkpoint, opened.title, [output], OPTIONS, progress=press
        )


@pytest.mark.parametrize("share", [0.2, 0.6, 1.0])
def test_weights_are_kept_by_a_run_that_goes_on(
    share: float, hub: LoopbackHub, folder: Path, output: Path, tmp_path: Path
) -> None:
    host(hub, folder)
    with pytest.raises(Interrupted):
        keep(hub, output, tmp_path / "kept", share)
    hub.forget()

    keep(hub, output, tmp_path / "kept")

    assert_same(tmp_path / "kept", folder)
    assert hub.sent("cdn") < (1.1 - share) * weights_size(folder) + 2 * LARGEST


@pytest.mark.parametrize("share", [0.6, 1.0])
def test_what_an_earlier_run_did_not_keep_is_fetched_again(
    share: float, hub: LoopbackHub, folder: Path, output: Path, tmp_path: Path
) -> None:
    host(hub, folder)
    interrupted_at(share, hub, output)

    keep(hub, output, tmp_path / "kept")

    assert_same(tmp_path / "kept", folder)


def test_a_file_without_tensors_is_kept_too(
    hub: LoopbackHub, output: Path, tmp_path: Path
) -> None:
    folder = write_checkpoint(tmp_path / "s", SHAPE, form="bin", shards=2)
    index = folder / "pytorch_model.bin.index.json"
    found = json.loads(index.read_text())
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    found["weight_map"][name] = "pytorch_model-00003-of-00003.bin"
    index.write_text(json.dumps(found))
    buffer = np.ones(32, np.float32)
    write_bin(folder / "pytorch_model-00003-of-00003.bin", {name: buffer})
    host(hub, folder)

    keep(hub, output, tmp_path / "kept")

    assert_same(tmp_path / "kept", folder)


def test_another_content_does_not_get_into_a_kept_file(
    hub: LoopbackHub, output: Path, tmp_path: Path
) -> None:
    """Somebody converts another model meanwhile, and keeps it in the same folder."""
    folder = write_checkpoint(tmp_path / "s", SHAPE, form="bin")
    host(hub, folder)
    with pytest.raises(Interrupted):
        keep(hub, output, tmp_path / "kept", 0.6)
    other = write_checkpoint(tmp_path / "o", replace(SHAPE, seed=31), form="bin")
    host(hub, other, "somebody/Other-1B")
    source = HubWeights(RepoId.parse("somebody/Other-1B"))
    with pytest.raises(Interrupted):
        keep(hub, output, tmp_path / "kept", 0.0, source)

    keep(hub, output, tmp_path / "kept")

    name = "pytorch_model.bin"
    assert (tmp_path / "kept" / name).read_bytes() == (folder / name).read_bytes()


def test_a_kept_file_that_the_disk_lost_is_noticed(
    hub: LoopbackHub, folder: Path, output: Path, tmp_path: Path
) -> None:
    """As after a power cut: the size was on the disk, the bytes were not."""
    host(hub, folder)
    with pytest.raises(Interrupted):
        keep(hub, output, tmp_path / "kept", 0.2)
    [part] = (tmp_path / "kept").glob(".*.part")
    part.write_bytes(bytes(part.stat().st_size))

    with pytest.raises(Corrupt, match="sha256"):
        keep(hub, output, tmp_path / "kept")
    assert left_in(output) == []
    keep(hub, output, tmp_path / "kept")

    assert_same(tmp_path / "kept", folder)


def test_no_room_for_kept_weights_is_told_before_the_first_byte(
    hub: LoopbackHub,
    folder: Path,
    output: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host(hub, folder)
    monkeypatch.setattr(remote, "free_disk", lambda path: 10_000_000)

    with pytest.raises(NotEnough) as caught:
        keep(hub, output, tmp_path / "kept")

    assert caught.value.needed == sum(f.stat().st_size for f in folder.glob("*.bin"))
    assert left_in(output) == []


def test_a_base_on_the_hub_is_read_by_ranges(
    hub: LoopbackHub, output: Path, tmp_path: Path
) -> None:
    base_shape = replace(SHAPE, kv_heads=8, vocabulary=322, llama_1=True, seed=32)
    delta_shape = replace(base_shape, vocabulary=323, dtype="F32", seed=33)
    base = write_checkpoint(tmp_path / "base", base_shape, form="bin", shards=2)
    delta = write_checkpoint(tmp_path / "delta", delta_shape, form="bin", shards=3)
    host(hub, base, "somebody/Base-1B")
    host(hub, delta)
    there = HubWeights(RepoId.parse("somebody/Base-1B"))

    environ = {"HF_ENDPOINT": hub.endpoint}
    done = convert(SOURCE, [output], OPTIONS, base=there, environ=environ)

    # Per file: the end, the beginning, the look at the order of its rows, the rest.
    asked = hub.requests("Base-1B/resolve")
    assert len([entry for entry in asked if ".bin" in entry.path]) <= 2 * 5
    here = output.with_name("here.gguf")
    convert(delta, [here], OPTIONS, base=base)
    assert output.read_bytes() == here.read_bytes()
    checks = {str(file.name): file.check for file in done.weights}
    assert checks["pytorch_model-00001-of-00003.bin"] is Check.SHA256
    assert checks["base/pytorch_model-00001-of-00002.bin"] is Check.CRC32


SUM_OPTIONS = replace(OPTIONS, quants=("Q8_0", "Q4_K_M"), split_max_size=2_000_000)


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Conversion]:
    """A delta, its base, and what their sum becomes where both lie on the disk."""
    folder = tmp_path_factory.mktemp("sum")
    base_shape = replace(SHAPE, kv_heads=8, vocabulary=322, llama_1=True, seed=32)
    delta_shape = replace(base_shape, vocabulary=323, dtype="F32", seed=33)
    base = write_checkpoint(folder / "base", base_shape, form="bin", shards=3)
    delta = write_checkpoint(folder / "delta", delta_shape, form="bin", shards=3)
    (folder / "here").mkdir()
    outputs = [folder / "here" / f"{quant}.gguf" for quant in SUM_OPTIONS.quants]
    return delta, base, convert(delta, outputs, SUM_OPTIONS, base=base)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize(
    ("delta_there", "base_there"), [(True, True), (True, False), (False, True)]
)
def test_a_sum_goes_on_wherever_its_sides_lie(
    share: float,
    delta_there: bool,
    base_there: bool,
    sides: tuple[Path, Path, Conversion],
    hub: LoopbackHub,
    output: Path,
) -> None:
    """Their weight files have the same names; several quants are split and go on."""
    delta, base, direct = sides
    host(hub, base, "somebody/Base-1B")
    host(hub, delta)
    there = HubWeights(RepoId.parse("somebody/Base-1B"))
    outputs = [output.with_name(f"{quant}.gguf") for quant in SUM_OPTIONS.quants]

    def add(progress: Progress = silent) -> Conversion:
        return convert(
            SOURCE if delta_there else delta,
            outputs,
            SUM_OPTIONS,
            base=there if base_there else base,
            environ={"HF_ENDPOINT": hub.endpoint},
            progress=progress,
        )

    def press(event: ProgressEvent) -> None:
        if event.stage == "convert" and event.done >= share * event.total:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        add(press)
    done = add()

    assert len(done.weights) == 6
    for ours, theirs in zip(done.made, direct.made, strict=True):
        assert len(ours.files) > 1
        assert [f.sha256 for f in ours.files] == [f.sha256 for f in theirs.files]


def test_the_plan_of_a_stream_is_that_of_the_directory(
    hub: LoopbackHub, folder: Path
) -> None:
    host(hub, folder)
    with open_source(SOURCE, environ={"HF_ENDPOINT": hub.endpoint}) as opened:
        from wizard_edge_converters.pipeline import plan_checkpoint

        there = plan_checkpoint(opened.checkpoint, "x", OPTIONS)

    here = plan_source(folder, OPTIONS)

    assert there.targets == here.targets
    assert there.steps == here.steps
