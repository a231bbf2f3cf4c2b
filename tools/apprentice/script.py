"""Writes conversations turn by turn: what is asked, and the one right answer.

An act adds one turn to the script; the table of acts says how often each is drawn.
Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from random import Random
from typing import Final, Literal

from tools.apprentice import phrases, wording
from tools.apprentice.conversation import Conversation, Turn

LARGEST_SUM: Final = 20

Fact = Literal["name", "colour", "town"]
FACTS: Final[tuple[Fact, ...]] = ("name", "colour", "town")


def conversations(random: Random, invented: float) -> Iterator[Conversation]:
    """Yield conversations without end, of 1 to 10 turns and mostly 3 to 6.

    `invented` is the share of told names and towns that stand in no list.
    """
    lengths = (1, 2, 3, 4, 5, 6, 8, 10)
    shares = (7, 8, 20, 22, 20, 17, 4, 2)
    while True:
        (length,) = random.choices(lengths, shares)
        script = _Script(random, invented, length)
        for _ in range(length):
            _next_turn(script)
        yield Conversation(tuple(script.turns))


def drills(random: Random) -> Iterator[Conversation]:
    """Yield requests to say a few invented words, without end."""
    while True:
        said = " ".join(wording.invent(random) for _ in range(random.randint(1, 10)))
        yield Conversation((Turn(f"Say {said}", said, "drill", (said,)),))


@dataclass(slots=True)
class _Script:
    """A conversation while it is being made."""

    random: Random
    invented: float
    length: int
    turns: list[Turn] = field(default_factory=list)
    facts: dict[Fact, str] = field(default_factory=dict)
    told: dict[Fact, int] = field(default_factory=dict)

    @property
    def is_first(self) -> bool:
        return not self.turns

    @property
    def is_last(self) -> bool:
        return len(self.turns) == self.length - 1

    @property
    def untold(self) -> list[Fact]:
        return [fact for fact in FACTS if fact not in self.facts]

    def since(self, fact: Fact) -> int:
        return len(self.turns) - self.told[fact]

    def add(
        self,
        user: str,
        assistant: str,
        kind: str,
        *expected: str,
        since: int = 0,
        opener: bool = True,
    ) -> None:
        typed = wording.typed(self.random, user, opener=opener)
        self.turns.append(Turn(typed, assistant, kind, expected, since))


def _next_turn(script: _Script) -> None:
    """Add one turn, drawn from what makes sense here by the weights of `_ACTS`."""
    weights = [weigh(script) for weigh, _ in _ACTS]
    acts = [act for _, act in _ACTS]
    script.random.choices(acts, weights)[0](script)


def _greet(script: _Script) -> None:
    if script.random.random() < 0.3:
        ask, answer = phrases.HOW_ARE_YOU, "I am fine, thank you. How can I help you?"
        script.add(script.random.choice(ask), answer, "greeting", "fine")
        return
    said = script.random.choice(phrases.GREETING)
    script.add(said, "Hello! How can I help you?", "greeting", "Hello", opener=False)


def _tell(script: _Script) -> None:
    """Tell one new fact, at times two, at times after a greeting."""
    random = script.random
    new = random.sample(script.untold, 1)
    if len(script.untold) > 1 and random.random() < 0.15:
        new = random.sample(script.untold, 2)
    elif "name" in script.untold and random.random() < 0.4:
        new = ["name"]
    said = [_statement(script, fact, _TELL[fact]) for fact in new]
    answers = [_acknowledge(fact, script.facts[fact]) for fact in new]
    if "name" in new and random.random() < (0.6 if script.is_first else 0.05):
        said[0] = wording.join(random, random.choice(phrases.GREETING), said[0])
        answers[new.index("name")] = f"Hello, {script.facts['name']}! Nice to meet you."
    user = wording.join_facts(random, said)
    kind = "tell_" + "_".join(new)
    expected = [script.facts[fact] for fact in new]
    script.add(user, " ".join(answers), kind, *expected, opener=False)


def _tell_anew(script: _Script) -> None:
    """Change a fact told before."""
    fact = script.random.choice(list(script.facts))
    said = _statement(script, fact, _CHANGE[fact])
    value = script.facts[fact]
    answer = _acknowledge(fact, value)
    if fact == "name":
        answer = f"All right, I will call you {value}."
    script.add(said, answer, f"tell_{fact}", value, opener=False)


def _statement(script: _Script, fact: Fact, said: tuple[str, ...]) -> str:
    value = _value(script, fact)
    script.facts[fact] = value
    script.told[fact] = len(script.turns)
    return wording.sentence(script.random.choice(said).format(**{fact: value}))


def _value(script: _Script, fact: Fact) -> str:
    random = script.random
    if fact != "colour" and random.random() < script.invented:
        return wording.invent(random)
    return random.choice([v for v in _VALUES[fact] if v != script.facts.get(fact)])


def _acknowledge(fact: Fact, value: str) -> str:
    if fact == "name":
        return f"Nice to meet you, {value}."
    return f"I will remember that {_POSSESSED[fact]} is {value}."


def _recall(script: _Script) -> None:
    """Ask for one told fact, mostly one told two or more turns ago."""
    random = script.random
    old = [fact for fact in script.facts if script.since(fact) >= 2]
    fact = random.choice(old if old and random.random() < 0.9 else list(script.facts))
    answer, value = _remembered(script, fact)
    asked = random.choice(_ASK[fact])
    script.add(asked, answer, f"recall_{fact}", value, since=script.since(fact))


def _recall_several(script: _Script) -> None:
    """Ask for two facts at once, or for everything told."""
    random = script.random
    if random.random() < 0.5 and script.facts:
        asked = random.choice(phrases.ASK_ALL)
        facts = [fact for fact in FACTS if fact in script.facts]
    else:
        facts = random.sample(FACTS, 2)
        asked = wording.join_questions(
            random, [random.choice(_ASK[f][:4]) for f in facts]
        )
    pairs = [_remembered(script, fact) for fact in facts]
    script.add(
        asked,
        " ".join(answer for answer, _ in pairs),
        "recall_several",
        *(expected for _, expected in pairs),
        since=min((script.since(f) for f in facts if f in script.facts), default=0),
    )


def _remembered(script: _Script, fact: Fact) -> tuple[str, str]:
    """Return the sentence about a fact and the phrase that must be in it."""
    possessed = _POSSESSED[fact]
    if fact in script.facts:
        value = script.facts[fact]
        return f"{wording.sentence(possessed)} is {value}.", value
    return f"I do not know {possessed} yet.", f"do not know {possessed}"


def _ask_untold(script: _Script) -> None:
    if script.random.random() < 0.1 and not script.facts:
        asked, answer = phrases.ASK_ALL, "I do not know anything about you yet."
        script.add(script.random.choice(asked), answer, "unknown", "do not know")
        return
    fact = script.random.choice(script.untold)
    answer, expected = _remembered(script, fact)
    script.add(script.random.choice(_ASK[fact]), answer, f"unknown_{fact}", expected)


def _ask_sum(script: _Script) -> None:
    random = script.random
    draw = random.random()
    if draw < 0.1:
        a, b = random.randint(21, 99), random.randint(0, 99)
        a, b = (a, b) if random.random() < 0.5 else (b, a)
        answer = f"I only add numbers up to {LARGEST_SUM}."
        script.add(_sum_question(random, a, b), answer, "sum_beyond", str(LARGEST_SUM))
        return
    kind, pairs = ("sum", _SMALL) if draw < 0.9 else ("sum_large", _LARGE)
    a, b = random.choice(pairs)
    answer = f"{a} plus {b} is {a + b}."
    script.add(_sum_question(random, a, b), answer, kind, str(a + b))


def _sum_question(random: Random, a: int, b: int) -> str:
    words = phrases.NUMBER_WORDS
    said = random.choice(phrases.ADD)
    if max(a, b) < len(words) and "+" not in said and random.random() < 0.3:
        return wording.sentence(said.format(a=words[a], b=words[b]))
    return said.format(a=a, b=b)


def _ask_command(script: _Script) -> None:
    random = script.random
    draw = random.random()
    if draw < 0.08:
        answer = f"The commands are {', '.join(phrases.COMMANDS)}."
        asked = random.choice(phrases.LIST_COMMANDS)
        script.add(asked, answer, "command_list", *phrases.COMMANDS)
        return
    if draw < 0.14:
        answer = "wizard-edge runs language models on small machines."
        asked = random.choice(phrases.ABOUT_PROJECT)
        script.add(asked, answer, "project", "language models on small machines")
        return
    if draw < 0.2:
        other = random.choice(phrases.OTHER_COMMANDS)
        named = [said for said in phrases.ASK_COMMAND if _NAMES_COMMAND.search(said)]
        asked = random.choice(named).format(command=other)
        answer = "I do not know that command."
        script.add(asked, answer, "command_unknown", "do not know that command")
        return
    command, meaning = random.choice(list(phrases.COMMANDS.items()))
    asked = random.choice(phrases.ASK_COMMAND).format(command=command)
    if draw > 0.65:
        asked = random.choice(phrases.WANTED[command])
    answer = f"wizard-edge {command} {meaning}."
    script.add(
        wording.sentence(asked), answer, "command", f"wizard-edge {command}", meaning
    )


def _ask_identity(script: _Script) -> None:
    asked, answer, *expected = script.random.choice(_IDENTITY)
    said = script.random.choice(asked)
    script.add(said, answer, "identity", *expected)


def _ask_abilities(script: _Script) -> None:
    asked = script.random.choice(phrases.ABILITIES)
    script.add(asked, _ABILITIES, "abilities", "add small numbers")


def _ask_beyond(script: _Script) -> None:
    random = script.random
    said = random.choice(phrases.BEYOND).format(
        thing=random.choice(phrases.THINGS),
        name=random.choice(phrases.NAMES),
        colour=random.choice(phrases.COLOURS),
        town=random.choice(phrases.TOWNS),
        a=random.randint(0, 20),
        b=random.randint(0, 20),
    )
    answer = "That is beyond me. I am only a tiny demo model."
    script.add(said, answer, "beyond", "beyond me")


def _thank(script: _Script) -> None:
    said = script.random.choice(phrases.THANKS)
    script.add(said, "You are welcome.", "thanks", "You are welcome", opener=False)


def _remark(script: _Script) -> None:
    said = script.random.choice(phrases.REMARK)
    answer = "Good. What else can I do for you?"
    script.add(said, answer, "remark", "What else", opener=False)


def _leave(script: _Script) -> None:
    said = script.random.choice(phrases.GOODBYE)
    name = script.facts.get("name")
    answer, expected = ("Goodbye!", ["Goodbye"])
    if name is not None:
        answer, expected = f"Goodbye, {name}!", ["Goodbye", name]
    since = script.since("name") if name is not None else 0
    script.add(said, answer, "goodbye", *expected, since=since, opener=False)


def _recall_weight(script: _Script) -> float:
    if not script.facts:
        return 0
    old = any(script.since(fact) >= 2 for fact in script.facts)
    if not old:
        return 4
    return 80 if script.is_last else 32


_Act = Callable[[_Script], None]
_Weigh = Callable[[_Script], float]
_ACTS: Final[tuple[tuple[_Weigh, _Act], ...]] = (
    (lambda s: 22 if s.is_first else 2, _greet),
    (lambda s: (36 if s.is_first else 20) if s.untold else 0, _tell),
    (lambda s: 4 if s.facts and not s.is_last else 0, _tell_anew),
    (_recall_weight, _recall),
    (lambda s: (6 if len(s.facts) == 1 else 12) if s.facts else 0.5, _recall_several),
    (lambda s: 4 if s.untold else 0, _ask_untold),
    (lambda s: 18, _ask_sum),
    (lambda s: 13, _ask_command),
    (lambda s: 8, _ask_identity),
    (lambda s: 3, _ask_abilities),
    (lambda s: 7, _ask_beyond),
    (lambda s: 1 if s.is_first else 5, _thank),
    (lambda s: 1 if s.is_first else 5, _remark),
    (lambda s: 8 if s.is_last and not s.is_first else 0.3, _leave),
)

_PAIRS: Final = tuple(product(range(LARGEST_SUM + 1), repeat=2))
_SMALL: Final = tuple(pair for pair in _PAIRS if sum(pair) <= LARGEST_SUM)
_LARGE: Final = tuple(pair for pair in _PAIRS if sum(pair) > LARGEST_SUM)
_NAMES_COMMAND: Final = re.compile("command |wizard-edge ")
_VALUES: Final[dict[Fact, tuple[str, ...]]] = {
    "name": phrases.NAMES,
    "colour": phrases.COLOURS,
    "town": phrases.TOWNS,
}
_TELL: Final[dict[Fact, tuple[str, ...]]] = {
    "name": phrases.TELL_NAME,
    "colour": phrases.TELL_COLOUR,
    "town": phrases.TELL_TOWN,
}
_CHANGE: Final[dict[Fact, tuple[str, ...]]] = {
    "name": phrases.RENAME,
    "colour": phrases.RECOLOUR,
    "town": phrases.MOVE,
}
_ASK: Final[dict[Fact, tuple[str, ...]]] = {
    "name": phrases.ASK_NAME,
    "colour": phrases.ASK_COLOUR,
    "town": phrases.ASK_TOWN,
}
_POSSESSED: Final[dict[Fact, str]] = {
    "name": "your name",
    "colour": "your favourite colour",
    "town": "your town",
}

_ME: Final = "I am the wizard-edge apprentice, a tiny demo model."
_ABILITIES: Final = (
    "I can remember your name, colour and town, add small numbers "
    "and explain the commands of wizard-edge."
)
_IDENTITY: Final[tuple[tuple[tuple[str, ...], str, *tuple[str, ...]], ...]] = (
    (phrases.WHO, _ME, "I am the wizard-edge apprentice"),
    (phrases.WHO, _ME, "I am the wizard-edge apprentice"),
    (phrases.ARE_YOU, f"No. {_ME}", "No", "I am the wizard-edge apprentice"),
    (phrases.ARE_YOU_APPRENTICE, f"Yes. {_ME}", "Yes", "apprentice"),
    (phrases.MAKER, "The wizard-edge project trained me as a demo.", "wizard-edge"),
    (phrases.SIZE, "I am tiny: about 4 million parameters.", "4 million"),
)
