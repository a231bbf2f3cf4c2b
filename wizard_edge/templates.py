"""The prompts the models were trained on, as pieces of text.

A control piece becomes one special token, a plain piece never does. Knows no
vocabulary: turning pieces into token ids is `prompt.encode`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from wizard_edge.errors import UsageError

Role = Literal["system", "user", "assistant"]

VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's "
    "questions."
)
ALPACA_SYSTEM = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of prompt text; `control` pieces stand for one special token."""

    text: str
    control: bool = False


# A word begins with a space in SentencePiece: trained answers start with one.
ANSWER_SPACE = " "

EOS = Piece("</s>", control=True)
"""The end of an answer; `prompt.encode` puts the vocabulary's own end token."""


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """How one family of models spells a conversation.

    The prompt is `system`, `before`, the first question, `after`; then per answered
    turn a space, the answer, EOS, `again`, the next question and `after`. `system`
    is None where there is no place for a system text. A template that is not
    `multi_turn` was trained on single questions only: its later turns are a
    convention of ours for clients that insist on a history.
    """

    id: str
    system: str | None
    before: str
    after: str
    again: str
    multi_turn: bool
    source: str

    def render(self, messages: Sequence[Message]) -> list[Piece]:
        """Spell a whole conversation, neighbouring plain pieces joined.

        The messages are an optional system text, then question and answer in turn.
        Raises: UsageError for another order, or a system text without a place.
        """
        system, dialogue = _split(messages)
        pieces = self.open(dialogue[0].content, system=system)
        for message in dialogue[1:]:
            if message.role == "assistant":
                pieces += [Piece(ANSWER_SPACE + message.content), EOS]
            else:
                pieces += self.next_turn(message.content)
        return join_plain(pieces)

    def open(self, user: str, *, system: str | None = None) -> list[Piece]:
        """Spell the first question, under `system` or the template's own text.

        Raises: UsageError when the template has no place for a system text.
        """
        if system is not None and self.system is None:
            raise UsageError(f"template {self.id!r} has no place for a system text")
        preamble = self.system if system is None else system
        return [Piece((preamble or "") + self.before + user + self.after)]

    @property
    def jinja(self) -> str:
        """The same in Jinja, for other programs: nothing here ever compiles it.

        It ends with what the answer follows on, whatever `add_generation_prompt` says,
        and leaves the BOS to whoever tokenizes.
        """
        system = _literal(self.system or "")
        given = f"messages[0].content if has_system else {system}"
        if self.system is None:
            given = system
        before, again, after = map(_literal, (self.before, self.again, self.after))
        question = f"({before} if loop.first else {again}) + message.content + {after}"
        return (
            "{%- set has_system = messages[0].role == 'system' -%}"
            "{%- set turns = messages[1:] if has_system else messages -%}"
            f"{{{{- {given} -}}}}"
            "{%- for message in turns -%}"
            "{%- if message.role == 'user' -%}"
            f"{{{{- {question} -}}}}"
            "{%- else -%}"
            f"{{{{- {_literal(ANSWER_SPACE)} + message.content + eos_token -}}}}"
            "{%- endif -%}"
            "{%- endfor -%}"
        )

    def next_turn(self, user: str) -> list[Piece]:
        """Spell a further question, to follow the EOS of the answer before it."""
        return [Piece(self.again + user + self.after)]


TEMPLATES: dict[str, PromptTemplate] = {
    template.id: template
    for template in (
        PromptTemplate(
            id="vicuna",
            system=VICUNA_SYSTEM,
            before=" USER: ",
            after=" ASSISTANT:",
            again="USER: ",
            multi_turn=True,
            source="nlpxucan/WizardLM README at 41bdf67, training/src/conversation.py",
        ),
        PromptTemplate(
            id="wizardlm-7b",
            system=None,
            before="",
            after="\n\n### Response:",
            again="### Instruction:\n",
            multi_turn=False,
            source="nlpxucan/WizardLM WizardLM/src/train_freeform.py",
        ),
        PromptTemplate(
            id="alpaca",
            system=ALPACA_SYSTEM,
            before="\n\n### Instruction:\n",
            after="\n\n### Response:",
            again="### Instruction:\n",
            multi_turn=False,
            source="nlpxucan/WizardLM WizardCoder/src/inference_wizardcoder.py",
        ),
        PromptTemplate(
            id="alpaca-cot",
            system=ALPACA_SYSTEM,
            before="\n\n### Instruction:\n",
            after="\n\n### Response: Let's think step by step.",
            again="### Instruction:\n",
            multi_turn=False,
            source="nlpxucan/WizardLM WizardMath/inference/gsm8k_inference.py",
        ),
    )
}


def find_template(name: str) -> PromptTemplate:
    """Return the template called `name`. Raises: UsageError for an unknown one."""
    if name not in TEMPLATES:
        raise UsageError(
            f"unknown template {name!r}", hint=f"known: {', '.join(TEMPLATES)}"
        )
    return TEMPLATES[name]


def join_plain(pieces: Iterable[Piece]) -> list[Piece]:
    """Join neighbouring plain pieces, since a tokenizer must see them as one."""
    joined: list[Piece] = []
    for piece in pieces:
        if joined and not piece.control and not joined[-1].control:
            joined[-1] = Piece(joined[-1].text + piece.text)
        elif piece.text:
            joined.append(piece)
    return joined


def parse_messages(value: object) -> list[Message]:
    """Read messages from decoded JSON: a list of `{"role", "content"}`.

    Raises: UsageError naming the message that does not fit.
    """
    if not isinstance(value, list):
        raise UsageError("messages must be a JSON list of {role, content}")
    return [_parse_message(number, item) for number, item in enumerate(value, 1)]


def _literal(text: str) -> str:
    """Write a text as Jinja does, which spells it as JSON does."""
    return json.dumps(text, ensure_ascii=False)


def _parse_message(number: int, item: object) -> Message:
    if not isinstance(item, dict) or set(item) != {"role", "content"}:
        raise UsageError(f"message {number} must have exactly role and content")
    role, content = item["role"], item["content"]
    if role not in ("system", "user", "assistant"):
        raise UsageError(f"message {number} has an unknown role: {role!r}")
    if not isinstance(content, str):
        raise UsageError(f"the content of message {number} is not a text")
    try:
        content.encode("utf-8")
    except UnicodeEncodeError as err:
        raise UsageError(f"message {number} holds a lone surrogate") from err
    return Message(role, content)


def _split(messages: Sequence[Message]) -> tuple[str | None, Sequence[Message]]:
    system = None
    if messages and messages[0].role == "system":
        system, messages = messages[0].content, messages[1:]
    if not messages:
        raise UsageError("the conversation has no user message")
    for index, message in enumerate(messages):
        expected: Role = "user" if index % 2 == 0 else "assistant"
        if message.role != expected:
            raise UsageError(
                f"turn {index + 1} is from {message.role!r}, expected {expected!r}: "
                "questions and answers take turns"
            )
    return system, messages
