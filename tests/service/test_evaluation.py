"""Measuring the bundled model, installed and as a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.gguf_files import small_llama
from tests.service.fakes import NOW, an_installation
from tests.test_evaluate import PROSE
from wizard_edge import __version__
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.engine import KV_TYPES, LoadOptions
from wizard_edge.errors import (
    MissingFile,
    NotEnough,
    NotFound,
    UsageError,
    WizardEdgeError,
)
from wizard_edge.evaluate import Evaluation, evaluate, figure_names
from wizard_edge.hardware import Memory
from wizard_edge.names import ModelName, RelPath, Sha256
from wizard_edge.progress import ProgressEvent
from wizard_edge.receipts import EvaluatedOn, Origin, Receipt, StoredFile
from wizard_edge.service import evaluation as evaluation_module
from wizard_edge.service.evaluation import Evaluated, evaluate_model
from wizard_edge.service.installation import Installation
from wizard_edge.store import Installed

Apprentice = Callable[[str], Path]

NAME = ModelName.parse("apprentice")
# What the converter measured, which is not for eval to touch.
ERRORS = {"relative_error.Q2_K": 0.25, "rms_error.Q2_K": 0.125}
TEXT_SHA256 = hashlib.sha256(PROSE.encode()).hexdigest()


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_bytes(PROSE.encode())
    return path


def install(installation: Installation, path: Path, quant: str) -> Installed:
    """Put a model into the store, with figures that the converter would leave."""
    content = path.read_bytes()
    file = RelPath.parse(f"apprentice.{quant}.gguf")
    digest = Sha256.parse(hashlib.sha256(content).hexdigest())
    receipt = Receipt(
        model=NAME,
        quant=quant,
        files=(StoredFile(file, len(content), digest),),
        origin=Origin("bundled"),
        licenses=("apache-2.0",),
        template="vicuna",
        architecture="llama",
        context=1024,
        parameters=4_000_000,
        tool="wizard-edge 0",
        created="2026-01-02T03:04:05Z",
        quality=ERRORS,
    )
    with installation.store.open_slot(NAME, file) as slot:
        slot.temp.write_bytes(content)
        return installation.store.commit(receipt, [slot])


def test_a_file_is_measured_and_nothing_is_written(
    tmp_path: Path, apprentice: Apprentice, text: Path
) -> None:
    installation = an_installation(tmp_path)
    path = apprentice("Q2_K")

    found = evaluate_model(installation, str(path), text, context=64, threads=1)

    with LlamaEngine(path, LoadOptions(context=64, threads=1)) as engine:
        expected = evaluate(engine, PROSE, context=64)
    assert found == Evaluated(
        model=path.name,
        reference=None,
        text_sha256=Sha256.parse(TEXT_SHA256),
        evaluation=expected,
        recorded=False,
    )
    assert not installation.home.root.exists()


def test_a_smaller_kv_cache_is_told_from_the_whole_one(
    tmp_path: Path, apprentice: Apprentice, text: Path
) -> None:
    path = str(apprentice("F16"))
    installation = an_installation(tmp_path)

    found = {
        kv_type: evaluate_model(
            installation,
            path,
            text,
            reference=path,
            context=64,
            threads=1,
            kv_type=kv_type,
        ).evaluation.comparison
        for kv_type in KV_TYPES
    }

    divergences = [
        comparison.kl_divergence.value for comparison in found.values() if comparison
    ]
    # The same cache differs in nothing, a coarser one in more.
    assert divergences[0] == 0
    assert 0 < divergences[1] < divergences[2]


def test_figures_of_a_smaller_kv_cache_are_not_the_files(
    tmp_path: Path, apprentice: Apprentice, text: Path
) -> None:
    installation = an_installation(tmp_path)
    before = install(installation, apprentice("Q2_K"), "Q2_K").receipt

    found = evaluate_model(
        installation, "apprentice", text, context=64, threads=1, kv_type="q8_0"
    )

    assert not found.recorded
    assert installation.store.find(NAME, "Q2_K").receipt == before


def test_figures_of_an_installed_model_go_into_its_receipt(
    tmp_path: Path, apprentice: Apprentice, text: Path
) -> None:
    installation = an_installation(tmp_path)
    before = install(installation, apprentice("Q2_K"), "Q2_K").receipt
    other = install(installation, apprentice("Q8_0"), "Q8_0").receipt

    found = evaluate_model(
        installation,
        "apprentice:Q2_K",
        text,
        reference="apprentice:Q8_0",
        context=64,
        chunks=3,
        threads=1,
    )

    after = installation.store.find(NAME, "Q2_K").receipt
    assert after == replace(
        before,
        quality={**ERRORS, **found.evaluation.figures()},
        evaluated_on=EvaluatedOn(
            text_sha256=Sha256.parse(TEXT_SHA256),
            context=64,
            chunks=3,
            tool=f"wizard-edge {__version__}",
            evaluated="2026-01-02T03:04:05Z",
            reference="apprentice:Q8_0",
            reference_sha256=other.sha256,
        ),
    )
    assert set(after.quality or {}) == {*ERRORS, *figure_names()}
    assert (found.recorded, NOW) == (True, installation.clock())
    assert installation.store.find(NAME, "Q8_0").receipt == other
    assert {item.last_used() for item in installation.store.installed()} == {NOW}


def test_figures_of_the_last_evaluation_go_as_a_whole(
    tmp_path: Path, apprentice: Apprentice, text: Path
) -> None:
    """A divergence must not stand beside a perplexity of another text."""
    installation = an_installation(tmp_path)
    install(installation, apprentice("Q8_0"), "Q8_0")
    evaluate_model(
        installation,
        "apprentice",
        text,
        reference="apprentice",
        context=64,
        chunks=1,
        threads=1,
    )

    evaluate_model(installation, "apprentice", text, context=32, chunks=1, threads=1)

    receipt = installation.store.find(NAME).receipt
    assert set(receipt.quality or {}) == {*ERRORS, "perplexity", "perplexity_error"}
    assert receipt.evaluated_on is not None
    assert receipt.evaluated_on.reference is None


def test_a_reference_that_is_a_file_is_known_by_its_hash(
    tmp_path: Path, apprentice: Apprentice, text: Path
) -> None:
    installation = an_installation(tmp_path)
    install(installation, apprentice("Q8_0"), "Q8_0")
    path = apprentice("Q2_K")
    events: list[ProgressEvent] = []

    evaluate_model(
        installation,
        "apprentice",
        text,
        reference=str(path),
        context=32,
        chunks=1,
        threads=1,
        progress=events.append,
    )

    found = installation.store.find(NAME).receipt.evaluated_on
    assert found is not None
    assert found.reference == path.name
    assert found.reference_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert list(dict.fromkeys(event.stage for event in events)) == [
        "hash",
        "load",
        "eval",
    ]


def test_a_byte_order_mark_is_no_text(
    tmp_path: Path, apprentice: Apprentice, text: Path
) -> None:
    marked = tmp_path / "marked.txt"
    marked.write_bytes(b"\xef\xbb\xbf" + PROSE.encode())
    installation = an_installation(tmp_path)

    def measured(path: Path) -> Evaluation:
        model = str(apprentice("Q8_0"))
        found = evaluate_model(
            installation, model, path, context=32, chunks=1, threads=2
        )
        return found.evaluation

    assert measured(marked) == measured(text)


def test_settings_that_trade_accuracy_do_not_count(
    tmp_path: Path, apprentice: Apprentice, text: Path
) -> None:
    plain = an_installation(tmp_path)
    traded = an_installation(
        tmp_path,
        WIZARD_EDGE_KV_TYPE="q4_0",
        WIZARD_EDGE_FLASH_ATTENTION="yes",
        WIZARD_EDGE_CTX_SIZE="999",
        WIZARD_EDGE_PROMPT_THREADS="1",
    )

    first, second = (
        evaluate_model(item, str(apprentice("Q8_0")), text, context=64, threads=1)
        for item in (plain, traded)
    )

    assert first == second


def test_an_interrupted_evaluation_leaves_the_receipt(
    tmp_path: Path, apprentice: Apprentice, text: Path
) -> None:
    installation = an_installation(tmp_path)
    before = install(installation, apprentice("Q8_0"), "Q8_0")

    def interrupt(event: ProgressEvent) -> None:
        if event.stage == "eval" and event.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_model(
            installation, "apprentice", text, context=64, threads=1, progress=interrupt
        )

    assert installation.store.find(NAME) == before


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"model": "./none.gguf"}, MissingFile, "none.gguf"),
        ({"model": "apprentice"}, NotFound, "apprentice is not installed"),
        ({"reference": "13b"}, NotFound, "wizardlm-13b-v1.2 is not installed"),
        ({"text": "none.txt"}, MissingFile, "none.txt"),
        ({"text": "."}, UsageError, "not a regular file"),
        ({"text": "bytes.txt"}, UsageError, "bytes.txt is not UTF-8 text: byte 2"),
        ({"text": "short.txt"}, UsageError, "needs at least 1024"),
        ({"context": "4"}, UsageError, "ctx-size must be from 8"),
        ({"chunks": "0"}, UsageError, "chunks must be from 1"),
        ({"threads": "0"}, UsageError, "threads must be from 1"),
        ({"reference": "./small.gguf"}, UsageError, "have different vocabularies"),
    ],
)
def test_what_cannot_be_measured(
    tmp_path: Path,
    apprentice: Apprentice,
    text: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: dict[str, str],
    error: type[WizardEdgeError],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bytes.txt").write_bytes(b"ab\xff")
    Path("short.txt").write_text("Hello!")
    small_llama().write(Path("small.gguf"))
    context = "512" if words.get("text") == "short.txt" else "64"

    with pytest.raises(error, match=message):
        evaluate_model(
            an_installation(tmp_path),
            words.get("model", str(apprentice("Q8_0"))),
            Path(words.get("text", text)),
            reference=words.get("reference"),
            context=int(words.get("context", context)),
            chunks=int(words.get("chunks", "1")),
            threads=int(words.get("threads", "1")),
        )


def test_both_models_have_to_fit_into_memory(
    tmp_path: Path, apprentice: Apprentice, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, reference = str(apprentice("Q2_K")), str(apprentice("Q8_0"))
    room = Path(reference).stat().st_size
    monkeypatch.setattr(evaluation_module, "find_memory", lambda: Memory(room, room))

    with pytest.raises(NotEnough) as caught:
        evaluate_model(
            an_installation(tmp_path), model, text, reference=reference, context=64
        )

    assert caught.value.needed == Path(model).stat().st_size + room
    assert caught.value.hint == "take a smaller reference, such as Q8_0"


def test_what_is_recorded_is_plain_json(
    tmp_path: Path, apprentice: Apprentice, text: Path
) -> None:
    installation = an_installation(tmp_path)
    item = install(installation, apprentice("Q8_0"), "Q8_0")
    evaluate_model(installation, "apprentice", text, context=32, chunks=1, threads=1)

    table = json.loads(item.receipt_path.read_text())

    assert table["schema"] == 1
    assert table["evaluated_on"]["text_sha256"] == TEXT_SHA256
    assert isinstance(table["quality"]["perplexity"], float)
