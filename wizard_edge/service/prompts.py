"""Show what would be sent to a model, without loading its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wizard_edge._llama.model import Model
from wizard_edge.engine import LoadOptions
from wizard_edge.prompt import encode_messages, spell
from wizard_edge.service.installation import Installation
from wizard_edge.service.targets import choose_template, find_target
from wizard_edge.templates import Message


@dataclass(frozen=True, slots=True)
class PromptView:
    """A prompt as text, control tokens spelled and BOS left out, and as token ids.

    `pieces` spells every id on its own, BOS too.
    """

    template: str
    text: str
    ids: tuple[int, ...]
    pieces: tuple[str, ...]


def show_prompt(
    installation: Installation,
    ref: str,
    messages: Sequence[Message],
    template: str | None = None,
) -> PromptView:
    """Return exactly what would be sent; a vocabulary-only GGUF will do.

    Raises: what `find_target`, `choose_template` and rendering raise.
    """
    target = find_target(installation, ref)
    chosen = choose_template(target, template)
    pieces = chosen.render(messages)
    model = Model(target.path, LoadOptions(), vocabulary_only=True)
    try:
        vocabulary = model.vocabulary
        ids = encode_messages(chosen, messages, vocabulary)
        return PromptView(
            template=chosen.id,
            text=spell(pieces, vocabulary),
            ids=tuple(ids),
            pieces=tuple(map(vocabulary.spell, ids)),
        )
    finally:
        model.close()
