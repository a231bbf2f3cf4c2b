"""How many layers fit, beside sums that are made here tensor by tensor."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gguf_files import GgufFile, Tensor, small_llama, string, u16, u32
from tests.tiled import Tiled
from wizard_edge.gguf import Header, read_header
from wizard_edge.gguf_types import GgmlType
from wizard_edge.memory import Dimensions, compute_buffer, kv_cache
from wizard_edge.models import Shape
from wizard_edge.offload import (
    Device,
    DeviceKind,
    attempts,
    layer_count,
    plan_offload,
    usable_devices,
)

GIB = 1 << 30
CONTEXT = 2048
SHAPE = Shape(layers=8, hidden=2048, ffn=5632, heads=16, kv_heads=16, vocabulary=32_000)


def device(
    free: int,
    *,
    name: str = "CUDA0",
    kind: DeviceKind = "gpu",
    backend: str = "CUDA",
    total: int | None = None,
    id: str | None = None,
) -> Device:
    return Device(
        name, "a card", kind, backend, total if total is not None else free, free, id
    )


def with_room(room: int, name: str = "CUDA0") -> Device:
    """Return a device of 64 GiB of which a model may take exactly `room` bytes."""
    return device(room + GIB, name=name, total=64 * GIB)


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> Header:
    path = tmp_path_factory.mktemp("offload") / "model.gguf"
    return read_header(Tiled(SHAPE, GgmlType.Q4_K, GgmlType.Q6_K).write_sparse(path))


def sizes(header: Header, prefix: str) -> int:
    return sum(item.size for item in header.tensors if item.name.startswith(prefix))


def size_of(header: Header, name: str) -> int:
    return next(item.size for item in header.tensors if item.name == name)


def step(dimensions: Dimensions, *, batch: int = 512, is_last: bool = True) -> int:
    """Count the buffers of a step; the last device has the logits in them."""
    rows = 4 * batch * SHAPE.hidden
    found = compute_buffer(dimensions, context=CONTEXT, batch=batch) + rows
    return max(found, 4 * batch * 32_000 + 2 * rows) if is_last else found


def needed(header: Header, layers: int) -> int:
    """Count what a single device holds with the last `layers` layers of all 9."""
    dimensions = Dimensions.read(header)
    assert dimensions is not None
    blocks = range(9 - layers, 8)
    total = sizes(header, "output") + sum(sizes(header, f"blk.{n}.") for n in blocks)
    total += kv_cache(dimensions, context=CONTEXT) // 8 * len(blocks)
    total += step(dimensions)
    if layers < 9:
        # The largest matrix that stays behind.
        total += size_of(header, "blk.0.ffn_down.weight")
    return total


def test_everything_goes_where_everything_fits(header: Header) -> None:
    card = with_room(needed(header, 9))

    plan = plan_offload([card], [header], context=CONTEXT)

    assert (plan.layers, plan.of) == (9, 9)
    assert plan.devices == (card,)
    assert plan.needed == (needed(header, 9),)


@pytest.mark.parametrize("layers", range(1, 9))
def test_as_many_layers_as_fit_to_the_byte(header: Header, layers: int) -> None:
    enough = with_room(needed(header, layers))
    short = with_room(needed(header, layers) - 1)

    found = [
        plan_offload([card], [header], context=CONTEXT).layers
        for card in (enough, short)
    ]

    assert found == [layers, layers - 1]


def test_a_longer_context_leaves_room_for_fewer(header: Header) -> None:
    card = with_room(needed(header, 9))

    plan = plan_offload([card], [header], context=2 * CONTEXT)

    assert plan.layers < 9


def test_a_smaller_cache_leaves_room_for_more(header: Header) -> None:
    card = with_room(needed(header, 5))

    plan = plan_offload([card], [header], context=CONTEXT, kv_type="q8_0")

    assert plan.layers > 5


def test_smaller_steps_leave_room_for_more(header: Header) -> None:
    card = with_room(needed(header, 5))
    dimensions = Dimensions.read(header)
    assert dimensions is not None

    plan = plan_offload([card], [header], context=CONTEXT, batch=64)
    whole = plan_offload([device(64 * GIB)], [header], context=CONTEXT, batch=64)

    assert plan.layers > 5
    saved = step(dimensions) - step(dimensions, batch=64)
    assert whole.needed == (needed(header, 9) - saved,)


@pytest.mark.parametrize(
    ("total", "margin"),
    [(2 * GIB, GIB // 4), (8 * GIB, GIB), (80 * GIB, GIB)],
    ids=["an eighth of a small card", "a gibibyte", "no more of a large one"],
)
def test_some_of_every_card_stays_free(total: int, margin: int) -> None:
    assert device(total).room == total - margin


def test_two_cards_add_up(header: Header) -> None:
    half = needed(header, 9) * 3 // 4
    cards = [with_room(half), with_room(half, "CUDA1")]

    assert plan_offload(cards[:1], [header], context=CONTEXT).layers < 9

    plan = plan_offload(cards, [header], context=CONTEXT)
    assert plan.layers == 9
    assert [item.name for item in plan.devices] == ["CUDA0", "CUDA1"]


def test_layers_are_shared_out_by_free_memory_as_llama_cpp_does(
    header: Header,
) -> None:
    # Nine layers over 2 : 1 of free memory: six blocks, then two and the output.
    cards = [device(16 * GIB), device(8 * GIB, name="CUDA1")]

    plan = plan_offload(cards, [header], context=CONTEXT)

    dimensions = Dimensions.read(header)
    assert dimensions is not None
    cache = kv_cache(dimensions, context=CONTEXT) // 8
    # Four steps at once: three more masks, and rows between the devices.
    pipeline = 4 * 512 * (3 * CONTEXT + 10 * SHAPE.hidden)
    first = sum(sizes(header, f"blk.{n}.") for n in range(6)) + 6 * cache
    first += step(dimensions, is_last=False) + pipeline
    second = sum(sizes(header, f"blk.{n}.") for n in (6, 7)) + 2 * cache
    second += sizes(header, "output") + step(dimensions) + pipeline
    assert plan.needed == (first, second)


# What two workers logged of model, KV cache and compute buffer, in MiB, with all
# layers and with all but one. Both lent the same free memory.
# Source: llama.cpp 0c1e57098, built with RPC, two of its servers on loopback.
WIDE = Shape(4, 4096, 11008, 32, 32, 300)
SHARED = Shape(4, 4096, 14336, 32, 8, 32_000)
LOGGED = [
    (WIDE, 1024, 5, (113.18 + 48 + 200.02, 37.97 + 16 + 192.03)),
    (WIDE, 1024, 4, (75.45 + 32 + 114.01, 37.97 + 16 + 114.01)),
    (WIDE, 4096, 5, (113.18 + 192 + 416.02, 37.97 + 64 + 408.03)),
    (WIDE, 4096, 4, (75.45 + 128 + 312.01, 37.97 + 64 + 312.01)),
    (SHARED, 1024, 5, (121.97 + 12 + 156.02, 65.09 + 4 + 156.03)),
    (SHARED, 1024, 4, (81.31 + 8 + 106.01, 65.09 + 4 + 114.01)),
    (SHARED, 4096, 5, (121.97 + 48 + 368.02, 65.09 + 16 + 360.03)),
    (SHARED, 4096, 4, (81.31 + 32 + 300.01, 65.09 + 16 + 300.01)),
]


@pytest.mark.parametrize(("shape", "context", "layers", "logged"), LOGGED)
def test_no_less_than_llama_cpp_took_and_little_more(
    shape: Shape,
    context: int,
    layers: int,
    logged: tuple[float, float],
    tmp_path: Path,
) -> None:
    model = Tiled(shape, GgmlType.IQ1_S, GgmlType.IQ1_S)
    file = read_header(model.write_sparse(tmp_path / "model.gguf"))
    whole = plan_offload([device(64 * GIB)] * 2, [file], context=context)
    # As much of both as the next layer would not fit into.
    short = with_room(max(whole.needed) - 1)

    cards = [device(64 * GIB)] * 2 if layers == 5 else [short] * 2
    plan = plan_offload(cards, [file], context=context)

    assert plan.layers == layers
    # A tenth of the margin of a card: buffers of a step that lie in each other, and a
    # copy of a matrix that workers do not make.
    for size, found in zip(plan.needed, logged, strict=True):
        assert found <= size / (1 << 20) <= found + 96


def test_the_fullest_card_decides(header: Header) -> None:
    # llama.cpp gives the second a half of the layers, whatever its margin is.
    cards = [device(2 * GIB, total=2 * GIB), device(2 * GIB, total=64 * GIB)]

    plan = plan_offload(cards, [header], context=CONTEXT)

    assert all(
        size <= card.room for size, card in zip(plan.needed, plan.devices, strict=True)
    )


def test_a_card_that_says_no_memory_takes_nothing(header: Header) -> None:
    plan = plan_offload([device(0)], [header], context=CONTEXT)

    assert (plan.layers, plan.of, plan.devices) == (0, 9, ())


def test_no_card_takes_nothing(header: Header) -> None:
    assert plan_offload([], [header], context=CONTEXT).layers == 0


def test_a_shared_embedding_is_held_twice(tmp_path: Path) -> None:
    own = small_llama()
    shared = small_llama()
    shared.tensors = [item for item in shared.tensors if item.name != "output.weight"]

    plans = [
        plan_offload([device(GIB)], [read(file, tmp_path)], context=64)
        for file in (own, shared)
    ]

    assert plans[0].needed == plans[1].needed


def test_the_parts_of_a_model_add_up(tmp_path: Path) -> None:
    whole = small_llama(blocks=2)
    first, second = small_llama(blocks=2), small_llama(blocks=2)
    for number, part in enumerate((first, second)):
        part.set("split.no", u16(number)).set("split.count", u16(2))
    first.tensors, second.tensors = whole.tensors[:8], whole.tensors[8:]

    plans = [
        plan_offload(
            [device(GIB)], [read(file, tmp_path) for file in files], context=64
        )
        for files in ([whole], [first, second])
    ]

    assert plans[0] == plans[1]
    assert plans[0].layers == 3


def test_a_model_that_does_not_say_its_sizes_stays_where_it_is(tmp_path: Path) -> None:
    file = small_llama().drop("llama.feed_forward_length")

    plan = plan_offload([device(GIB)], [read(file, tmp_path)], context=64)

    assert (plan.layers, plan.of) == (0, 2)


def test_names_that_look_like_blocks_are_no_blocks(tmp_path: Path) -> None:
    odd = small_llama()
    odd.tensors += [Tensor("blk.x.weight", (8,)), Tensor("blk.77.weight", (8,))]

    plans = [
        plan_offload([device(GIB)], [read(file, tmp_path)], context=64)
        for file in (small_llama(), odd)
    ]

    assert plans[0] == plans[1]


def test_the_output_counts_as_a_layer(tmp_path: Path) -> None:
    file = small_llama().set("llama.block_count", u32(40))

    assert layer_count([read(file, tmp_path)]) == 41
    nameless = small_llama().set("general.architecture", string("other"))
    assert layer_count([read(nameless, tmp_path)]) == 1


CPU = device(GIB, name="CPU", kind="cpu", backend="CPU")
BLAS = device(0, name="BLAS", kind="accelerator", backend="BLAS")
CARD = device(GIB, id="0000:01:00.0")
SAME = device(GIB, name="Vulkan0", backend="Vulkan", id="0000:01:00.0")
OTHER = device(GIB, name="CUDA1", id="0000:02:00.0")
INSIDE = device(GIB, name="Vulkan1", kind="igpu", backend="Vulkan")
AGAIN = device(GIB, name="SYCL0", kind="igpu", backend="SYCL")
REMOTE = device(GIB, name="RPC0", backend="RPC")


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        pytest.param([CPU, BLAS], [], id="the processor and its helpers are none"),
        pytest.param([CARD, OTHER, CPU], [CARD, OTHER], id="every card"),
        pytest.param([CARD, SAME], [CARD], id="one card seen twice is one"),
        pytest.param([device(1), device(1)], [device(1)] * 2, id="cards without place"),
        pytest.param([INSIDE, CARD], [CARD], id="nothing integrated beside a card"),
        pytest.param([INSIDE, AGAIN, CPU], [INSIDE], id="integrated of one backend"),
        pytest.param([CARD, REMOTE], [REMOTE, CARD], id="other machines first"),
        pytest.param([REMOTE, INSIDE], [REMOTE, INSIDE], id="and no cards themselves"),
    ],
)
def test_devices_are_those_that_llama_cpp_takes(
    devices: list[Device], expected: list[Device]
) -> None:
    assert list(usable_devices(devices)) == expected


@pytest.mark.parametrize(
    ("layers", "expected"),
    [(33, (33, 24, 16, 8, 0)), (2, (2, 1, 0)), (1, (1, 0)), (0, (0,))],
)
def test_a_refusal_is_answered_with_fewer_layers_and_none_at_last(
    layers: int, expected: tuple[int, ...]
) -> None:
    assert attempts(layers) == expected


def read(file: GgufFile, folder: Path) -> Header:
    return read_header(file.write(folder / "model.gguf"))
