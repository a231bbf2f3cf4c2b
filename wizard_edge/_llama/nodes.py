"""The nodes of llama.cpp's computation graph, as its evaluation callback shows them.

`ggml_tensor` is declared here by hand, for the binding does not; before the first
node is looked at, tensors of the library's own making are compared with it.

Source: llama.cpp 0c1e57098, ggml/include/ggml.h, struct ggml_tensor.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wizard_edge._llama import ggml
from wizard_edge.errors import BackendError
from wizard_edge.gguf_types import GgmlType

# Names of operations as `ggml_op_name` gives them: their numbers change.
MUL_MAT = "MUL_MAT"
MUL_MAT_ID = "MUL_MAT_ID"

_MAX_DIMENSIONS = 4
_MAX_PARAMETERS = 16
_MAX_SOURCES = 10
_MAX_NAME = 64

_Number = TypeVar("_Number", bound=np.generic)
_TYPES: Mapping[type[np.generic], GgmlType] = {
    np.float32: GgmlType.F32,
    np.int32: GgmlType.I32,
}


class _Tensor(ctypes.Structure):
    pass


_Pointer = ctypes.POINTER(_Tensor)
_Tensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * _MAX_DIMENSIONS),
    ("nb", ctypes.c_size_t * _MAX_DIMENSIONS),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * _MAX_PARAMETERS),
    ("flags", ctypes.c_int32),
    ("src", _Pointer * _MAX_SOURCES),
    ("view_src", _Pointer),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * _MAX_NAME),
    ("extra", ctypes.c_void_p),
    ("padding", ctypes.c_char * 8),
]


class InitParameters(ctypes.Structure):
    """Source: llama.cpp 0c1e57098, ggml/include/ggml.h, struct ggml_init_params."""

    _fields_ = (
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    )


# Name -> result, arguments. Source: llama.cpp 0c1e57098, ggml/include/ggml.h and
# ggml-backend.h.
_FUNCTIONS: ggml.Functions = {
    "ggml_init": (ctypes.c_void_p, [InitParameters]),
    "ggml_free": (None, [ctypes.c_void_p]),
    "ggml_new_tensor_3d": (
        _Pointer,
        [ctypes.c_void_p, ctypes.c_int, *[ctypes.c_int64] * 3],
    ),
    "ggml_mul_mat": (_Pointer, [ctypes.c_void_p, _Pointer, _Pointer]),
    "ggml_mul_mat_id": (_Pointer, [ctypes.c_void_p, _Pointer, _Pointer, _Pointer]),
    "ggml_set_name": (_Pointer, [_Pointer, ctypes.c_char_p]),
    "ggml_get_name": (ctypes.c_void_p, [_Pointer]),
    "ggml_get_data": (ctypes.c_void_p, [_Pointer]),
    "ggml_nbytes": (ctypes.c_size_t, [_Pointer]),
    "ggml_op_desc": (ctypes.c_char_p, [_Pointer]),
    "ggml_op_name": (ctypes.c_char_p, [ctypes.c_int]),
    "ggml_backend_tensor_get": (
        None,
        [_Pointer, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t],
    ),
}


class Node:
    """A tensor of the graph that is being computed; valid inside the callback only."""

    __slots__ = ("_tensor",)

    def __init__(self, tensor: _Tensor) -> None:
        self._tensor = tensor

    @property
    def op(self) -> str:
        """The name of the operation whose result this is."""
        return _op_name(self._tensor.op)

    @property
    def name(self) -> str:
        return bytes(self._tensor.name).decode("utf-8", "replace")

    @property
    def type(self) -> int:
        """The number of its `GgmlType`."""
        return int(self._tensor.type)

    @property
    def sizes(self) -> tuple[int, ...]:
        """All four sizes, the row length first."""
        return tuple(self._tensor.ne)

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes from one element to the next in each direction, as `sizes`."""
        return tuple(self._tensor.nb)

    def source(self, index: int) -> Node:
        """Return an operand. Raises: BackendError where there is none."""
        pointer = self._tensor.src[index]
        if not pointer:
            raise BackendError(f"{self.op} of {self.name!r} has no operand {index}")
        return Node(pointer.contents)


def open_node(address: int) -> Node:
    """Return the node at an address that llama.cpp gave.

    Raises: BackendError when its tensors do not lie in memory as this file says.
    """
    check_layout()
    return Node(_Tensor.from_address(address))


def place(address: int, buffer: int) -> None:
    """Say that a tensor lies in a buffer, to ask what could be done with it there."""
    check_layout()
    _Tensor.from_address(address).buffer = buffer


def read_values(node: Node, kind: type[_Number]) -> NDArray[_Number]:
    """Copy a node's numbers, wherever they lie: four sizes, the row length last.

    Raises: BackendError when they are of another type.
    """
    wanted = _TYPES[kind]
    if node.type != wanted:
        raise BackendError(f"{node.name!r} is no {wanted.name}, but type {node.type}")
    library = check_layout()
    tensor = node._tensor
    data = np.empty(library.ggml_nbytes(ctypes.byref(tensor)), dtype=np.uint8)
    library.ggml_backend_tensor_get(
        ctypes.byref(tensor), data.ctypes.data, 0, data.nbytes
    )
    # A view of a larger tensor has gaps between its rows.
    return np.ndarray(
        node.sizes[::-1], dtype=kind, buffer=data.data, strides=node.strides[::-1]
    )


@cache
def check_layout() -> ctypes.CDLL:
    """Compare the declaration with tensors that the library makes, once.

    Every field that is read here is asked for in two ways.
    Raises: BackendError.
    """
    library = ggml.open_library(_FUNCTIONS)
    context = library.ggml_init(InitParameters(1 << 16, None, False))
    if not context:
        raise BackendError("ggml gives no memory for a test")
    try:
        if not _agrees(library, context):
            raise BackendError(
                "tensors of this llama.cpp lie in memory in another way",
                hint="this needs another llama-cpp-python",
            )
    finally:
        library.ggml_free(context)
    return library


def _agrees(library: ctypes.CDLL, context: int) -> bool:
    f32, i32 = GgmlType.F32, GgmlType.I32
    weights = library.ggml_new_tensor_3d(context, f32, 5, 7, 3)
    given = library.ggml_new_tensor_3d(context, f32, 5, 2, 11)
    ids = library.ggml_new_tensor_3d(context, i32, 2, 11, 1)
    dense = library.ggml_mul_mat(context, weights, weights)
    routed = library.ggml_mul_mat_id(context, weights, given, ids)
    library.ggml_set_name(weights, b"blk.0.weight")
    found = weights.contents
    address = ctypes.addressof(found)
    return bool(
        (found.type, ids.contents.type) == (f32, i32)
        and tuple(found.ne) == (5, 7, 3, 1)
        and tuple(found.nb) == (4, 20, 140, 420)
        and library.ggml_nbytes(weights) == 420
        and library.ggml_get_name(weights) == address + _Tensor.name.offset
        and found.name == b"blk.0.weight"
        and library.ggml_get_data(weights) == found.data
        and not found.view_src
        and not found.extra
        and library.ggml_op_desc(dense) == MUL_MAT.encode()
        and library.ggml_op_name(dense.contents.op) == MUL_MAT.encode()
        and library.ggml_op_name(routed.contents.op) == MUL_MAT_ID.encode()
        and _addresses(dense) == [address, address]
        and _addresses(routed) == [address, *map(_address, (given, ids))]
    )


def _addresses(pointer: ctypes._Pointer[_Tensor]) -> list[int]:
    return [_address(source) for source in pointer.contents.src if source]


def _address(pointer: ctypes._Pointer[_Tensor]) -> int:
    return ctypes.addressof(pointer.contents)


@cache
def _op_name(number: int) -> str:
    name: bytes = check_layout().ggml_op_name(number)
    return name.decode()
