"""The real llama.cpp behind the `Backend` seam."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from wizard_edge._llama.backend import LlamaBackend
from wizard_edge.backend import Span
from wizard_edge.engine import LoadOptions, Sampling
from wizard_edge.errors import BackendError

IDS = [1] + [token % 900 + 10 for token in range(7, 97)]
OTHERS = [1] + [token % 700 + 10 for token in range(60)]


@pytest.fixture
def backend(apprentice: Callable[[str], Path]) -> Iterator[LlamaBackend]:
    yield from opened(apprentice("Q8_0"))


@pytest.fixture
def streams(apprentice: Callable[[str], Path]) -> Iterator[LlamaBackend]:
    yield from opened(apprentice("Q8_0"), parallel=3)


def opened(
    path: Path, *, parallel: int = 1, deterministic: bool = False
) -> Iterator[LlamaBackend]:
    options = LoadOptions(
        threads=1, context=256, parallel=parallel, deterministic=deterministic
    )
    loaded = LlamaBackend(path, options)
    yield loaded
    loaded.close()


def read(
    backend: LlamaBackend, ids: Sequence[int], *, sequence: int = 0, start: int = 0
) -> NDArray[np.float32]:
    """Evaluate tokens and return the logits of the last one."""
    assert backend.decode([Span(sequence, start, ids, len(ids) - 1)])
    rows = backend.logits(len(ids) - 1)
    return rows.reshape(-1)


def test_it_evaluates_what_it_is_given_and_counts_it(backend: LlamaBackend) -> None:
    # llama.cpp never says 0: one batch and one single token before the count.
    read(backend, IDS[:2])
    read(backend, IDS[2:3], start=2)
    before = backend.evaluated

    read(backend, IDS[3:-1], start=3)
    read(backend, IDS[-1:], start=len(IDS) - 1)

    assert backend.evaluated - before == len(IDS) - 3


def test_a_batch_of_several_sequences_gives_each_its_own(
    streams: LlamaBackend,
) -> None:
    alone = read(streams, IDS)
    others = read(streams, OTHERS, sequence=1)
    streams.cut(0, 0)
    streams.cut(1, 0)

    streams.decode([Span(0, 0, IDS, len(IDS) - 1), Span(1, 0, OTHERS, len(OTHERS) - 1)])
    [first] = streams.logits(len(IDS) - 1)
    [second] = streams.logits(len(IDS) + len(OTHERS) - 1)

    np.testing.assert_allclose(first, alone, atol=0.05)
    np.testing.assert_allclose(second, others, atol=0.05)


def test_rows_of_logits_come_in_the_order_of_the_batch(streams: LlamaBackend) -> None:
    streams.decode([Span(1, 0, OTHERS, 0), Span(0, 0, IDS, 0)])
    rows = streams.logits(0, len(OTHERS) + len(IDS))
    single = [streams.logits(row)[0] for row in range(len(rows))]

    assert (rows == np.stack(single)).all()
    fresh = read_all(streams, IDS)
    np.testing.assert_allclose(rows[len(OTHERS) :], fresh, atol=0.05)


def read_all(backend: LlamaBackend, ids: Sequence[int]) -> NDArray[np.float32]:
    backend.cut(2, 0)
    backend.decode([Span(2, 0, ids, 0)])
    return backend.logits(0, len(ids))


def test_a_stopped_batch_says_so_and_the_next_one_works(
    backend: LlamaBackend,
) -> None:
    expected = read(backend, IDS)
    backend.cut(0, 0)

    whole = backend.decode([Span(0, 0, IDS, 0)], stopped=lambda: True)
    backend.cut(0, 0)

    assert not whole
    assert (read(backend, IDS) == expected).all()


def test_a_cut_forgets_the_end_only(backend: LlamaBackend) -> None:
    read(backend, IDS[:60])
    expected = read(backend, IDS[60:], start=60)

    backend.cut(0, 60)

    assert (read(backend, IDS[60:], start=60) == expected).all()


def test_parts_of_a_conversation_go_out_and_come_back(backend: LlamaBackend) -> None:
    for start in range(0, 80, 20):
        read(backend, IDS[start : start + 20], start=start)
    parts = [backend.save(0, 0, 20), backend.save(0, 20, 50), backend.save(0, 50)]
    expected = read(backend, IDS[80:], start=80)
    backend.cut(0, 0)

    backend.restore(0, parts)

    assert (read(backend, IDS[80:], start=80) == expected).all()


def test_a_whole_sequence_goes_to_another_stream(streams: LlamaBackend) -> None:
    read(streams, IDS[:80])
    saved = streams.save(0)
    expected = read(streams, IDS[80:], start=80)

    streams.restore(2, [saved])

    assert (read(streams, IDS[80:], sequence=2, start=80) == expected).all()


def test_a_beginning_is_copied_to_another_stream(streams: LlamaBackend) -> None:
    read(streams, IDS[:60])
    read(streams, OTHERS, sequence=1)

    streams.copy(0, 1, 50)

    copied = read(streams, IDS[50:], sequence=1, start=50)
    streams.cut(0, 50)
    assert (copied == read(streams, IDS[50:], start=50)).all()


def test_a_state_that_is_none_is_refused_and_leaves_nothing(
    backend: LlamaBackend,
) -> None:
    read(backend, IDS[:40])
    good = backend.save(0)

    with pytest.raises(BackendError, match="refuses a saved state"):
        backend.restore(0, [good, bytes(len(good))])

    expected = read(backend, IDS)
    backend.cut(0, 0)
    assert (read(backend, IDS) == expected).all()


def test_tokens_in_the_middle_are_dropped_and_the_rest_moves_up(
    backend: LlamaBackend,
) -> None:
    """What was computed in sight of the dropped tokens stays: near, not equal."""
    kept = IDS[:10] + IDS[40:]
    expected = read(backend, kept)
    backend.cut(0, 0)
    read(backend, IDS[:-1])

    backend.shift(0, 10, 30)

    moved = read(backend, IDS[-1:], start=len(kept) - 1)
    assert np.corrcoef(moved, expected)[0, 1] > 0.9


def test_the_seed_decides_on_the_tokens(backend: LlamaBackend) -> None:
    read(backend, IDS)
    drawn = []
    for seed in (1, 1, 2, 3):
        chooser = backend.chooser(Sampling(temperature=5, seed=seed), IDS)
        drawn.append([chooser.sample(len(IDS) - 1) for _ in range(8)])
        chooser.close()

    assert drawn[0] == drawn[1]
    assert len({tuple(tokens) for tokens in drawn}) == 3


@pytest.mark.parametrize("quant", ["F16", "Q8_0", "Q4_K_M"])
def test_deterministic_is_equal_to_the_last_bit_however_it_was_read(
    apprentice: Callable[[str], Path], quant: str
) -> None:
    """Whole, in parts, after a cut, from a state, and beside two others."""
    for backend in opened(apprentice(quant), parallel=3, deterministic=True):
        found = all_ways(backend)

    assert all((row == found[0]).all() for row in found)


def test_without_it_a_bit_differs(apprentice: Callable[[str], Path]) -> None:
    """Else the test above could not fail."""
    for backend in opened(apprentice("Q4_K_M"), parallel=3):
        found = all_ways(backend)

    assert not all((row == found[0]).all() for row in found)
    for row in found:
        np.testing.assert_allclose(row, found[0], atol=0.2)


def all_ways(backend: LlamaBackend) -> list[NDArray[np.float32]]:
    """Return the logits behind the same tokens, read in different ways."""
    found = [read(backend, IDS)]
    backend.cut(0, 0)
    for index, token in enumerate(IDS):
        last = read(backend, [token], start=index)
    found.append(last)
    backend.cut(0, 33)
    found.append(read(backend, IDS[33:], start=33))
    backend.cut(0, 70)
    saved = backend.save(0)
    backend.restore(2, [saved])
    found.append(read(backend, IDS[70:], sequence=2, start=70))
    read(backend, OTHERS[:-1], sequence=1)
    backend.cut(0, 50)
    backend.cut(2, 70)
    spans = [
        Span(1, len(OTHERS) - 1, OTHERS[-1:], 0),
        Span(0, 50, IDS[50:], len(IDS) - 51),
        Span(2, 70, IDS[70:], len(IDS) - 71),
    ]
    for batch in [spans] if backend.mixes else [[span] for span in spans]:
        backend.decode(batch)
        row = 0
        for span in batch:
            row += len(span.ids)
            if span.sequence != 1:
                found += list(backend.logits(row - 1))
    return found


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_cache_that_grows_keeps_every_bit(
    apprentice: Callable[[str], Path], parallel: int
) -> None:
    """Half of the tokens fit into what a context begins with."""
    ids = [1] + [token % 900 + 10 for token in range(899)]
    found = []
    # The first has room for all from its beginning.
    for context in (960, 2048):
        options = LoadOptions(
            threads=1, context=context, parallel=parallel, deterministic=True
        )
        backend = LlamaBackend(apprentice("Q4_K_M"), options)
        read(backend, OTHERS[:40], sequence=parallel - 1)
        backend.cut(0, 0)
        before = backend.evaluated
        for start in range(0, 900, 300):
            part = ids[start : start + 300]
            row = read(backend, part, sequence=0, start=start)
        backend.set_threads(1, 1)
        assert backend.evaluated - before in (900, 901)
        found.append(row)
        if parallel > 1:
            found.append(read(backend, OTHERS[40:], sequence=2, start=40))
        backend.close()

    half = len(found) // 2
    for one, two in zip(found[:half], found[half:], strict=True):
        assert (one == two).all()


def test_hidden_states_beyond_the_first_cells(
    apprentice: Callable[[str], Path],
) -> None:
    backend = LlamaBackend(
        apprentice("Q8_0"), LoadOptions(threads=1, context=2048, parallel=1)
    )
    ids = [token % 900 + 10 for token in range(600)]

    backend.read_states(Span(0, 0, ids[:400], 0))
    states = backend.read_states(Span(0, 400, ids[400:], 0))
    width = backend.width
    backend.close()

    assert states is not None
    assert states.shape == (200, width)
    assert np.isfinite(states).all()
