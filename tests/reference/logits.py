"""Logits of the bundled checkpoint by `transformers`: the golden numbers.

    make reference                              compares everything anew
    python -m tests.reference.logits --write    remakes tests/golden/logits.json

Needs the extra `reference` (torch, transformers). Stored are, for every position,
the likeliest token, the log of the sum of exponentials over all logits, and the
logits of a few tokens; `make reference` compares all of them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from tests.conftest import CHECKPOINT

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "logits.json"
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
    import torch
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(
        CHECKPOINT, dtype=torch.float32, attn_implementation="eager"
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


def load_golden() -> list[Golden]:
    golden: list[Golden] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return golden


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="replace the numbers")
    arguments = parser.parse_args()
    found = [summary(ids, reference_logits(ids)) for ids in token_ids()]
    if arguments.write:
        lines = (",\n".join(json.dumps(item) for item in found)).join(("[\n", "\n]\n"))
        GOLDEN.write_text(lines, encoding="utf-8")
    print("equal" if found == load_golden() else "different")


if __name__ == "__main__":
    main()
