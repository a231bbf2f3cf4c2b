from __future__ import annotations

from typing import Any

import pytest

from wizard_edge.engine import LoadOptions
from wizard_edge.errors import UsageError
from wizard_edge.low_memory import LOW_MEMORY, with_low_memory


def test_every_part_of_it_is_a_load_option() -> None:
    # Any: the names decide the types.
    options: dict[str, Any] = with_low_memory({})

    assert options == dict(LOW_MEMORY)
    assert LoadOptions(**options) != LoadOptions()


@pytest.mark.parametrize(
    ("name", "value"),
    [("kv_type", "f16"), ("batch", 512), ("repack", True), ("mlock", True)],
)
def test_what_is_said_is_stronger(name: str, value: object) -> None:
    assert with_low_memory({name: value}) == {**LOW_MEMORY, name: value}


def test_a_context_that_was_asked_for_is_taken() -> None:
    options: dict[str, Any] = with_low_memory({"context": 4096})

    assert LoadOptions(**options).context_for(8192) == 4096


@pytest.mark.parametrize(("trained", "context"), [(1024, 1024), (4096, 2048)])
def test_a_context_that_was_not_is_short(trained: int, context: int) -> None:
    options: dict[str, Any] = with_low_memory({})

    assert LoadOptions(**options).context_for(trained) == context


def test_without_flash_attention_the_cache_is_not_quantized() -> None:
    options: dict[str, Any] = with_low_memory({"flash_attention": False})

    assert LoadOptions(**options).kv_type == "f16"


@pytest.mark.parametrize("batch", [0, 513])
def test_a_step_is_no_larger_than_its_buffers(batch: int) -> None:
    with pytest.raises(UsageError, match="batch must be from 1 to 512"):
        LoadOptions(batch=batch)
