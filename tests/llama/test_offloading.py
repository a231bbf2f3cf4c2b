"""The plan of a real file for devices that are made up, and a loader that refuses."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.gguf_files import small_llama
from wizard_edge._llama.model import Model
from wizard_edge._llama.offloading import find_offload, gpu_layers, load_with_fewer
from wizard_edge.engine import GpuLayers, LoadOptions
from wizard_edge.errors import BackendError, MissingFile
from wizard_edge.gguf_rules import UnsupportedArchitecture
from wizard_edge.offload import Device

BIG = Device("CUDA0", "a large card", "gpu", "CUDA", total=1 << 40, free=1 << 40)
SMALL = Device("CUDA0", "a small card", "gpu", "CUDA", total=8, free=8)
PROCESSOR = Device("CPU", "a processor", "cpu", "CPU", total=1 << 40, free=1 << 40)
# The layers of `model`, its output counted.
ALL = 9


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_llama(blocks=ALL - 1).write(tmp_path / "model.gguf")


class Loader:
    """Loads anything up to `most` layers, and notes what it was asked for."""

    def __init__(self, most: int, error: BaseException | None = None) -> None:
        self.asked: list[GpuLayers] = []
        self._most = most
        self._error = error

    def __call__(self, options: LoadOptions) -> str:
        self.asked.append(options.gpu_layers)
        assert isinstance(options.gpu_layers, int)
        if options.gpu_layers > self._most:
            raise self._error or BackendError(f"out of memory at {options.gpu_layers}")
        return f"loaded {options.gpu_layers}, context {options.context}"


def test_all_layers_that_fit_are_asked_for_at_once(model: Path) -> None:
    loader = Loader(ALL)

    loaded = load_with_fewer(model, LoadOptions(context=64), loader, devices=[BIG])

    assert loader.asked == [ALL]
    assert loaded == f"loaded {ALL}, context 64"


def test_a_refusal_is_followed_by_fewer_layers_and_one_warning(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loader = Loader(5)

    loaded = load_with_fewer(model, LoadOptions(), loader, devices=[BIG])

    assert loader.asked == [9, 6, 4]
    assert loaded == "loaded 4, context None"
    assert caplog.messages == [
        "CUDA0 (a large card) took 4 of 9 layers, asked for 9: out of memory at 9"
    ]


def test_at_last_the_processor_does_it_all(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loader = Loader(0)

    load_with_fewer(model, LoadOptions(gpu_layers=3), loader, devices=[BIG])

    assert loader.asked == [3, 2, 1, 0]
    assert [text.partition(":")[0] for text in caplog.messages] == [
        "CUDA0 (a large card) took 0 of 9 layers, asked for 3"
    ]


def test_what_no_layers_cannot_cure_is_raised_without_a_warning(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(BackendError, match="out of memory at 0"):
        load_with_fewer(model, LoadOptions(), Loader(-1), devices=[BIG])

    assert caplog.messages == []


@pytest.mark.parametrize(
    "error",
    [UnsupportedArchitecture("m.gguf", "gpt5", known={"llama"}), KeyboardInterrupt()],
    ids=["an architecture", "Ctrl-C"],
)
def test_what_is_no_refusal_of_the_card_is_raised_at_once(
    model: Path, error: BaseException
) -> None:
    loader = Loader(0, error)

    with pytest.raises(type(error)):
        load_with_fewer(model, LoadOptions(), loader, devices=[BIG])

    assert loader.asked == [ALL]


def test_without_a_card_there_is_one_attempt_and_no_word(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loader = Loader(0)

    load_with_fewer(model, LoadOptions(), loader, devices=[])

    assert (loader.asked, caplog.messages) == ([0], [])


@pytest.mark.parametrize("layers", [1, "all"])
def test_layers_for_a_card_that_is_not_there_are_warned_of(
    model: Path, layers: GpuLayers, caplog: pytest.LogCaptureFixture
) -> None:
    plan = find_offload(model, LoadOptions(gpu_layers=layers), devices=[])

    assert plan.layers == 0
    assert caplog.messages == ["llama.cpp finds no GPU: the processor does all layers"]


@pytest.mark.parametrize(
    ("asked", "expected"), [(0, 0), (3, 3), (ALL, ALL), (500, ALL), ("all", ALL)]
)
def test_what_was_asked_for_is_tried_whether_it_fits_or_not(
    model: Path, asked: GpuLayers, expected: int
) -> None:
    plan = find_offload(model, LoadOptions(gpu_layers=asked), devices=[SMALL])

    assert (plan.layers, plan.of) == (expected, ALL)


def test_a_card_on_which_nothing_fits_is_told_of(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = find_offload(model, LoadOptions(), devices=[SMALL])

    assert plan.layers == 0
    assert caplog.messages == [
        "no layer fits on CUDA0 (a small card): the processor does all of them "
        "(--gpu-layers N asks for N)"
    ]


def test_layers_on_a_card_are_news_for_those_who_ask(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        find_offload(model, LoadOptions(), devices=[BIG])

    assert caplog.messages == ["9 of 9 layers go to CUDA0 (a large card)"]


def test_the_cells_of_all_sequences_count(model: Path) -> None:
    def held(**more: int) -> tuple[int, ...]:
        options = LoadOptions(context=256)
        return find_offload(model, options, devices=[BIG], **more).needed

    assert held(cells=1024) > held(cells=256) == held()


def test_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        find_offload(tmp_path / "no.gguf", LoadOptions(), devices=[BIG])


def test_a_model_is_loaded_with_what_was_planned(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No device is really there, so that llama.cpp moves nothing.
    monkeypatch.setattr(
        "wizard_edge._llama.offloading.find_devices", lambda: (BIG, PROCESSOR)
    )

    assert gpu_layers(model, LoadOptions()) == ALL
    loaded = Model(model, LoadOptions())
    assert loaded.trained_context == 64
    loaded.close()
