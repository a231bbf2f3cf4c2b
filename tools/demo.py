"""The first minute: pull the bundled model and talk to it, with figures.

Run by `make demo`. A second run finds the model in the store and goes straight to
the conversation.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from wizard_edge import open_chat
from wizard_edge.engine import Stats

MODEL = "apprentice"
QUESTIONS = (
    "Hi, my name is Ada.",
    "What is 7 plus 5?",
    "What is my name?",
)


def main() -> int:
    command = Path(sys.executable).with_name("wizard-edge")
    pulled = subprocess.run([command, "pull", MODEL], check=False)
    if pulled.returncode != 0:
        return pulled.returncode
    with open_chat(MODEL) as chat:
        print(f"\n{MODEL}, template {chat.template.id}; it is tiny and only shows")
        print("that everything from checkpoint to chat works.\n")
        for question in QUESTIONS:
            print(f"USER: {question}\nASSISTANT: ", end="", flush=True)
            stats = Stats()
            for chunk in chat.ask(question):
                print(chunk.text, end="", flush=True)
                stats = chunk.stats
            print(f"\n  [{report(stats)}]\n")
    return 0


def report(stats: Stats) -> str:
    return (
        f"{stats.new_tokens} tokens at {stats.generate_rate:.0f} tokens/s; "
        f"prompt {stats.prompt_tokens} tokens, {stats.cached_tokens} of them from "
        f"the cache, {stats.reread_tokens} re-evaluated"
    )


if __name__ == "__main__":
    sys.exit(main())
