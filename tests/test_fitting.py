from __future__ import annotations

from dataclasses import replace

import pytest

from tests.machines import LAPTOP, PI, WORKSTATION, machine
from wizard_edge.fitting import Candidate, Choice, Machine, choose, fit_all
from wizard_edge.hardware import Memory
from wizard_edge.models import ModelSpec
from wizard_edge.registry import Registry

REGISTRY = Registry.load()
CONTEXT = 4096


def spec(name: str) -> ModelSpec:
    return REGISTRY.find(name)


def candidates(model: ModelSpec) -> list[Candidate]:
    return [Candidate(item.quant, item.size or 0) for item in model.variants]


def choice(name: str, machine: Machine, context: int = CONTEXT) -> Choice:
    model = spec(name)
    return choose(model.shape, candidates(model), machine, context=context)


def chosen(name: str, machine: Machine, context: int = CONTEXT) -> str | None:
    found = choice(name, machine, context).chosen
    return found.quant if found else None


@pytest.mark.parametrize(
    ("name", "machine", "quant"),
    [
        ("wizardmath-7b-v1.1", PI, "Q4_K_M"),
        ("wizardcoder-15b-v1.0", PI, "Q2_K"),
        ("wizardlm-13b-v1.2", PI, None),
        ("wizardmath-7b-v1.1", LAPTOP, "Q6_K"),
        ("wizardlm-13b-v1.2", LAPTOP, "Q4_K_M"),
        ("wizardlm-70b-v1.0", LAPTOP, None),
        ("wizardmath-7b-v1.1", WORKSTATION, "Q8_0"),
        ("wizardlm-13b-v1.2", WORKSTATION, "Q6_K"),
        ("wizardlm-70b-v1.0", WORKSTATION, "Q4_K_M"),
    ],
)
def test_a_machine_gets_the_quant_that_suits_it(
    name: str, machine: Machine, quant: str | None
) -> None:
    assert chosen(name, machine) == quant


def test_the_choice_says_why_in_one_sentence() -> None:
    assert choice("wizardlm-13b-v1.2", LAPTOP).why == (
        "Q4_K_M is the fastest that keeps the quality: with 4096 tokens of context it "
        "takes 11.9 GB of 14.0 GB of RAM, about 4.0 tokens/s"
    )


def test_every_other_quant_says_why_not() -> None:
    found = choice("wizardlm-13b-v1.2", LAPTOP)

    assert {fit.quant: fit.why for fit in found.rejected} == {
        "Q8_0": "needs 17.8 GB of RAM, 14.0 GB may be used",
        "Q6_K": "needs 14.7 GB of RAM, 14.0 GB may be used",
        "Q5_K_M": "fits, but only 3.5 tokens/s",
        "Q5_K_S": "fits, but only 3.6 tokens/s",
        "Q5_0": "fits, but only 3.6 tokens/s",
        "Q4_K_S": "fits, but Q4_K_M is better and fits too",
        "Q4_0": "fits, but Q4_K_M is better and fits too",
        "Q3_K_L": "fits, but Q4_K_M is better and fits too",
        "Q3_K_M": "fits, but Q4_K_M is better and fits too",
        "Q3_K_S": "fits, but Q4_K_M is better and fits too",
        "Q2_K": "fits, but Q4_K_M is better and fits too",
    }


def test_where_the_speed_is_unknown_the_best_of_the_band_is_taken() -> None:
    assert chosen("wizardmath-7b-v1.1", machine(67)) == "Q6_K"


def test_a_small_model_gets_q8_0_unmeasured() -> None:
    files = [Candidate("Q8_0", 900_000_000), Candidate("Q6_K", 700_000_000)]

    found = choose(None, files, machine(8), context=CONTEXT)

    assert found.chosen is not None
    assert found.chosen.quant == "Q8_0"


def test_nothing_above_q8_0_is_chosen() -> None:
    files = [Candidate("F32", 400), Candidate("F16", 200), Candidate("BF16", 200)]

    found = choose(spec("7b").shape, files, WORKSTATION, context=CONTEXT)

    assert found.chosen is None
    assert found.why == "there is nothing to choose from at or below Q8_0"


def test_the_only_quant_is_taken_if_it_fits() -> None:
    for quant in ("Q8_0", "Q2_K", "IQ3_XXS"):
        found = choose(
            spec("7b").shape, [Candidate(quant, 10**9)], LAPTOP, context=CONTEXT
        )

        assert found.chosen is not None
        assert found.chosen.quant == quant
        assert found.rejected == ()


def test_no_fit_names_the_smallest_and_what_it_takes() -> None:
    assert choice("wizardlm-13b-v1.2", PI).why == (
        "no quant fits: Q2_K, the smallest, takes 9.4 GB of RAM with 4096 tokens of "
        "context, and 7.1 GB of 8.4 GB may be used"
    )


def test_a_smaller_context_makes_room() -> None:
    assert chosen("wizardlm-13b-v1.2", PI, 512) == "Q3_K_M"


def test_the_disk_counts_too() -> None:
    small = replace(LAPTOP, free_disk=5 * 10**9)

    found = choice("wizardmath-7b-v1.1", small)

    assert found.chosen is not None
    assert found.chosen.quant == "Q4_K_M"
    assert found.rejected[0].why == "needs 7.8 GB of disk, 5.0 GB are free"


def test_what_is_stored_needs_no_disk() -> None:
    model = spec("wizardmath-7b-v1.1")
    full = replace(LAPTOP, free_disk=0)
    files = [replace(item, stored=True) for item in candidates(model)]

    fits = fit_all(model.shape, files, full, context=CONTEXT)

    assert [fit.quant for fit in fits if not fit.fits] == []


def test_memory_that_others_use_now_is_told_and_does_not_decide() -> None:
    busy = replace(LAPTOP, memory=Memory(LAPTOP.memory.total, 2 * 10**9))

    found = choice("wizardlm-13b-v1.2", busy)

    assert found.chosen is not None
    assert found.chosen.quant == "Q4_K_M"
    assert found.why.endswith(", other programs leave 2.0 GB of RAM now")


def test_without_a_shape_the_need_is_bounded_by_the_size() -> None:
    model = spec("wizardlm-13b-v1.2")
    known = choose(model.shape, candidates(model), WORKSTATION, context=CONTEXT)

    guessed = choose(None, candidates(model), WORKSTATION, context=CONTEXT)

    assert known.chosen is not None
    assert guessed.chosen is not None
    assert guessed.chosen.quant == known.chosen.quant
    assert 1 <= guessed.chosen.kv_cache / known.chosen.kv_cache < 1.4
