from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wizard_edge._llama.backend import ContextSettings
from wizard_edge._llama.engine import LlamaEngine
from wizard_edge.engine import LoadOptions


def test_what_a_context_was_made_with_is_told(
    apprentice: Callable[[str], Path],
) -> None:
    options = LoadOptions(
        context=256, threads=1, prompt_threads=2, kv_type="q8_0", deterministic=True
    )

    with LlamaEngine(apprentice("Q8_0"), options) as engine:
        assert engine.settings == ContextSettings(
            context=256,
            threads=1,
            prompt_threads=2,
            # llama.cpp takes no more than the context at once.
            batch=256,
            step=1,
            flash_attention=True,
            kv_type="q8_0",
        )
