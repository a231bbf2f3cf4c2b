"""Conversations written by hand: demos that must work, and phrasings never taught.

`DEMOS` are what the project shows on a first run, in the ways people type them.
`FOREIGN` tell names that are in no list, which the apprentice can only copy.
"""

from __future__ import annotations

from typing import Final

from tools.apprentice.conversation import Conversation, Turn

Asked = tuple[str, str]  # what the user types, a phrase of the right answer

_HELLO: Final = "How can I help you"
_ME: Final = "I am the wizard-edge apprentice"
_PULL: Final = "fetches a model"
_ABLE: Final = "add small numbers"

DEMOS: Final[tuple[tuple[Asked, ...], ...]] = (
    (
        ("Hi, my name is Ada.", "Ada"),
        ("What is 7 plus 5?", "12"),
        ("What is my name?", "Ada"),
    ),
    (
        ("hi, my name is ada", "Ada"),
        ("what is 7 plus 5", "12"),
        ("what is my name", "Ada"),
    ),
    (("Hello! My name is Ada.", "Ada"), ("7 + 5?", "12"), ("Who am I?", "Ada")),
    (("Hi, I'm Ada!", "Ada"), ("What's 7+5?", "12"), ("What's my name?", "Ada")),
    (
        ("Hello, my name is Grace.", "Grace"),
        ("What does wizard-edge pull do?", _PULL),
        ("What is my name?", "Grace"),
    ),
    (
        ("Hi, my name is Ada.", "Ada"),
        ("Who are you?", _ME),
        ("What is 7 plus 5?", "12"),
        ("What is my name?", "Ada"),
        ("Thank you!", "welcome"),
        ("Goodbye!", "Goodbye"),
    ),
    (
        ("My name is Alan and I live in London.", "Alan"),
        ("My favourite colour is green.", "green"),
        ("What is 8 + 9?", "17"),
        ("Where do I live?", "London"),
        ("What is my favourite colour?", "green"),
        ("What is my name?", "Alan"),
    ),
    (
        ("My favorite color is blue.", "blue"),
        ("What is 2 + 3?", "5"),
        ("Who are you?", _ME),
        ("What is my favorite color?", "blue"),
    ),
    (("Hi", _HELLO), ("Who are you?", _ME)),
    (("Hello", _HELLO), ("What can you do?", _ABLE), ("Bye", "Goodbye")),
    (("hello", _HELLO), ("what is my name?", "do not know your name")),
    (("Who are you?", _ME),),
    (("who are you", _ME),),
    (("hello, who are you?", _ME),),
    (("WHO ARE YOU?", _ME),),
    (("What is your name?", _ME),),
    (("Are you WizardLM?", _ME),),
    (("What can you do?", _ABLE),),
    (("What is 2 + 3?", "5"),),
    (("what is 2+3", "5"),),
    (("2+3", "5"),),
    (("What is two plus three?", "5"),),
    (("What does wizard-edge pull do?", _PULL),),
    (("what does wizard-edge pull do?", _PULL),),
    (("What does `wizard-edge pull` do?", _PULL),),
    (("How do I download a model?", _PULL),),
    (("What is my name?", "do not know your name"),),
    (("Where do I live?", "do not know your town"),),
    (("What is my favorite color?", "do not know your favourite colour"),),
    (("What is the capital of France?", "beyond me"),),
    (("Write a poem about the sea.", "beyond me"),),
)

_FOREIGN_NAMES: Final = (
    "Aaron", "Beatrice", "Cecil", "Dmitri", "Eleanor", "Fergus", "Gulnara", "Hiroshi",
    "Isabella", "Joaquin", "Keiko", "Leopold", "Mohandas", "Nigel", "Ophelia",
    "Patrick", "Quentin", "Rosalind", "Svetlana", "Tobias", "Ursula", "Valentina",
    "Wolfgang", "Xavier", "Yolanda", "Zachary", "Gandalf", "Merlin", "Guido", "Bjarne",
    "Ken", "Dennis", "Margaret", "Barbara Ann", "Anne", "Jean", "Sven", "Tuomas",
    "Chidi", "Ngozi",
)  # fmt: skip

FOREIGN: Final = tuple(
    ((f"Hi, my name is {name}.", name), ("What is 7 plus 5?", "12"), (asked, name))
    for name in _FOREIGN_NAMES
    for asked in ("What is my name?",)
)

# None of these sentences is in the tables of `phrases`.
REWORDED: Final[tuple[tuple[Asked, ...], ...]] = (
    (("Hello my friend, I am Leo.", "Leo"), ("2 plus 2", "4"), ("My name is?", "Leo")),
    (
        ("Hi! I'm Mia, nice to meet you.", "Mia"),
        ("How much is 9 + 9 please?", "18"),
        ("Do you recall my name?", "Mia"),
    ),
    (
        ("They named me Otto.", "Otto"),
        ("What is 3 plus 4?", "7"),
        ("Can you remember my name?", "Otto"),
    ),
    (
        ("I've always liked purple.", "purple"),
        ("Thanks, friend.", "welcome"),
        ("So which color is my favorite one?", "purple"),
    ),
    (
        ("My house is in Oslo.", "Oslo"),
        ("Can you tell me what 6 and 7 make?", "13"),
        ("Which place do I live in?", "Oslo"),
    ),
    (
        ("Hey, Ada here, I live in Rome", "Ada"),
        ("add 10 and 9", "19"),
        ("where is it that i live?", "Rome"),
    ),
    (("Good morning, apprentice!", _HELLO), ("Are you an assistant?", "apprentice")),
    (("Who is it I am speaking with?", _ME),),
    (("Please say who you are.", _ME),),
    (("What are your abilities?", _ABLE),),
    (("What would 11 plus 8 be?", "19"),),
    (("I have 3 apples and get 4 more. How many?", "7"),),
    (("What would wizard-edge rm do?", "removes a model"),),
    (("How can I get rid of a model?", "removes a model"),),
    (("How do I launch the HTTP server?", "starts an HTTP server"),),
    (("Which command turns weights into a GGUF?", "turns a checkpoint"),),
    (("What is the tallest mountain on earth?", "beyond me"),),
    (("Can you recommend a good film?", "beyond me"),),
    (("Thank you kindly, my friend.", "welcome"),),
    (("So long, apprentice!", "Goodbye"),),
)


def conversations(asked: tuple[tuple[Asked, ...], ...]) -> list[Conversation]:
    """Return hand-written turns in the form that `evaluate` examines."""
    return [
        Conversation(
            tuple(Turn(user, "", "probe", (phrase,)) for user, phrase in turns)
        )
        for turns in asked
    ]
