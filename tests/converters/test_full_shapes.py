"""Plans of full size from a config alone, against the sizes that the registry has.

Most of those are estimates from what was listed in three digits; 14 are exact.
"""

from __future__ import annotations

import pytest

from tests.converters.full_shapes import MODELS, planned_size

PUBLISHED: dict[tuple[str, str], int] = {
    (str(spec.name), variant.quant): variant.size
    for spec in MODELS.values()
    for variant in spec.variants
    if variant.size is not None
}
# What llama.cpp mixes otherwise today than in the autumn of 2023, and by how much:
# Q2_K takes two bits for attention's v and the feed-forward too, Q4_K_S and Q3_K_M
# give more bits to some tensors of models with shared heads.
CHANGED = {"Q2_K": 0.14, "Q4_K_S": 0.005, "Q3_K_M": 0.003}


@pytest.mark.parametrize("name", MODELS)
def test_a_plan_needs_a_config_and_no_weights(name: str) -> None:
    assert planned_size(MODELS[name], "Q4_K_M") > 0


@pytest.mark.parametrize(
    "name", [name for name, quant in PUBLISHED if quant == "Q4_K_M"]
)
def test_the_size_of_q4_k_m_is_that_of_the_registry(name: str) -> None:
    published = PUBLISHED[name, "Q4_K_M"]
    # One is known to three digits only.
    tolerance = 0.005 if published % 10**8 == 0 else 0.001

    assert planned_size(MODELS[name], "Q4_K_M") == pytest.approx(
        published, rel=tolerance
    )


EXACT = [
    (str(spec.name), variant.quant)
    for spec in MODELS.values()
    for variant in spec.variants
    if variant.size_exact and variant.quant not in CHANGED
]


@pytest.mark.parametrize(("name", "quant"), EXACT)
def test_sizes_that_were_read_to_the_byte_are_met(name: str, quant: str) -> None:
    """But for what a vocabulary of our own takes less or more in the header."""
    published = PUBLISHED[name, quant]

    assert abs(planned_size(MODELS[name], quant) - published) < 150_000


@pytest.mark.parametrize("quant", ["Q8_0", "Q6_K", "Q5_K_M", "Q4_0", *CHANGED])
def test_other_quants_differ_only_where_the_mix_has_changed(quant: str) -> None:
    name = "wizardcoder-python-34b-v1.0"
    tolerance = CHANGED.get(quant, 0.0001)

    planned = planned_size(MODELS[name], quant)

    assert planned == pytest.approx(PUBLISHED[name, quant], rel=tolerance)
    if quant in CHANGED:
        assert planned != pytest.approx(PUBLISHED[name, quant], rel=0.0001)
