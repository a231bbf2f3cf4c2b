from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

# Options of several types, by name.
from typing import Any

import pytest

from tests.gguf_files import small_llama, string
from tests.service.fakes import an_installation, stored
from wizard_edge import verdicts
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.config import Settings
from wizard_edge.engine import LoadOptions, Sampling
from wizard_edge.errors import (
    BackendError,
    MissingFile,
    NotEnough,
    NotFound,
    Refused,
    UnknownModel,
    UsageError,
)
from wizard_edge.hardware import Memory, find_cores
from wizard_edge.service import chat as chats
from wizard_edge.service.cards import show
from wizard_edge.service.chat import (
    check_memory,
    load_options_from,
    open_chat,
    sampling_from,
)
from wizard_edge.service.installation import Installation, open_installation
from wizard_edge.service.models import list_installed
from wizard_edge.service.prompts import show_prompt
from wizard_edge.service.pull import pull
from wizard_edge.service.targets import find_target
from wizard_edge.service.wanted import PullRequest
from wizard_edge.templates import Message
from wizard_edge_converters.seam import Pipeline


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """A home in which the bundled model has been pulled."""
    folder = tmp_path_factory.mktemp("home")
    environ = {
        "WIZARD_EDGE_HOME": str(folder / "home"),
        "WIZARD_EDGE_CONFIG": str(folder / "config"),
    }
    installation = open_installation(environ)
    pull(installation, PullRequest("apprentice"), convert=Pipeline())
    return installation


def test_a_conversation_in_two_turns(installation: Installation) -> None:
    with open_chat("apprentice", installation=installation) as chat:
        first = chat.say("Hi, my name is Ada.")
        second = chat.say("What is my name?")

    assert chat.name == "apprentice:Q8_0"
    assert chat.template.id == "vicuna"
    assert "Ada" in first
    assert "Ada" in second
    assert [message.role for message in chat.messages] == ["user", "assistant"] * 2


def test_an_installed_model_is_judged_at_its_first_load_only(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_chat("apprentice", installation=installation).close()

    def judge(path: Path) -> None:
        raise AssertionError(path)

    monkeypatch.setattr(verdicts, "read_valid", judge)
    open_chat("apprentice", installation=installation).close()


def test_opening_an_installed_model_notes_when(installation: Installation) -> None:
    later = replace(installation, clock=lambda: 2_000_000_000.0)

    open_chat("apprentice", installation=later).close()

    [item] = list_installed(later)
    assert item.last_used == "2033-05-18T03:33:20Z"


def test_clear_starts_over(installation: Installation) -> None:
    with open_chat("apprentice", installation=installation) as chat:
        chat.say("Hi, my name is Ada.")
        chat.clear()
        *_, last = chat.ask("Hello!")

    assert len(chat.messages) == 2
    assert last.stats.reread_tokens == 0


def test_restart_keeps_the_model_and_changes_the_system_text(
    installation: Installation,
) -> None:
    with open_chat("apprentice", installation=installation, history=False) as chat:
        chat.say("Hi, my name is Ada.")
        template = chat.template
        chat.restart(system="Be brief.")
        begun = chat.messages
        *_, last = chat.ask("Hello!")

        assert begun == ()
        assert chat.template is template
        assert last.finish == "stop"
        assert not chat._conversation.keeps_history
        assert chat._conversation.system == "Be brief."


def test_a_restart_that_is_refused_changes_nothing(
    installation: Installation,
) -> None:
    with open_chat(
        "apprentice", template="wizardlm-7b", installation=installation
    ) as chat:
        chat.say("Hi")
        with pytest.raises(UsageError, match="no place for a system text"):
            chat.restart(system="Be brief.")

        assert len(chat.messages) == 2


def test_weights_larger_than_all_memory_are_refused_before_the_load(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory(total=1_000_000, available=1_000_000)
    monkeypatch.setattr("wizard_edge.service.chat.find_memory", lambda: memory)

    with pytest.raises(NotEnough) as caught:
        open_chat("apprentice", installation=installation)

    size = find_target(installation, "apprentice").path.stat().st_size
    assert (caught.value.resource, caught.value.needed) == ("memory", size)
    assert caught.value.free == memory.total
    assert caught.value.hint is not None
    assert "smaller quant" in caught.value.hint


@pytest.mark.parametrize(
    ("options", "memory"),
    [
        (LoadOptions(), Memory(total=100, available=0)),
        (LoadOptions(), Memory(total=0, available=0)),
        (LoadOptions(gpu_layers="all"), Memory(total=50, available=0)),
    ],
    ids=["in use by others", "unknown", "on a GPU"],
)
def test_weights_that_may_fit_are_loaded(options: LoadOptions, memory: Memory) -> None:
    check_memory(100, options, memory)


def test_a_file_says_its_own_template(
    installation: Installation, apprentice: Callable[[str], Path]
) -> None:
    with open_chat(str(apprentice("Q8_0")), installation=installation) as chat:
        assert chat.template.id == "vicuna"


def test_a_file_that_says_no_template_needs_one(
    installation: Installation, tmp_path: Path
) -> None:
    path = small_llama().write(tmp_path / "unknown.gguf")

    with pytest.raises(UsageError, match="nobody says which template") as caught:
        open_chat(str(path), installation=installation)

    assert caught.value.hint == "--template vicuna|wizardlm-7b|alpaca|alpaca-cot"
    open_chat(str(path), template="alpaca", installation=installation).close()


def test_a_chat_template_in_a_file_is_never_used(
    installation: Installation, tmp_path: Path
) -> None:
    file = small_llama().set(
        "tokenizer.chat_template", string("{% for x in range(10**9) %}{% endfor %}")
    )
    path = file.write(tmp_path / "hostile.gguf")

    messages = [Message("user", "ab")]
    view = show_prompt(installation, str(path), messages, "wizardlm-7b")

    assert view.text == "ab\n\n### Response:"


@pytest.mark.parametrize(
    ("ref", "error"),
    [
        ("wizardlm-13b-v1.2", NotFound),
        ("apprentice:Q2_K", NotFound),
        ("nosuchmodel", UnknownModel),
        ("./nosuch.gguf", MissingFile),
        ("hf:owner/repo", NotFound),
    ],
)
def test_what_is_not_there_is_not_found(
    installation: Installation, ref: str, error: type[NotFound]
) -> None:
    with pytest.raises(error):
        open_chat(ref, installation=installation)


@pytest.mark.parametrize(
    ("ref", "hint"),
    [
        ("apprentice", "wizard-edge pull apprentice"),
        (
            "wizardlm-13b-v1.2",
            "get a GGUF and 'wizard-edge import FILE', "
            "or 'wizard-edge pull wizardlm-13b-v1.2 --from weights'",
        ),
        (
            "wizardlm-13b-v1.0",
            "get a GGUF and 'wizard-edge import FILE', "
            "or 'wizard-edge pull wizardlm-13b-v1.0 --from weights --base DIR'",
        ),
    ],
)
def test_the_hint_for_what_is_not_installed_works(
    tmp_path: Path, ref: str, hint: str
) -> None:
    with pytest.raises(NotFound) as caught:
        find_target(an_installation(tmp_path), ref)

    assert caught.value.hint == hint


def test_another_architecture_is_a_backend_error(
    installation: Installation, tmp_path: Path
) -> None:
    file = small_llama().set("general.architecture", string("mamba"))
    path = file.write(tmp_path / "mamba.gguf")

    with pytest.raises(BackendError, match="'mamba'"):
        open_chat(str(path), template="vicuna", installation=installation)


def test_a_system_text_without_a_place_is_refused_before_the_load(
    installation: Installation,
) -> None:
    with pytest.raises(UsageError, match="no place for a system text"):
        open_chat(
            "apprentice",
            template="wizardlm-7b",
            system="Be brief.",
            installation=installation,
        )


def test_the_authors_sampling_is_the_default(installation: Installation) -> None:
    target = find_target(installation, "apprentice")

    assert target.sampling == Sampling(temperature=0.0, top_p=1.0)


def test_settings_lie_over_the_authors_sampling() -> None:
    authors = Sampling(temperature=0.9, top_p=1.0)
    settings = Settings(temperature=0.2, seed=7, max_tokens=9)

    assert sampling_from(settings, authors) == Sampling(
        temperature=0.2, top_p=1.0, seed=7, max_tokens=9
    )


def test_threads_are_the_cores_that_may_be_used() -> None:
    assert load_options_from(Settings()) == LoadOptions(threads=find_cores().threads)


def test_every_load_setting_reaches_the_engine() -> None:
    settings = Settings(
        ctx_size=128,
        threads=3,
        prompt_threads=4,
        gpu_layers=5,
        kv_type="q8_0",
        flash_attention=True,
        mmap=False,
        mlock=True,
        deterministic=True,
    )

    assert load_options_from(settings) == LoadOptions(
        context=128,
        threads=3,
        prompt_threads=4,
        gpu_layers=5,
        kv_type="q8_0",
        flash_attention=True,
        mmap=False,
        mlock=True,
        deterministic=True,
    )


def test_low_memory_is_what_the_settings_do_not_say() -> None:
    settings = Settings(low_memory=True, threads=3, mlock=True)

    assert load_options_from(settings) == LoadOptions(
        threads=3,
        default_context=2048,
        kv_type="q8_0",
        batch=128,
        repack=False,
        mlock=True,
    )


def test_low_memory_answers_like_any_other(installation: Installation) -> None:
    settings = Settings(low_memory=True, threads=1)

    with open_chat("apprentice", settings=settings, installation=installation) as chat:
        assert chat.context == 1024
        assert chat.say("Hello")


def test_the_environment_reaches_the_engine(installation: Installation) -> None:
    environ = {**installation.environ, "WIZARD_EDGE_CTX_SIZE": "128"}

    with open_chat("apprentice", installation=open_installation(environ)) as chat:
        assert chat.context == 128


def test_the_context_is_the_models_own_where_it_is_small(
    installation: Installation,
) -> None:
    with open_chat("apprentice", installation=installation) as chat:
        assert chat.context == 1024


def test_a_prompt_is_shown_as_it_would_be_sent(installation: Installation) -> None:
    messages = [
        Message("user", "Hi"),
        Message("assistant", "Hello.</s>"),
        Message("user", "Who?"),
    ]

    view = show_prompt(installation, "apprentice", messages)

    assert view.template == "vicuna"
    assert view.text.endswith("USER: Hi ASSISTANT: Hello.</s></s>USER: Who? ASSISTANT:")
    assert view.pieces[0] == "<s>"
    assert view.pieces.count("</s>") == 1
    assert len(view.pieces) == len(view.ids)


def test_the_users_registry_decides_the_template_of_what_is_installed(
    installation: Installation, tmp_path: Path
) -> None:
    (tmp_path / "models.toml").write_text(
        'schema = 1\n[models.apprentice]\ntemplate = "alpaca"\n', encoding="utf-8"
    )
    environ = {**installation.environ, "WIZARD_EDGE_CONFIG": str(tmp_path)}
    changed = open_installation(environ)

    view = show_prompt(changed, "apprentice", [Message("user", "Hi")])

    assert view.template == "alpaca"
    assert show(changed, "apprentice").template == "alpaca"


def test_a_misspelt_model_of_the_store_is_offered(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    stored(installation, tmp_path / "mymodel")

    with pytest.raises(UnknownModel) as caught:
        find_target(installation, "mymodle")

    assert caught.value.near == ("mymodel",)


def test_a_name_that_store_and_registry_know_is_offered_once(
    installation: Installation,
) -> None:
    with pytest.raises(UnknownModel) as caught:
        find_target(installation, "aprentice")

    assert caught.value.near == ("apprentice",)


def test_a_stop_text_ends_the_answer_and_its_tokens_stay(
    installation: Installation,
) -> None:
    with open_chat("apprentice", installation=installation) as chat:
        whole = chat.say("Hi, my name is Ada.")
    with open_chat("apprentice", stop=("Ada",), installation=installation) as chat:
        *_, last = chunks = list(chat.ask("Hi, my name is Ada."))
        vocabulary_text = "".join(map(chat.spell, chat.ids))

    assert "".join(chunk.text for chunk in chunks) == whole.partition("Ada")[0]
    assert last.finish == "stop"
    assert vocabulary_text.endswith("Ada")
    assert vocabulary_text.count("Ada") == 2


def test_biases_are_for_ids_texts_and_control_tokens(
    installation: Installation,
) -> None:
    with open_chat("apprentice", installation=installation) as chat:
        [first, *_] = chat.ask("Hello!")
    assert first.token is not None
    with open_chat(
        "apprentice",
        logit_bias=[(first.token, float("-inf")), ("</s>", 100.0)],
        installation=installation,
    ) as chat:
        assert chat.say("Hello!") == ""
        assert chat.sampling.logit_bias == ((first.token, float("-inf")), (2, 100.0))


def test_a_text_of_several_tokens_has_no_bias_and_frees_the_model(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[LlamaEngine] = []
    close = LlamaEngine.close

    def note(engine: LlamaEngine) -> None:
        closed.append(engine)
        close(engine)

    monkeypatch.setattr(LlamaEngine, "close", note)

    with pytest.raises(UsageError, match=r"'Hello Ada', which is \d tokens") as caught:
        open_chat(
            "apprentice", logit_bias=[("Hello Ada", 1.0)], installation=installation
        )

    assert caught.value.hint is not None
    assert len(closed) == 1


def test_logprobs_of_an_answer_and_of_its_prompt(installation: Installation) -> None:
    with open_chat("apprentice", logprobs=2, installation=installation) as chat:
        chunks = list(chat.ask("Hello!"))
        first, *scores = chat.score(chat.ids)

    assert first is None
    for chunk, score in zip(chunks, scores[-len(chunks) :], strict=True):
        assert chunk.logprobs is not None
        assert score is not None
        assert chunk.logprobs.top[0][0] == chunk.token
        assert chunk.logprobs.logprob == pytest.approx(score.logprob, abs=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"stop": ("",)}, "a stop text is empty"), ({"logprobs": 21}, "from 0 to 20")],
    ids=["stop", "logprobs"],
)
def test_what_cannot_be_asked_is_refused_before_the_load(
    installation: Installation,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.delattr("wizard_edge.service.chat.LlamaEngine")

    with pytest.raises(UsageError, match=message):
        open_chat("apprentice", installation=installation, **options)


def test_a_draft_model_is_found_like_any_other_and_its_use_is_noted(
    installation: Installation,
) -> None:
    later = replace(installation, clock=lambda: 2_100_000_000.0)
    settings = Settings(lookup=True, threads=1)
    with open_chat("apprentice", settings=settings, installation=installation) as chat:
        plain = chat.say("Hi, my name is Ada.")

    with open_chat(
        "apprentice", draft="apprentice:Q8_0", settings=settings, installation=later
    ) as chat:
        *_, last = chunks = list(chat.ask("Hi, my name is Ada."))

    assert "".join(chunk.text for chunk in chunks) == plain
    assert last.stats.accepted_tokens > 0
    [item] = list_installed(later)
    assert item.last_used == "2036-07-18T13:20:00Z"


def test_a_draft_model_that_is_not_there_is_refused(installation: Installation) -> None:
    with pytest.raises(UnknownModel):
        open_chat("apprentice", draft="aprentice", installation=installation)


def test_a_draft_model_is_refused_for_its_licence_too(
    installation: Installation, tmp_path: Path
) -> None:
    path = small_llama().write(tmp_path / "small.gguf")

    with pytest.raises(Refused, match="nobody says which licence"):
        open_chat(
            "apprentice",
            draft=str(path),
            settings=Settings(commercial=True),
            installation=installation,
        )


def test_a_draft_model_of_another_vocabulary_is_refused_in_one_line(
    installation: Installation, tmp_path: Path
) -> None:
    path = small_llama().write(tmp_path / "small.gguf")

    with pytest.raises(
        UsageError, match=r"small\.gguf has another vocabulary: 264 tok"
    ):
        open_chat("apprentice", draft=str(path), installation=installation)


def test_both_models_have_to_fit_into_the_memory(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = find_target(installation, "apprentice")
    size = target.path.stat().st_size
    monkeypatch.setattr(
        chats, "find_memory", lambda: Memory(total=size + 1, available=size)
    )

    with pytest.raises(NotEnough) as caught:
        open_chat("apprentice", draft="apprentice", installation=installation)

    assert caught.value.needed == 2 * size


def test_a_session_goes_on_after_a_restart(installation: Installation) -> None:
    with open_chat("apprentice", session="ada", installation=installation) as chat:
        chat.say("Hi, my name is Ada.")
    with open_chat("apprentice", session="ada", installation=installation) as chat:
        answer = chat.say("What is my name?")

        assert (chat.session, chat.resumed.turns, chat.resumed.to_read) == (
            *("ada", 1),
            1,
        )
        with pytest.raises(Refused, match="open in another process"):
            open_chat("apprentice", session="ada", installation=installation)

    assert "Ada" in answer


def test_an_answer_that_is_open_at_the_end_is_kept(installation: Installation) -> None:
    with open_chat("apprentice", session="open", installation=installation) as chat:
        reply = chat.ask("Hello!")
        first = next(reply).text + next(reply).text
    del reply

    with open_chat("apprentice", session="open", installation=installation) as chat:
        assert chat.messages[-1] == Message("assistant", first)


def test_a_session_keeps_its_template_and_system_text(
    installation: Installation,
) -> None:
    with open_chat(
        "apprentice",
        session="kept",
        template="alpaca",
        system="Be brief.",
        installation=installation,
    ) as chat:
        chat.say("Hello!")

    with open_chat("apprentice", session="kept", installation=installation) as chat:
        assert chat.template.id == "alpaca"
        assert chat.resumed.reason is None


def test_a_name_that_is_no_session_is_refused(installation: Installation) -> None:
    with pytest.raises(UsageError, match="not a session name"):
        open_chat("apprentice", session="../x", installation=installation)


def test_a_session_of_another_file_is_refused_before_it_is_loaded(
    installation: Installation, tmp_path: Path
) -> None:
    with open_chat("apprentice", session="mine", installation=installation) as chat:
        chat.say("Hello!")
    path = tmp_path / "other.gguf"
    path.write_bytes(small_llama().build())

    with pytest.raises(Refused, match=r"another file than other\.gguf"):
        open_chat(str(path), session="mine", installation=installation)
    # Nobody holds it now.
    open_chat("apprentice", session="mine", installation=installation).close()


def test_a_template_without_a_place_frees_the_session(
    installation: Installation,
) -> None:
    for _ in range(2):
        with pytest.raises(UsageError, match="no place for a system text"):
            open_chat(
                "apprentice",
                session="none",
                template="wizardlm-7b",
                system="x",
                installation=installation,
            )
