"""The pickle reader runs nothing, allocates nothing it was not given, and says why."""

from __future__ import annotations

import os
import pickle
import random
import struct
import tracemalloc
from pathlib import Path

import pytest

from tests.converters.checkpoints import (
    SHAPES,
    name,
    number,
    numbers,
    random_weights,
    state_dict_pickle,
    tensor_pickle,
    text,
)
from wizard_edge.gguf_types import GgmlType
from wizard_edge_converters.pickle_values import (
    PickleRefused,
    StorageRef,
    TensorRef,
    read_state_dict,
)

PROTO = b"\x80\x02"
TENSOR = tensor_pickle("0", "F16", (2, 3))
# Callables that scanners of pickles were fooled with, and some plain ones.
CALLABLES = [
    ("os", "system"),
    ("posix", "system"),
    ("nt", "system"),
    ("subprocess", "Popen"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("builtins", "getattr"),
    ("builtins", "__import__"),
    ("__builtin__", "eval"),
    ("importlib", "import_module"),
    ("operator", "attrgetter"),
    ("functools", "partial"),
    ("pip", "main"),
    ("pickle", "loads"),
    ("torch", "load"),
    ("torch.storage", "_load_from_bytes"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2.__globals__"),
    ("collections", "OrderedDict.fromkeys"),
    ("collections", "namedtuple"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("shutil", "rmtree"),
    ("webbrowser", "open"),
    ("ctypes", "CDLL"),
    ("asyncio.unix_events", "_UnixSubprocessTransport._start"),
    ("_io", "FileIO"),
    ("runpy", "_run_code"),
    ("bdb", "Bdb.run"),
    ("timeit", "timeit"),
    ("cProfile", "run"),
    ("code", "interact"),
    ("pty", "spawn"),
    ("socket", "create_connection"),
    ("idlelib.pyshell", "ModifiedInterpreter.runcommand"),
    ("doctest", "debug_script"),
]


def called(callable_name: bytes, arguments: bytes = text("x")) -> bytes:
    return PROTO + callable_name + b"(" + arguments + b"tR."


@pytest.mark.parametrize(("module", "attribute"), CALLABLES)
def test_no_callable_is_called(module: str, attribute: str) -> None:
    by_name = called(name(module, attribute))
    by_stack = called(text(module) + text(attribute) + b"\x93")
    by_memo = (
        PROTO
        + (text(module) + b"q\x00" + text(attribute) + b"q\x010h\x00h\x01\x93")
        + (b"(" + text("x") + b"tR.")
    )

    for data in (by_name, by_stack, by_memo):
        with pytest.raises(PickleRefused, match=r"nothing was run|not allowed"):
            read_state_dict(data)


class _Canary:
    """Pickles to a call that would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_real_attack_leaves_no_trace(protocol: int, tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    with pytest.raises(PickleRefused):
        read_state_dict(pickle.dumps({"w": _Canary(canary)}, protocol))

    assert not canary.exists()


REFUSED = {
    "empty": b"",
    "inst": b"(X\x01\x00\x00\x00xios\nsystem\n.",
    "obj": b"(cos\nsystem\nX\x01\x00\x00\x00xo.",
    "newobj": PROTO + name("os", "system") + b")\x81.",
    "newobj-ex": PROTO + name("os", "system") + b")}\x92.",
    "extension": PROTO + b"\x82\x01.",
    "persistent-id-text": b"Pstorage\n.",
    "persistent-id-junk": PROTO + number(1) + b"Q.",
    "persistent-id-name": PROTO
    + (b"(" + text("storage") + name("os", "system") + text("0") + text("cpu"))
    + (number(1) + b"tQ."),
    "long-text": PROTO + b"X" + struct.pack("<I", 1 << 31) + b"x",
    "bytes8": PROTO + b"\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
    "bytearray8": PROTO + b"\x96" + struct.pack("<Q", 1 << 40) + b"x.",
    "long4": PROTO + b"\x8b" + struct.pack("<I", 1 << 30) + b"x.",
    "decimal": b"I" + b"9" * 100_000 + b"\n.",
    "second-pickle": PROTO + b"}.}.",
    "nothing-on-the-stack": PROTO + b".",
    "left-on-the-stack": PROTO + b"}}.",
    "only-a-mark": PROTO + b"(.",
    "no-mark": PROTO + b"t.",
    "memo-never-filled": PROTO + b"h\x07.",
    "memo-index-2-31": PROTO + b"}r\xff\xff\xff\x7fj\x00\x00\x00\x00.",
    "protocol-9": b"\x80\x09}.",
    "a-list": PROTO + b"].",
    "number-as-key": PROTO + b"}" + number(1) + TENSOR + b"s.",
    "key-twice": PROTO + b"}" + 2 * (text("a") + TENSOR + b"s") + b".",
    "value-no-tensor": PROTO + b"}" + text("a") + number(1) + b"s.",
    "state-of-a-tensor": PROTO + TENSOR + b"}b.",
    "filled-tensor": PROTO + TENSOR + text("a") + TENSOR + b"s.",
    "tensor-from-nothing": PROTO + name("torch._utils", "_rebuild_tensor_v2") + b")R.",
    "called-without-tuple": PROTO + name("collections", "OrderedDict") + b"}R.",
    "ordered-dict-of-items": called(name("collections", "OrderedDict"), b")"),
    "parameter-of-nothing": called(name("torch._utils", "_rebuild_parameter"), b"NNN"),
    "storage-type": PROTO
    + (b"}" + text("a") + TENSOR.replace(b"HalfStorage", b"LongStorage") + b"s."),
    "negative-offset": PROTO + tensor_pickle("0", "F16", (2,), offset=-1) + b".",
    "negative-stride": PROTO + tensor_pickle("0", "F16", (2,), strides=(-1,)) + b".",
    "negative-length": PROTO + tensor_pickle("0", "F16", (2,), length=-2) + b".",
    "shape-and-strides": PROTO + tensor_pickle("0", "F16", (2,), strides=(1, 1)) + b".",
    "not-utf-8": PROTO + b"}X\x01\x00\x00\x00\xff" + TENSOR + b"s.",
    "name-without-end": PROTO + b"c" + b"x" * 100,
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_what_no_checkpoint_needs_is_refused(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(PickleRefused):
            read_state_dict(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 1 << 20


def test_deep_nesting_is_no_danger() -> None:
    data = PROTO + b"}" + text("a") + b")" + 200_000 * b"\x85" + b"s."

    with pytest.raises(PickleRefused, match="'a' is no tensor"):
        read_state_dict(data)


def test_a_dict_that_doubles_itself_is_no_danger() -> None:
    doubling = b")" + b"".join(b"q\x00h\x00\x86" for _ in range(100))
    data = PROTO + b"}" + text("a") + doubling + b"s."

    with pytest.raises(PickleRefused):
        read_state_dict(data)


def test_reads_what_torch_writes() -> None:
    weights = random_weights(SHAPES["llama-1"])

    state = read_state_dict(state_dict_pickle(weights))

    assert list(state) == list(weights)
    assert state["model.norm.weight"] == TensorRef(
        StorageRef(GgmlType.F16, "31", 256), 0, (256,), (1,)
    )


def test_reads_a_parameter_as_its_tensor() -> None:
    parameter = name("torch._utils", "_rebuild_parameter") + b"(" + TENSOR + b"\x88"
    parameter += name("collections", "OrderedDict") + b")RtR"

    state = read_state_dict(PROTO + b"}" + text("w") + parameter + b"s.")

    assert state["w"].shape == (2, 3)


def test_every_cut_is_refused() -> None:
    data = state_dict_pickle(dict(list(random_weights(SHAPES["tied"]).items())[:3]))

    for end in range(len(data)):
        with pytest.raises(PickleRefused):
            read_state_dict(data[:end])


def test_only_our_error_escapes_from_changed_bytes() -> None:
    source = random.Random(1)
    data = state_dict_pickle(dict(list(random_weights(SHAPES["tied"]).items())[:3]))

    for _ in range(5_000):
        changed = bytearray(data)
        for _ in range(source.randint(1, 4)):
            changed[source.randrange(len(changed))] = source.randrange(256)
        try:
            state = read_state_dict(bytes(changed))
        except PickleRefused:
            continue
        assert all(isinstance(tensor, TensorRef) for tensor in state.values())


def test_shapes_are_tuples_of_counts() -> None:
    huge = tensor_pickle("0", "F16", (1 << 50,), length=1)

    with pytest.raises(PickleRefused, match="shape"):
        read_state_dict(PROTO + b"}" + text("a") + huge + b"s.")
    assert numbers((1, 2)) in tensor_pickle("0", "F32", (1, 2))
