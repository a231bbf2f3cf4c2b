"""What `--low-memory` stands for: a bundle of load options for small machines.

Each of them can be said by itself, and then wins. docs/low-memory.md has what it
saves and what it costs.
"""

from __future__ import annotations

from collections.abc import Mapping

# Fields of `LoadOptions`. Unpacked matrices are the mapped file itself, which the
# system takes back and reads again where memory is short; a rearranged copy is not.
# Below 128 tokens a step saves 3 MB of 161, and reads the prompt slower (measured,
# 0.1 B model, docs/low-memory.md).
LOW_MEMORY: Mapping[str, object] = {
    "default_context": 2048,
    "kv_type": "q8_0",
    "batch": 128,
    "repack": False,
    "mmap": True,
    "mlock": False,
}


def with_low_memory(given: Mapping[str, object]) -> dict[str, object]:
    """Return load options that save memory; what is `given` stays as it is.

    Without flash attention there is no quantized KV cache, so whoever switches it off
    keeps the default type.
    """
    bundle = dict(LOW_MEMORY)
    if given.get("flash_attention") is False:
        del bundle["kv_type"]
    return {**bundle, **given}
