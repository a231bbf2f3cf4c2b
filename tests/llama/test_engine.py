"""The engine over the real llama.cpp, with the bundled model."""

from __future__ import annotations

import _thread
import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

# Any: what the construction of an engine takes besides.
from typing import Any

import numpy as np
import pytest

from tests.gguf_files import small_llama
from wizard_edge._llama import offloading
from wizard_edge._llama.backend import LlamaBackend
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge._llama.library import listen
from wizard_edge.backend import Span
from wizard_edge.conversation import Conversation
from wizard_edge.engine import MAX_SEED, Chunk, LoadOptions, Sampling
from wizard_edge.errors import BackendError, UsageError
from wizard_edge.offload import Device
from wizard_edge.progress import ProgressEvent
from wizard_edge.prompt import begin, encode, encode_messages
from wizard_edge.templates import TEMPLATES

VICUNA = TEMPLATES["vicuna"]
WILD = Sampling(temperature=5, seed=7, max_tokens=24)


@pytest.fixture(scope="module")
def engine(apprentice: Callable[[str], Path]) -> Iterator[LlamaEngine]:
    with LlamaEngine(apprentice("Q8_0"), LoadOptions(threads=1)) as loaded:
        yield loaded


@pytest.fixture
def prompt(engine: LlamaEngine) -> list[int]:
    return prompt_for(engine, "Hello!")


def prompt_for(engine: LlamaEngine, text: str) -> list[int]:
    return begin(engine.vocabulary) + encode(VICUNA.open(text), engine.vocabulary)


def tokens(chunks: Iterator[Chunk] | list[Chunk]) -> list[int | None]:
    return [chunk.token for chunk in chunks]


def test_an_answer_ends_with_the_end_token(
    engine: LlamaEngine, prompt: list[int]
) -> None:
    *before, last = engine.generate(prompt, Sampling())

    assert last.token == engine.vocabulary.eos
    assert last.finish == "stop"
    assert last.text == ""
    assert {chunk.finish for chunk in before} == {None}


def test_counts_run_along(engine: LlamaEngine, prompt: list[int]) -> None:
    chunks = list(engine.generate(prompt, Sampling(max_tokens=5)))

    assert [chunk.stats.new_tokens for chunk in chunks] == [1, 2, 3, 4, 5]
    assert chunks[-1].finish == "length"
    assert chunks[-1].stats.prompt_tokens == len(prompt)
    assert chunks[-1].stats.prompt_s > 0
    assert chunks[-1].stats.generate_s >= chunks[0].stats.generate_s


def test_a_prompt_is_read_once(engine: LlamaEngine) -> None:
    conversation = Conversation(engine, VICUNA)

    stats = [
        list(conversation.ask(question, Sampling()))[-1].stats
        for question in ("Hi, my name is Ada.", "What is 7 plus 5?", "Who are you?")
    ]

    assert [turn.reread_tokens for turn in stats] == [0, 0, 0]
    for before, after in pairwise(stats):
        assert after.cached_tokens == before.prompt_tokens + before.new_tokens - 1


def test_the_history_is_what_the_whole_conversation_renders_to(
    engine: LlamaEngine,
) -> None:
    conversation = Conversation(engine, VICUNA)
    for question in ("Hello!", "Who are you?"):
        list(conversation.ask(question, Sampling()))

    assert list(conversation.ids) == encode_messages(
        VICUNA, conversation.messages, engine.vocabulary
    )


def test_the_cache_changes_no_answer(engine: LlamaEngine, prompt: list[int]) -> None:
    cold = tokens(engine.generate(prompt, Sampling()))
    list(engine.generate(prompt_for(engine, "What is 2 plus 3?"), Sampling()))
    list(engine.generate(prompt, Sampling()))

    warm = tokens(engine.generate(prompt, Sampling()))

    assert warm == cold


def test_a_seed_gives_the_same_answer_again(
    engine: LlamaEngine, prompt: list[int]
) -> None:
    first, second = (tokens(engine.generate(prompt, WILD)) for _ in range(2))
    other = tokens(engine.generate(prompt, replace(WILD, seed=8)))

    assert first == second
    assert other != first


def test_without_a_seed_answers_differ(engine: LlamaEngine, prompt: list[int]) -> None:
    sampling = replace(WILD, seed=None)

    answers = {tuple(tokens(engine.generate(prompt, sampling))) for _ in range(5)}

    assert len(answers) > 1


def test_top_k_of_one_is_greedy(engine: LlamaEngine, prompt: list[int]) -> None:
    greedy = tokens(engine.generate(prompt, Sampling(max_tokens=10)))

    one = Sampling(temperature=1.5, top_k=1, seed=3, max_tokens=10)

    assert tokens(engine.generate(prompt, one)) == greedy


def test_a_cancelled_prompt_yields_no_token(
    engine: LlamaEngine, prompt: list[int]
) -> None:
    [chunk] = engine.generate(prompt[:-1], Sampling(), cancelled=lambda: True)

    assert (chunk.token, chunk.finish) == (None, "cancelled")


def test_cancelling_ends_the_answer_with_the_next_token(
    engine: LlamaEngine, prompt: list[int]
) -> None:
    seen: list[Chunk] = []
    answer = engine.generate(prompt, Sampling(), cancelled=lambda: len(seen) >= 3)

    # Not list(): what was seen decides when to cancel.
    for chunk in answer:
        seen.append(chunk)  # noqa: PERF402

    assert len(seen) == 4
    assert seen[-1].finish == "cancelled"


def test_text_is_never_half_a_character(engine: LlamaEngine) -> None:
    """Byte tokens come one by one; their text comes when the letter is whole."""
    grammar = 'root ::= "北京🧙é"'
    prompt = prompt_for(engine, "x")

    chunks = list(engine.generate(prompt, Sampling(grammar=grammar)))

    assert "".join(chunk.text for chunk in chunks) == "北京🧙é"
    assert "\ufffd" not in "".join(chunk.text for chunk in chunks)
    assert any(chunk.text == "" and chunk.finish is None for chunk in chunks)


def test_a_json_schema_shapes_the_answer(
    engine: LlamaEngine, prompt: list[int]
) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
    }

    answer = engine.generate(prompt, Sampling(json_schema=json.dumps(schema)))

    assert isinstance(json.loads("".join(c.text for c in answer))["ok"], bool)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (Sampling(grammar="root ::= [0-"), "not valid GBNF"),
        (Sampling(grammar='other ::= "x"'), "not valid GBNF"),
        (Sampling(json_schema="{"), "JSON schema is not usable"),
    ],
    ids=["broken", "no root", "no json"],
)
def test_a_bad_grammar_is_an_answer_and_prints_nothing(
    engine: LlamaEngine,
    prompt: list[int],
    capfd: pytest.CaptureFixture[str],
    sampling: Sampling,
    message: str,
) -> None:
    with pytest.raises(UsageError, match=message):
        engine.generate(prompt, sampling)

    assert capfd.readouterr() == ("", "")


def test_a_prompt_without_room_is_refused(engine: LlamaEngine) -> None:
    with pytest.raises(UsageError, match="the context only"):
        engine.generate([1] * engine.context, Sampling())
    with pytest.raises(UsageError, match="empty"):
        engine.generate([], Sampling())


def test_an_answer_stops_where_the_context_ends(
    apprentice: Callable[[str], Path],
) -> None:
    with LlamaEngine(apprentice("Q8_0"), LoadOptions(context=64)) as small:
        prompt = prompt_for(small, "x")
        grammar = 'root ::= "a"{200}'
        *_, last = small.generate(prompt, Sampling(grammar=grammar))

    assert last.finish == "length"
    assert last.stats.prompt_tokens + last.stats.new_tokens == 64


def test_long_prompts_are_read_in_parts(engine: LlamaEngine) -> None:
    ids = [1] + [token % 900 + 10 for token in range(700)]
    cold = tokens(engine.generate(ids, Sampling(max_tokens=3)))

    list(engine.generate(ids[:300], Sampling(max_tokens=1)))
    *_, last = answer = list(engine.generate(ids, Sampling(max_tokens=3)))

    assert tokens(answer) == cold
    assert last.stats.cached_tokens == 300


def test_threads_take_turns(engine: LlamaEngine, prompt: list[int]) -> None:
    expected = tokens(engine.generate(prompt, Sampling()))
    answers: list[list[int | None]] = []

    def ask() -> None:
        for _ in range(3):
            answers.append(tokens(engine.generate(prompt, Sampling())))

    callers = [threading.Thread(target=ask) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()

    assert answers == [expected] * 12


def test_a_second_answer_inside_the_first_waits_for_it(
    engine: LlamaEngine, prompt: list[int]
) -> None:
    expected = tokens(engine.generate(prompt, Sampling()))
    answer = engine.generate(prompt, Sampling())
    first = next(answer)

    second = tokens(engine.generate(prompt, Sampling()))

    assert second == expected
    assert [first.token, *tokens(answer)] == expected


def test_an_abandoned_answer_frees_the_engine(
    engine: LlamaEngine, prompt: list[int]
) -> None:
    next(engine.generate(prompt, Sampling()))

    assert list(engine.generate(prompt, Sampling()))


def test_closing_twice_is_fine_and_a_closed_engine_says_so(
    apprentice: Callable[[str], Path],
) -> None:
    engine = LlamaEngine(apprentice("Q8_0"))
    engine.close()
    engine.close()

    with pytest.raises(UsageError, match="closed"):
        next(engine.generate([1, 2], Sampling()))


def test_closing_in_the_middle_of_an_answer_ends_it(
    apprentice: Callable[[str], Path],
) -> None:
    engine = LlamaEngine(apprentice("Q8_0"))
    answer = engine.generate(prompt_for(engine, "Hello!"), Sampling())
    next(answer)

    engine.close()

    with pytest.raises(UsageError, match="closed"):
        next(answer)


def test_a_closed_chat_says_so_instead_of_touching_freed_memory(
    apprentice: Callable[[str], Path],
) -> None:
    engine = LlamaEngine(apprentice("Q8_0"))
    conversation = Conversation(engine, VICUNA)
    engine.close()

    with pytest.raises(UsageError, match="closed"):
        conversation.ask("Hello!", Sampling())
    with pytest.raises(UsageError, match="closed"):
        engine.generate([1, 2], Sampling(grammar='root ::= "a"'))


def test_closing_from_another_thread_does_not_wait_for_an_answer(
    apprentice: Callable[[str], Path],
) -> None:
    engine = LlamaEngine(apprentice("Q8_0"))
    answer = engine.generate(prompt_for(engine, "Hello!"), Sampling())
    next(answer)

    closer = threading.Thread(target=engine.close)
    closer.start()
    closer.join(timeout=20)

    assert not closer.is_alive()
    with pytest.raises(UsageError, match="closed"):
        list(answer)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (LoadOptions(kv_type="q8_0"), r"K \(q8_0\)"),
        (LoadOptions(kv_type="q4_0"), r"K \(q4_0\)"),
        (LoadOptions(flash_attention=True), r"flash_attn += enabled"),
        (LoadOptions(flash_attention=False), r"flash_attn += disabled"),
    ],
    ids=["q8_0", "q4_0", "flash", "plain"],
)
def test_load_options_reach_llama_cpp_and_it_answers(
    apprentice: Callable[[str], Path], options: LoadOptions, line: str
) -> None:
    with listen() as log, LlamaEngine(apprentice("Q8_0"), options) as engine:
        *_, last = Conversation(engine, VICUNA).ask("Hello!", Sampling())

    assert re.search(line, "".join(log))
    assert last.finish == "stop"


def test_flash_attention_off_and_on_agree(apprentice: Callable[[str], Path]) -> None:
    answers = []
    for flash in (False, True):
        options = LoadOptions(flash_attention=flash)
        with LlamaEngine(apprentice("F16"), options) as engine:
            prompt = prompt_for(engine, "Who are you?")
            answers.append(tokens(engine.generate(prompt, Sampling())))

    assert answers[0] == answers[1]


def test_a_repeat_penalty_sees_the_prompt(engine: LlamaEngine) -> None:
    prompt = prompt_for(engine, "What is 7 plus 5?")
    [plain] = engine.generate(prompt, Sampling(max_tokens=1))
    assert plain.token in prompt[-64:]

    [other] = engine.generate(prompt, Sampling(max_tokens=1, repeat_penalty=100))

    assert other.token != plain.token


def test_the_largest_seed_is_a_seed(engine: LlamaEngine, prompt: list[int]) -> None:
    sampling = replace(WILD, seed=MAX_SEED)

    first, second = (tokens(engine.generate(prompt, sampling)) for _ in range(2))

    assert first == second


def test_a_rate_counts_the_tokens_it_timed(
    engine: LlamaEngine, prompt: list[int]
) -> None:
    [one] = engine.generate(prompt, Sampling(max_tokens=1))

    assert one.stats.generate_s == 0
    assert one.stats.generate_rate == 0


def test_logits_of_more_than_a_batch_are_refused(engine: LlamaEngine) -> None:
    with pytest.raises(UsageError, match="not of 513"):
        engine.logits([1] * 513)


def test_blocks_of_a_score_are_the_logits_of_all_positions(
    engine: LlamaEngine,
) -> None:
    ids = [1] + [token % 900 + 10 for token in range(299)]

    whole = np.concatenate(list(engine.score(ids)))
    half = np.concatenate(list(engine.score(ids, first=150)))

    assert whole.shape == (300, engine.vocabulary.size)
    assert (whole == engine.logits(ids)).all()
    assert (half == whole[150:]).all()


def test_a_long_score_comes_in_blocks_of_a_batch(engine: LlamaEngine) -> None:
    ids = [1] + [token % 900 + 10 for token in range(999)]

    rows = [len(block) for block in engine.score(ids, first=300)]
    later = [len(block) for block in engine.score(ids, first=512)]
    *_, last = engine.score(ids, first=999)
    [chunk] = engine.generate(ids, Sampling(max_tokens=1))

    assert (rows, later) == ([512 - 300, 1000 - 512], [1000 - 512])
    assert last.argmax() == chunk.token


@pytest.mark.parametrize("count", [0, 1025])
def test_a_score_that_does_not_fit_is_refused(engine: LlamaEngine, count: int) -> None:
    with pytest.raises(UsageError, match=f"{count} tokens to score"):
        next(engine.score([1] * count))


def test_many_threads_with_bad_grammars_keep_standard_error(
    engine: LlamaEngine, prompt: list[int]
) -> None:
    before = os.fstat(2)

    def ask() -> None:
        for _ in range(20):
            with pytest.raises(UsageError):
                engine.generate(prompt, Sampling(grammar="root ::= ["))

    callers = [threading.Thread(target=ask) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()

    after = os.fstat(2)
    assert (after.st_dev, after.st_ino) == (before.st_dev, before.st_ino)


def test_what_progress_raises_ends_the_load(apprentice: Callable[[str], Path]) -> None:
    """Ctrl-C during a load arrives inside the callback of native code."""

    def interrupt(event: ProgressEvent) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LlamaEngine(apprentice("Q8_0"), progress=interrupt)


def test_loading_reports_its_progress(apprentice: Callable[[str], Path]) -> None:
    events: list[ProgressEvent] = []

    LlamaEngine(apprentice("Q8_0"), progress=events.append).close()

    assert events[-1] == ProgressEvent("load", 100, 100, "steps")


def test_llama_cpp_says_why_it_refuses_a_file(tmp_path: Path) -> None:
    """A file our reader finds sound, without a tensor that llama.cpp needs."""
    file = small_llama()
    file.tensors = [t for t in file.tensors if t.name != "blk.0.attn_q.weight"]

    with pytest.raises(BackendError, match=r"cannot load .*attn_q"):
        LlamaEngine(file.write(tmp_path / "less.gguf"))


def test_an_engine_goes_on_after_an_interrupted_score(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [1, *range(10, 300)]
    expected = engine.logits(ids)
    decode = LlamaBackend.decode

    def interrupted(
        self: LlamaBackend,
        spans: Sequence[Span],
        *,
        stopped: Callable[[], bool] | None = None,
    ) -> bool:
        _thread.interrupt_main()
        return decode(self, spans, stopped=stopped)

    monkeypatch.setattr(LlamaBackend, "decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.logits(ids)
    monkeypatch.undo()

    assert (engine.logits(ids) == expected).all()


def test_a_context_that_a_card_refuses_is_made_without_it(
    apprentice: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers that no device takes end on the processor, not the program."""
    tried: list[object] = []
    make = LlamaBackend.__init__

    def refusing(
        self: LlamaBackend, path: Path, options: LoadOptions, **more: Any
    ) -> None:
        tried.append(options.gpu_layers)
        if options.gpu_layers != 0:
            raise BackendError("out of device memory")
        make(self, path, options, **more)

    card = Device("CUDA0", "a card", "gpu", "CUDA", total=8 << 30, free=8 << 30)
    monkeypatch.setattr(offloading, "find_devices", lambda: (card,))
    monkeypatch.setattr(LlamaBackend, "__init__", refusing)

    options = LoadOptions(threads=1, context=256, gpu_layers="all")
    with LlamaEngine(apprentice("Q8_0"), options) as engine:
        *_, last = Conversation(engine, VICUNA).ask("Hello!", Sampling())

    assert last.finish == "stop"
    assert tried[-1] == 0
    assert len(tried) > 1
