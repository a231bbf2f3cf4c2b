"""How sentences are joined, mistyped and invented.

Standard library only; knows the word lists, not what a turn is about.
"""

from __future__ import annotations

from random import Random
from typing import Final

from tools.apprentice import phrases

_PROPER: Final = {word for name in phrases.TOWNS for word in name.split()} | {
    *phrases.NAMES
}
_KNOWN: Final = sorted(_PROPER)
_OPENERS: Final = (
    "Ok", "Great", "Hi", "Hello", "Hey", "Thanks", "Thank you", "Please", "So", "Well",
    "Now", "Good", "Nice", "Great!", "Thanks!", "Ok.", "Hello!", "Hi!", "And", "Yes",
)  # fmt: skip
_CLOSERS: Final = (
    " please", ", please", ", apprentice", ", my friend", " then", " now",
)  # fmt: skip
_STARTS: Final = (
    "b", "br", "c", "ch", "d", "dr", "f", "g", "gr", "h", "j", "k", "kr", "l", "m",
    "n", "p", "pr", "r", "s", "sh", "st", "t", "th", "tr", "v", "w", "y", "z", "",
)  # fmt: skip
_VOWELS: Final = (*"aeiouaeio", "ai", "ee", "ou", "y")
_ENDS: Final = ("", "", "", *"nrlsmtdkx", "ck", "nd")


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def join(random: Random, opener: str, text: str) -> str:
    """Put an opener before a sentence: `Hi, my name is Ada.` or `Hi! My name …`."""
    if opener[-1] in "!." or random.random() < 0.3:
        stop = "" if opener[-1] in "!.," else random.choice(("!", "."))
        return f"{opener}{stop} {text}"
    comma = random.choice((",", ",", ""))
    keep = text.startswith(("I ", "I'")) or text.split()[0] in phrases.NAMES
    return f"{opener}{comma} {text if keep else text[0].lower() + text[1:]}"


def join_facts(random: Random, said: list[str]) -> str:
    """Make one text of statements: `My name is Ada and I live in Paris.`"""
    if len(said) == 1 or random.random() < 0.4:
        return " ".join(said)
    first, second = said
    keep = second.startswith(("I ", "I'")) or second.split()[0] in _PROPER
    second = second if keep else second[0].lower() + second[1:]
    return f"{first.rstrip('.')} and {second}"


def join_questions(random: Random, asked: list[str]) -> str:
    """Make one text of two questions: `What is my name and where do I live?`"""
    if random.random() < 0.4:
        return " ".join(asked)
    first, second = asked
    return f"{first.rstrip('?.')} and {second[0].lower()}{second[1:]}"


def typed(random: Random, text: str, *, opener: bool) -> str:
    """Vary a sentence as people do: an opener, lost capitals, lost punctuation."""
    if opener and random.random() < 0.08:
        text = join(random, random.choice(_OPENERS), text)
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
    if draw < 0.20 and opener:
        return text.upper()
    if draw < 0.22:
        return text + random.choice(("!", "?", "!!", "??", "...", " :)"))
    return text


def invent(random: Random) -> str:
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
