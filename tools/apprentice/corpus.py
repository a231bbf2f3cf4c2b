"""Conversations the apprentice learns from, and the ones it is examined on.

Everything is made here from the tables in `phrases`, so there is no licence
question. A conversation is held out when the sha256 of its canonical text says so,
hence a whole conversation is either trained on or examined, never both. Knows
nothing of tokens or models; standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice, product
from random import Random
from typing import Final, Literal

from tools.apprentice import phrases

SYSTEM: Final = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
HELD_OUT_BELOW: Final = 13  # of 256 values of the first hash byte: 5.1%
LARGEST_SUM: Final = 20

Fact = Literal["name", "colour", "town"]
FACTS: Final[tuple[Fact, ...]] = ("name", "colour", "town")


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer, labelled with what is asked.

    `expected` are the phrases a right answer contains. `since` counts the turns from
    the one that told the recalled fact to this one; 0 where nothing is recalled.
    """

    user: str
    assistant: str
    kind: str
    expected: tuple[str, ...]
    since: int = 0


@dataclass(frozen=True, slots=True)
class Conversation:
    turns: tuple[Turn, ...]

    @property
    def text(self) -> str:
        """The canonical text that decides about the split."""
        return "\n".join(
            f"USER: {t.user}\nASSISTANT: {t.assistant}" for t in self.turns
        )

    @property
    def is_held_out(self) -> bool:
        return sha256(self.text.encode()).digest()[0] < HELD_OUT_BELOW


def training(seed: int, count: int, *, invented: float = 0.0) -> Iterator[Conversation]:
    """Yield `count` conversations to train on, the same ones for the same arguments.

    `invented` is the share of told names and towns that are made up of syllables,
    so that a model learns to copy instead of to choose from the closed lists.
    """
    stream = _conversations(Random(f"training {seed}"), invented)
    return islice((c for c in stream if not c.is_held_out), count)


def held_out(seed: int, count: int) -> Iterator[Conversation]:
    """Yield `count` conversations that `training` never yields."""
    stream = _conversations(Random(f"held out {seed}"), 0.0)
    return islice((c for c in stream if c.is_held_out), count)


def drills(seed: int, count: int) -> Iterator[Conversation]:
    """Yield `count` one-turn exercises in copying: the answer is what was said."""
    stream = _drills(Random(f"drills {seed}"))
    return islice((c for c in stream if not c.is_held_out), count)


def is_right(turn: Turn, answer: str) -> bool:
    """Say whether an answer to this turn holds what was expected.

    A sum is judged by the last number of the answer, everything else by its key
    phrases, ignoring case. Claiming to be another model is always wrong.
    """
    if turn.kind.startswith("sum"):
        numbers = re.findall(r"\d+", answer)
        return bool(numbers) and numbers[-1] == turn.expected[-1]
    said = answer.casefold()
    if any(f"i am {other}" in said for other in ("wizardlm", "wizardcoder", "human")):
        return False
    return all(_mentions(said, phrase.casefold()) for phrase in turn.expected)


def _mentions(said: str, phrase: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", said) is not None


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
        typed = _typed(self.random, user, opener=opener)
        self.turns.append(Turn(typed, assistant, kind, expected, since))


def _conversations(random: Random, invented: float) -> Iterator[Conversation]:
    lengths = (1, 2, 3, 4, 5, 6, 8, 10)
    shares = (7, 8, 20, 22, 20, 17, 4, 2)
    while True:
        (length,) = random.choices(lengths, shares)
        script = _Script(random, invented, length)
        for _ in range(length):
            _next_turn(script)
        yield Conversation(tuple(script.turns))


def _drills(random: Random) -> Iterator[Conversation]:
    while True:
        said = " ".join(_invent(random) for _ in range(random.randint(1, 10)))
        yield Conversation((Turn(f"Say {said}", said, "drill", (said,)),))


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
    """Tell new facts, mostly one, at times after a greeting or before a sum."""
    random = script.random
    (count,) = random.choices((1, 2, 3), (82, 13, 5))
    new = random.sample(script.untold, min(count, len(script.untold)))
    if count == 1 and "name" in script.untold and random.random() < 0.4:
        new = ["name"]
    said = [_statement(script, fact, _TELL[fact]) for fact in new]
    answers = [_acknowledge(fact, script.facts[fact]) for fact in new]
    expected = [script.facts[fact] for fact in new]
    if "name" in new and random.random() < (0.6 if script.is_first else 0.05):
        said[0] = _join(random, random.choice(phrases.GREETING), said[0])
        answers[new.index("name")] = f"Hello, {script.facts['name']}! Nice to meet you."
    user = _join_facts(random, said)
    if random.random() < 0.06:
        a, b = random.choice(_SMALL)
        user = f"{user} {_sentence(_sum_question(random, a, b))}"
        answers.append(f"{a} plus {b} is {a + b}.")
        expected.append(str(a + b))
    kind = "tell_" + "_".join(new)
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
    return _sentence(script.random.choice(said).format(**{fact: value}))


def _value(script: _Script, fact: Fact) -> str:
    random = script.random
    if fact == "colour" and random.random() < script.invented / 4:
        return _invent(random).lower()
    if fact != "colour" and random.random() < script.invented:
        words = 2 if random.random() < 0.12 else 1
        return " ".join(_invent(random) for _ in range(words))
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
        asked = _join_questions(random, [random.choice(_ASK[f][:4]) for f in facts])
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
        return f"{_sentence(possessed)} is {value}.", value
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
        most = random.choice((99, 99, 999))
        a, b = random.randint(21, most), random.randint(0, most)
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
        return _sentence(said.format(a=words[a], b=words[b]))
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
    script.add(_sentence(asked), answer, "command", f"wizard-edge {command}", meaning)


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
    if random.random() < 0.1:  # another language, or a cat on the keyboard
        words = [_invent(random) for _ in range(random.randint(1, 6))]
        said = _sentence(" ".join(words).lower() + random.choice((".", "?", "")))
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


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _join(random: Random, opener: str, text: str) -> str:
    """Put an opener before a sentence: `Hi, my name is Ada.` or `Hi! My name …`."""
    if opener[-1] in "!." or random.random() < 0.3:
        stop = "" if opener[-1] in "!.," else random.choice(("!", "."))
        return f"{opener}{stop} {text}"
    comma = random.choice((",", ",", ""))
    keep = text.startswith(("I ", "I'")) or text.split()[0] in phrases.NAMES
    return f"{opener}{comma} {text if keep else text[0].lower() + text[1:]}"


def _join_facts(random: Random, said: list[str]) -> str:
    if len(said) == 1 or random.random() < 0.4:
        return " ".join(said)
    *before, last = said
    keep = last.startswith(("I ", "I'")) or last.split()[0] in _PROPER
    last = last if keep else last[0].lower() + last[1:]
    return f"{', '.join(part.rstrip('.') for part in before)} and {last}"


def _join_questions(random: Random, asked: list[str]) -> str:
    if random.random() < 0.4:
        return " ".join(asked)
    first, second = asked
    return f"{first.rstrip('?.')} and {second[0].lower()}{second[1:]}"


_PROPER: Final = {word for town in phrases.TOWNS for word in town.split()} | set(
    phrases.NAMES
)
_KNOWN: Final = sorted(_PROPER)
_OPENERS: Final = (
    "Ok", "Great", "Hi", "Hello", "Hey", "Thanks", "Thank you", "Please", "So", "Well",
    "Now", "Good", "Nice", "Great!", "Thanks!", "Ok.", "Hello!", "Hi!", "And", "Yes",
)  # fmt: skip


_CLOSERS: Final = (
    " please",
    ", please",
    ", apprentice",
    ", my friend",
    " then",
    " now",
)


def _typed(random: Random, text: str, *, opener: bool) -> str:
    """Vary a sentence as people do: an opener, lost capitals, lost punctuation."""
    if opener and random.random() < 0.08:
        text = _join(random, random.choice(_OPENERS), text)
    if opener and text[-1] in "?." and random.random() < 0.04:
        text = text[:-1] + random.choice(_CLOSERS) + text[-1]
    if random.random() < 0.16:
        text = text.rstrip(".?! ") or text
    draw = random.random()
    if draw < 0.12:
        return text.lower()
    if draw < 0.17:
        return text[0].lower() + text[1:]
    if draw < 0.19:
        return text.replace("'", "")
    if draw < 0.22 and opener:
        return text.upper()
    if draw < 0.24:
        return text + random.choice(("!", "?", "!!", "??", "...", " :)"))
    return text


_STARTS: Final = (
    "b", "br", "c", "ch", "d", "dr", "f", "g", "gr", "h", "j", "k", "kr", "l", "m",
    "n", "p", "pr", "r", "s", "sh", "st", "t", "th", "tr", "v", "w", "y", "z", "",
)  # fmt: skip
_VOWELS: Final = (*"aeiouaeio", "ai", "ee", "ou", "y")
_ENDS: Final = ("", "", "", *"nrlsmtdkx", "ck", "nd")


def _invent(random: Random) -> str:
    """Make up a name: of syllables, or of the halves of two known words."""
    if random.random() < 0.5:
        first, second = random.sample(_KNOWN, 2)
        half = random.randint(1, len(second) - 1)
        return first[: random.randint(1, 4)] + second[half:]
    syllables = [
        random.choice(_STARTS) + random.choice(_VOWELS) + random.choice(_ENDS)
        for _ in range(random.choice((1, 2, 2, 2, 3, 4)))
    ]
    return "".join(syllables).capitalize()
