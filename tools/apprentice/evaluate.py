"""Examine the apprentice in real chats: its own greedy answers are its history.

Run from the project root: `python -m tools.apprentice.evaluate [DIRECTORY]`.
Measures the checkpoint in fp32 with torch; what is left of it after quantizing is
measured elsewhere, from the GGUF.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import sentencepiece
import torch
from transformers import LlamaForCausalLM

from tools.apprentice import corpus, probes
from tools.apprentice.checkpoint import CHECKPOINT, load
from tools.apprentice.conversation import Conversation
from tools.apprentice.scoring import Answer, report, scores
from tools.apprentice.tokenizer import BOS, EOS, user_text

LONGEST_ANSWER: Final = 96  # tokens; half as many are enough for a taught answer
TOGETHER: Final = 125  # conversations answered in one batch
PROBES: Final = {
    "demos": probes.DEMOS,
    "foreign names": probes.FOREIGN,
    "reworded": probes.REWORDED,
}


def converse(
    model: LlamaForCausalLM,
    vocabulary: sentencepiece.SentencePieceProcessor,
    conversations: Sequence[Conversation],
) -> list[Answer]:
    """Hold all conversations, round by round, and return every answer."""
    answers: list[Answer] = []
    for start in range(0, len(conversations), TOGETHER):
        part = conversations[start : start + TOGETHER]
        histories = [[BOS] for _ in part]
        for number in range(max(len(c.turns) for c in part)):
            speaking = [i for i, c in enumerate(part) if len(c.turns) > number]
            for i in speaking:
                asked = user_text(part[i].turns[number].user, first=number == 0)
                histories[i] += vocabulary.encode(asked)
            said = _answer(model, [histories[i] for i in speaking])
            for i, ids in zip(speaking, said, strict=True):
                histories[i] += [*ids, EOS]
                text = vocabulary.decode(ids)
                ended = len(ids) < LONGEST_ANSWER
                answers.append(Answer(part[i].turns[number], text, ended))
    return answers


def _answer(model: LlamaForCausalLM, prompts: list[list[int]]) -> list[list[int]]:
    """Continue every prompt greedily; return the new ids up to `</s>`, without it."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[EOS] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    with torch.no_grad():
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=LONGEST_ANSWER,
            eos_token_id=EOS,
            pad_token_id=EOS,
        )
    rows: list[list[int]] = out[:, longest:].tolist()
    return [row[: row.index(EOS)] if EOS in row else row for row in rows]


def main() -> None:
    """Print the figures of a checkpoint on held-out conversations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", nargs="?", type=Path, default=CHECKPOINT)
    parser.add_argument("--conversations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--wrong", type=int, default=0, help="wrong answers to show")
    options = parser.parse_args()
    model, vocabulary = load(options.checkpoint)
    conversations = list(corpus.held_out(options.seed, options.conversations))
    answers = converse(model, vocabulary, conversations)
    print(report(scores(answers)))
    for name, asked in PROBES.items():
        probed = converse(model, vocabulary, probes.conversations(asked))
        right = sum(answer.is_right for answer in probed)
        print(f"{name:18} {right:5} of {len(probed):5}")
        answers += probed
    wrong = [a for a in answers if not (a.is_right and a.ended)]
    for answer in wrong[: options.wrong]:
        print(f"{answer.turn.kind}: {answer.turn.user!r}")
        print(f"  {answer.text!r}, not {answer.turn.assistant!r}")


if __name__ == "__main__":
    main()
