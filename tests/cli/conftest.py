"""A command line with an empty home of its own, and a model with scripted answers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest
from click.testing import CliRunner, Result

from tests.gguf_files import small_llama, string
from tests.scripted import ScriptedEngine
from wizard_edge.cli._root import root
from wizard_edge.conversation import Conversation
from wizard_edge.engine import Sampling
from wizard_edge.gguf import KEY_TEMPLATE
from wizard_edge.names import ModelName, RelPath, Sha256
from wizard_edge.paths import Home
from wizard_edge.receipts import Origin, Receipt, StoredFile
from wizard_edge.service.chat import Chat
from wizard_edge.store import Installed, Store
from wizard_edge.templates import find_template

# Bytes of the installed model, whatever its metadata grows to.
SIZE = 30_016


class Cli(Protocol):
    """Runs a command line as a user would type it."""

    def __call__(self, *words: str, input: str | bytes | None = None) -> Result: ...


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def cli(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WIZARD_EDGE_HOME", str(home))
    monkeypatch.setenv("WIZARD_EDGE_CONFIG", str(tmp_path / "config"))
    # Nobody listens there: no test reaches the real hub.
    if "HF_ENDPOINT" not in os.environ:
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def run(*words: str, input: str | bytes | None = None) -> Result:
        return CliRunner().invoke(root, words, input=input)

    return run


@pytest.fixture
def installed(home: Path) -> Callable[..., Installed]:
    """Return a function that puts a small model into the store."""

    def install(
        name: str = "tiny", quant: str = "F32", template: str | None = "vicuna"
    ) -> Installed:
        model = small_llama().set(KEY_TEMPLATE, string(template or "none"))
        model.set("test.padding", string(""))
        model.set("test.padding", string(" " * (SIZE - len(model.build()))))
        content = model.build()
        file = RelPath.parse(f"{name}.{quant}.gguf")
        receipt = Receipt(
            model=ModelName.parse(name),
            quant=quant,
            files=(
                StoredFile(
                    file,
                    len(content),
                    Sha256.parse(hashlib.sha256(content).hexdigest()),
                ),
            ),
            origin=Origin("local"),
            licenses=("apache-2.0",),
            template=template,
            architecture="llama",
            context=64,
            parameters=5_000,
            tool="wizard-edge 0",
            created="2026-01-02T03:04:05Z",
        )
        store = Store(Home(home))
        with store.open_slot(receipt.model, file) as slot:
            slot.temp.write_bytes(content)
            return store.commit(receipt, [slot])

    return install


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ScriptedEngine]:
    """Return a function after whose call every model gives these answers.

    Its result has the prompts; `opened` on it what `open_chat` was called with.
    """

    def script(*answers: str, template: str = "vicuna") -> ScriptedEngine:
        engine = ScriptedEngine(*answers)

        def open_chat(ref: str, **options: object) -> Chat:
            system = options["system"]
            assert system is None or isinstance(system, str)
            conversation = Conversation(engine, find_template(template), system=system)
            logprobs = options["logprobs"]
            assert logprobs is None or isinstance(logprobs, int)
            return Chat(ref, engine, conversation, Sampling(logprobs=logprobs))

        monkeypatch.setattr("wizard_edge.service.chat.open_chat", open_chat)
        return engine

    return script
