"""Weight deltas: what has to be added to a base model before it is one.

WizardLM-7B-V1.0, 13B-V1.0 and 30B-V1.0 were published as float32 differences to
LLaMA-1. The sum is taken in float32, tensor by tensor while it is read; nothing
merged is ever stored. The delta has a row more in the vocabulary than its base: that
row's base is the mean of the others, as the authors' tool grows the embedding.

Source: nlpxucan/WizardLM, WizardLM/src/weight_diff_wizard.py (order and type of the
sum), WizardLM/src/train_freeform.py (`smart_tokenizer_and_embedding_resize`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wizard_edge.errors import CannotConvert
from wizard_edge.gguf_types import GgmlType
from wizard_edge.names import RelPath
from wizard_edge.receipts import CheckedFile
from wizard_edge_converters.checkpoint import Checkpoint, StoredTensor
from wizard_edge_converters.config import CONFIG
from wizard_edge_converters.hparams import read_hparams
from wizard_edge_converters.llama import LlamaHparams
from wizard_edge_converters.quantize import widen
from wizard_edge_converters.tensors import LEFT_OVERS

# The tensors with a row for every token.
GROWN = ("model.embed_tokens.weight", "lm_head.weight")
BASE_FOLDER = "base"
_HINT = "the base is LLaMA-1 of the same size in Hugging Face's form, as --base"
# In the wrong order, rows that turn together differ several times as much as rows
# that only look so; one half is far from both.
_LAYOUT_RATIO = 0.5
_LEVELS = 4

_T = TypeVar("_T")


class DeltaCheckpoint:
    """A delta and its base as the checkpoint of their sum, in float32.

    Both are the caller's to close. Raises: CannotConvert for a base that does not
    fit, before anything of it was added.
    """

    def __init__(self, delta: Checkpoint, base: Checkpoint) -> None:
        self._delta = delta
        self._base = base
        self.name = delta.name
        self.identity = json.dumps([delta.identity, base.identity])
        _check_fit(delta, base)
        self.tensors: Mapping[str, StoredTensor] = {
            name: tensor if _is_left_over(name) else replace(tensor, type=GgmlType.F32)
            for name, tensor in delta.tensors.items()
        }
        self._mean: MeanRow | None = None

    @property
    def size(self) -> int:
        return self._delta.size + self._base.size

    @property
    def is_remote(self) -> bool:
        return self._delta.is_remote or self._base.is_remote

    def label(self, name: str) -> str:
        return self._delta.label(name)

    def small(self, name: str) -> bytes | None:
        return self._delta.small(name)

    def read(self, tensor: StoredTensor, start: int, count: int) -> bytes:
        own = self._delta.tensors[tensor.name]
        data = self._delta.read(own, start, count)
        if _is_left_over(tensor.name):
            return data
        total = self._read_base(tensor, start, count)
        total += widen(data, own.type)
        return total.tobytes()

    def mark(self, file: str) -> str:
        base = {name: self._base.mark(name) for name in self._base_files()}
        return json.dumps({"delta": self._delta.mark(file), "base": base})

    def resume(self, file: str, mark: str) -> None:
        state = json.loads(mark)
        self._delta.resume(file, state["delta"])
        for name, base_mark in state["base"].items():
            self._base.resume(name, base_mark)

    def finish(self, file: str) -> CheckedFile:
        return self._delta.finish(file)

    def others(self) -> Sequence[CheckedFile]:
        checked = [self._base.finish(name) for name in self._base_files()]
        return [
            *self._delta.others(),
            *(
                replace(item, name=RelPath.parse(f"{BASE_FOLDER}/{item.name}"))
                for item in checked
            ),
        ]

    def close(self) -> None:
        self._delta.close()
        self._base.close()

    def _base_files(self) -> list[str]:
        return sorted({tensor.file for tensor in self._base.tensors.values()})

    def _read_base(
        self, tensor: StoredTensor, start: int, count: int
    ) -> NDArray[np.float32]:
        """Read (count,) float32 of the base, the mean row where it has no own."""
        base = self._base.tensors[tensor.name]
        there = max(min(base.elements - start, count), 0)
        data = self._base.read(base, start, there) if there else b""
        rows = np.array(widen(data, base.type))
        if base.shape == tensor.shape:
            return rows
        columns = base.shape[1]
        if self._mean is None or start == 0:
            self._mean = MeanRow(*base.shape)
        self._mean.add(rows.reshape(-1, columns))
        missing = (count - there) // columns
        if not missing:
            return rows
        mean = self._mean.row()
        return np.concatenate([rows, *([mean] * missing)])


class MeanRow:
    """The mean of the rows of a matrix that come in order, summed as torch does.

    torch adds up a column in cascades of four levels, so that float32 loses little;
    the mean of another order of sums would differ in its last bits.
    Source: PyTorch 2.13, aten/src/ATen/native/cpu/SumKernel.cpp, `multi_row_sum`.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self._rows = rows
        self._power = max(4, (rows - 1).bit_length() // _LEVELS)
        self._sums = np.zeros((_LEVELS, columns), dtype=np.float32)
        self._seen = 0

    def add(self, rows: NDArray[np.float32]) -> None:
        """Add the next rows, (count, columns)."""
        step = 1 << self._power
        whole = self._rows // step * step
        for row in rows:
            self._sums[0] += row
            self._seen += 1
            if self._seen <= whole and self._seen % step == 0:
                self._carry()

    def row(self) -> NDArray[np.float32]:
        """Return the mean of all rows, (columns,)."""
        assert self._seen == self._rows
        total = self._sums[0].copy()
        for level in self._sums[1:]:
            total += level
        mean: NDArray[np.float32] = total / np.float32(self._rows)
        return mean

    def _carry(self) -> None:
        mask = (1 << self._power) - 1
        for level in range(1, _LEVELS):
            self._sums[level] += self._sums[level - 1]
            self._sums[level - 1] = 0
            if self._seen & (mask << (level * self._power)):
                break


def _check_fit(delta: Checkpoint, base: Checkpoint) -> None:
    hparams = _read_llama(delta)
    _check_config(hparams, delta, base)
    firsts: dict[object, str] = {}
    for name, tensor in delta.tensors.items():
        if _is_left_over(name):
            continue
        found = base.tensors.get(name)
        if found is None:
            raise CannotConvert(
                f"{base.name} is no base of {delta.name}: it has no tensor {name}",
                hint=_HINT,
            )
        grown = (
            name in GROWN
            and len(found.shape) == len(tensor.shape) == 2
            and found.shape[1] == tensor.shape[1]
            and 0 < found.shape[0] < tensor.shape[0]
        )
        if found.shape != tensor.shape and not grown:
            raise CannotConvert(
                f"{base.name} is no base of {delta.name}: its tensor {name} has the "
                f"shape {found.shape} instead of {tensor.shape}",
                hint=_HINT,
            )
        first = firsts.setdefault(tensor.place, name)
        if base.tensors[first].place != found.place:
            raise CannotConvert(
                f"{delta.name} stores {first} and {name} as one, {base.name} apart",
                hint=_HINT,
            )
    for letter, heads in (("q", hparams.heads), ("k", hparams.kv_heads)):
        found = base.tensors.get(f"model.layers.0.self_attn.{letter}_proj.weight")
        # One that is missing or of another shape is told of by the config's rules.
        if found is not None and found.shape == (
            heads * hparams.head_size,
            hparams.width,
        ):
            _check_rotary_order(base, found, heads)


def _check_config(hparams: LlamaHparams, delta: Checkpoint, base: Checkpoint) -> None:
    """Compare what shapes do not show: heads, rotary base, epsilon."""
    if base.small(CONFIG) is None:
        return
    found = _read_llama(base)
    for key in ("heads", "kv_heads", "head_size", "rope_theta", "epsilon"):
        ours, theirs = getattr(hparams, key), getattr(found, key)
        if ours != theirs:
            raise CannotConvert(
                f"{base.name} is no base of {delta.name}: its {key} is {theirs} "
                f"instead of {ours}",
                hint=_HINT,
            )


def _read_llama(checkpoint: Checkpoint) -> LlamaHparams:
    hparams = read_hparams(checkpoint)
    if not isinstance(hparams, LlamaHparams) or hparams.experts:
        raise CannotConvert(
            f"{checkpoint.name} is no LLaMA: deltas are taken against one", hint=_HINT
        )
    return hparams


def _check_rotary_order(base: Checkpoint, tensor: StoredTensor, heads: int) -> None:
    """Refuse a base whose q and k rows lie in Meta's order of rotary pairs.

    Two rows of a head that turn together have similar lengths in a trained model.
    In Hugging Face's order they are half a head apart, in Meta's they are neighbours;
    whichever guess fits much better is the order. Where neither does, all is taken.
    """
    lengths = _row_lengths(base, tensor).reshape(heads, -1)
    half = lengths.shape[1] // 2
    ours = _difference(lengths[:, :half], lengths[:, half:])
    metas = _difference(lengths[:, 0::2], lengths[:, 1::2])
    if metas < _LAYOUT_RATIO * ours:
        raise CannotConvert(
            f"{base.name} keeps the rows of q and k in Meta's order, the delta was "
            "taken against Hugging Face's",
            hint="convert the base with transformers' convert_llama_weights_to_hf.py",
        )


def _difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    tiny = np.finfo(np.float64).tiny
    return float(np.abs(np.log((one + tiny) / (other + tiny))).mean())


def _row_lengths(base: Checkpoint, tensor: StoredTensor) -> NDArray[np.float64]:
    """Return the squared length of every row, read a few rows at a time."""
    rows, columns = tensor.shape
    some = max((1 << 20) // columns, 1)
    parts = []
    for start in range(0, rows, some):
        count = min(some, rows - start)
        data = base.read(tensor, start * columns, count * columns)
        block = widen(data, tensor.type).reshape(count, columns)
        parts.append(np.einsum("ij,ij->i", block, block, dtype=np.float64))
    return np.concatenate(parts)


def _is_left_over(name: str) -> bool:
    return name.endswith(LEFT_OVERS)
