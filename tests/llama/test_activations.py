"""Sums of squared activations: those of llama.cpp's own tool, or a clear refusal."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.gguf_files import small_starcoder
from tests.llama.models import CONTEXT, ModelShape, write_random_model
from tests.reference.llama_imatrix import (
    CHUNK_SIZE,
    SHAPES,
    TEXT_NAME,
    load_golden,
    summary,
    text,
)
from wizard_edge._llama import activations, library
from wizard_edge._llama.activations import Activations, collect_activations
from wizard_edge._llama.nodes import Node
from wizard_edge.errors import BackendError, Corrupt, UsageError
from wizard_edge.gguf import read_header
from wizard_edge.progress import ProgressEvent
from wizard_edge_converters.imatrix import write_imatrix

# Seen is 9e-6; llama.cpp adds up in float32, and its kernels differ from CPU to CPU.
# A token too few changes the sums by 1/256.
TOLERANCE = 1e-3

Model = Callable[[str], Path]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Return a function that writes a model, each once."""
    folder = tmp_path_factory.mktemp("models")

    @cache
    def written(name: str) -> Path:
        return write_random_model(folder / f"{name}.gguf", SHAPES[name])

    return written


@pytest.fixture(scope="module")
def collected(model: Model) -> Callable[[str], Activations]:
    """Return a function that lets a model read the text, each once."""
    return cache(
        lambda name: collect_activations(model(name), text(), chunk_size=CHUNK_SIZE)
    )


@pytest.mark.parametrize("name", SHAPES)
def test_the_file_is_that_of_llama_cpps_tool(
    name: str, collected: Callable[[str], Activations], tmp_path: Path
) -> None:
    golden = load_golden()[name]

    write_imatrix(tmp_path / "out.gguf", collected(name), dataset=TEXT_NAME)
    found = summary(tmp_path / "out.gguf")

    assert found["counts"] == golden["counts"]
    assert (found["header"], found["size"]) == (golden["header"], golden["size"])
    for tensor, sums in golden["sums"].items():
        np.testing.assert_allclose(found["sums"][tensor], sums, rtol=TOLERANCE)


def test_experts_are_counted_apart(collected: Callable[[str], Activations]) -> None:
    found = collected("experts")

    down = found.sums["blk.1.ffn_down_exps.weight"]
    # Two experts for every token, not always the same ones.
    assert down.in_sum2.shape == (4, 128)
    assert down.counts.sum() == 2 * found.tokens
    assert len(set(down.counts.tolist())) > 1
    assert found.sums["blk.1.attn_q.weight"].counts.tolist() == [found.tokens]


def test_the_last_layer_sees_every_token(
    collected: Callable[[str], Activations],
) -> None:
    found = collected("dense")

    counts = {name: int(sums.counts[0]) for name, sums in found.sums.items()}
    assert counts == dict.fromkeys(counts, found.tokens)
    assert "output.weight" not in counts


def test_chunks_are_a_limit_and_know_nothing_of_each_other(model: Model) -> None:
    def read(content: str, chunks: int) -> Activations:
        return collect_activations(
            model("dense"), content, chunk_size=CHUNK_SIZE, chunks=chunks
        )

    # A letter is a token, and the space before a text one more. BOS takes the place
    # of the first token of the second chunk too.
    head, rest = "c" * (CHUNK_SIZE - 2) + "  ", "de fgh" * 20
    first, second = read(head + rest, 1), read(rest, 1)
    both = read(head + rest, 2)

    assert (first.chunks, both.chunks) == (1, 2)
    for name, sums in both.sums.items():
        parts = first.sums[name].in_sum2 + second.sums[name].in_sum2
        np.testing.assert_allclose(sums.in_sum2, parts, rtol=1e-5)


def test_batches_of_a_long_chunk_know_of_each_other(tmp_path: Path) -> None:
    shape = ModelShape(width=64, blocks=1)
    path = write_random_model(tmp_path / "m.gguf", shape)

    found = collect_activations(path, "ab" * 600, chunk_size=CONTEXT)

    assert found.sums["blk.0.ffn_up.weight"].counts.tolist() == [CONTEXT]


def test_fused_attention_is_seen_too(tmp_path: Path) -> None:
    path = small_starcoder().write(tmp_path / "m.gguf")

    found = collect_activations(path, "abc" * 40, chunk_size=16)

    assert set(found.sums) == {
        f"blk.0.{name}.weight"
        for name in ("attn_qkv", "attn_output", "ffn_up", "ffn_down")
    }


def test_progress_counts_tokens(model: Model) -> None:
    events: list[ProgressEvent] = []

    collect_activations(
        model("dense"), text(), chunk_size=64, chunks=2, progress=events.append
    )

    assert [event for event in events if event.stage == "imatrix"] == [
        ProgressEvent("imatrix", done, 128, "tokens") for done in (0, 64, 128)
    ]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("ab" * 20, {}, "the text has "),
        ("", {}, "the text has 1 tokens, too few for a chunk of 64"),
        ("ab", {"chunk_size": 15}, "a chunk has 16 tokens or more, not 15"),
        ("ab", {"chunk_size": 513}, "a chunk of 513 tokens, but the model knows 512"),
        ("ab", {"chunks": 0}, "chunks must be 1 or more, not 0"),
        ("ab", {"threads": 0}, "threads must be 1 or more, not 0"),
    ],
    ids=["short", "empty", "tiny chunk", "huge chunk", "no chunks", "no threads"],
)
def test_what_cannot_be_read_is_refused(
    content: str, options: dict[str, int], message: str, model: Model
) -> None:
    with pytest.raises(UsageError) as caught:
        collect_activations(
            model("dense"),
            content,
            chunk_size=options.get("chunk_size", CHUNK_SIZE),
            chunks=options.get("chunks"),
            threads=options.get("threads"),
        )

    assert caught.value.message.startswith(message)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")

    with pytest.raises(Corrupt):
        collect_activations(path, text())


def test_activations_that_are_no_numbers_are_an_error(
    model: Model, tmp_path: Path
) -> None:
    broken = bytearray(model("dense").read_bytes())
    header = read_header(model("dense"))
    embedding = next(t for t in header.tensors if t.name == "token_embd.weight")
    # The first number of BOS, which begins every chunk.
    at = header.data_offset + embedding.offset + 4 * embedding.shape[0]
    broken[at : at + 4] = np.float32(np.nan).tobytes()
    path = tmp_path / "m.gguf"
    path.write_bytes(broken)

    with pytest.raises(BackendError, match="not finite"):
        collect_activations(path, text(), chunk_size=CHUNK_SIZE)


def test_ctrl_c_ends_the_computation_at_once(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    told: list[bool] = []
    stopped = threading.Event()
    add, stop = activations._Collector._add, activations._Collector.stop

    def interrupting(self: activations._Collector, node: Node) -> None:
        seen.append(1)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGINT)
            told.append(stopped.wait(20))
        add(self, node)

    def stopping(self: activations._Collector) -> None:
        stop(self)
        stopped.set()

    monkeypatch.setattr(activations._Collector, "_add", interrupting)
    monkeypatch.setattr(activations._Collector, "stop", stopping)

    with pytest.raises(KeyboardInterrupt):
        collect_activations(model("dense"), text(), chunk_size=CHUNK_SIZE)

    assert (len(seen), told) == (3, [True])


def test_an_error_of_the_callback_comes_out(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def fail(self: activations._Collector, node: Node) -> None:
        seen.append(1)
        raise BackendError("no")

    monkeypatch.setattr(activations._Collector, "_add", fail)

    with pytest.raises(BackendError, match="no"):
        collect_activations(model("dense"), text(), chunk_size=CHUNK_SIZE)

    assert len(seen) == 1


def test_after_an_error_no_node_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph of several parts goes on with the next where one was stopped."""
    opened: list[int] = []

    def open_node(address: int) -> Node:
        opened.append(address)
        raise KeyboardInterrupt

    monkeypatch.setattr(activations, "open_node", open_node)
    collector = activations._Collector()

    answers = [collector(1, ask, None) for ask in (True, False, True, False)]

    assert answers == [True, False, True, False]
    assert opened == [1]
    with pytest.raises(KeyboardInterrupt):
        library.raise_pending()


def test_an_expert_that_saw_nothing_is_told(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    collect_activations(model("experts"), "a" * 40, chunk_size=16, chunks=1)

    assert "experts never saw a token of this text" in caplog.text
