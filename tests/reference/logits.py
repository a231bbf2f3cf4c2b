"""Logits by `transformers`: the golden numbers, of the bundled checkpoint and of a
random one of each architecture.

    make reference                              compares everything anew
    python -m tests.reference.logits --write    remakes tests/golden/*logits.json

Needs the extra `reference` (torch, transformers). Stored are, for every position,
the likeliest token, the log of the sum of exponentials over all logits, and the
logits of a few tokens; `make reference` compares all of them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from tests.conftest import CHECKPOINT
from tests.converters.checkpoints import SHAPES, write_checkpoint

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "logits.json"
ARCHITECTURES = GOLDEN.with_name("architecture_logits.json")
# Random checkpoints of `tests.converters.checkpoints`, one for each way to compute.
NAMES = ("starcoder", "mistral", "mixtral", "deepseek")
LENGTH = 24
# Tokens that are stored for every position: every 61st of the vocabulary.
STRIDE = 61
TEXTS = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's "
    "questions. USER: Hi, my name is Ada. ASSISTANT: Hello Ada!",
    "What is 7 plus 5? wizard-edge list",
)


class Golden(TypedDict):
    """What is stored of one text."""

    ids: list[int]
    argmax: list[int]
    logsumexp: list[float]
    tokens: list[int]
    logits: list[list[float]]


def summary(ids: Sequence[int], logits: NDArray[np.float32]) -> Golden:
    """Reduce logits of shape (len(ids), vocabulary) to what is stored."""
    top = logits.max(axis=1, keepdims=True)
    total = np.log(np.exp((logits - top).astype(np.float64)).sum(axis=1)) + top[:, 0]
    tokens = list(range(0, logits.shape[1], STRIDE))
    return {
        "ids": list(ids),
        "argmax": [int(index) for index in logits.argmax(axis=1)],
        "logsumexp": [round(float(value), 5) for value in total],
        "tokens": tokens,
        "logits": [[round(float(v), 5) for v in row] for row in logits[:, tokens]],
    }


def reference_logits(ids: Sequence[int]) -> NDArray[np.float32]:
    """Return the logits that transformers computes in f32, (len(ids), vocabulary)."""
    return logits_of(CHECKPOINT, ids)


def logits_of(checkpoint: Path, ids: Sequence[int]) -> NDArray[np.float32]:
    """Return the logits of any checkpoint directory, as `reference_logits`."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        logits = model(torch.tensor([list(ids)])).logits[0]
    array: NDArray[np.float32] = logits.numpy()
    return array


def token_ids() -> list[list[int]]:
    """Tokenize the texts with the checkpoint's own SentencePiece model."""
    from sentencepiece import SentencePieceProcessor

    pieces = SentencePieceProcessor(model_file=str(CHECKPOINT / "tokenizer.model"))
    return [[pieces.bos_id(), *pieces.encode(text)] for text in TEXTS]


def random_ids(name: str) -> list[int]:
    """Return the ids that a random checkpoint is asked about."""
    random = np.random.RandomState(SHAPES[name].seed)
    return [int(index) for index in random.randint(5, SHAPES[name].pieces - 30, LENGTH)]


def random_summary(name: str, folder: Path) -> Golden:
    """Write a random checkpoint into `folder` and reduce its logits."""
    ids = random_ids(name)
    return summary(ids, logits_of(write_checkpoint(folder / name, SHAPES[name]), ids))


def load_architectures() -> dict[str, Golden]:
    golden: dict[str, Golden] = json.loads(ARCHITECTURES.read_text(encoding="utf-8"))
    return golden


def load_golden() -> list[Golden]:
    golden: list[Golden] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return golden


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="replace the numbers")
    arguments = parser.parse_args()
    found = [summary(ids, reference_logits(ids)) for ids in token_ids()]
    with TemporaryDirectory() as folder:
        others = {name: random_summary(name, Path(folder)) for name in NAMES}
    if arguments.write:
        GOLDEN.write_text(_lines("[]", map(json.dumps, found)), encoding="utf-8")
        items = (f"{json.dumps(key)}: {json.dumps(others[key])}" for key in others)
        ARCHITECTURES.write_text(_lines("{}", items), encoding="utf-8")
    same = found == load_golden() and others == load_architectures()
    print("equal" if same else "different")


def _lines(brackets: str, items: Iterable[str]) -> str:
    """Return JSON with one item on each line."""
    return f"{brackets[0]}\n" + ",\n".join(items) + f"\n{brackets[1]}\n"


if __name__ == "__main__":
    main()
