"""The mean row of a grown vocabulary, bit for bit as torch computes it."""

from __future__ import annotations

import numpy as np
import pytest

from wizard_edge_converters.delta import MeanRow

torch = pytest.importorskip("torch", reason="install the extra reference")

# Rows of LLaMA's vocabulary and of small ones, columns of its models and of others.
SHAPES = [(32_000, 4096), (32_000, 5120), (32_000, 6656), (322, 256), (17, 64), (1, 8)]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_mean_row_is_that_of_torch(shape: tuple[int, int], threads: int) -> None:
    """The authors' tool takes `weight[:-1].mean(dim=0, keepdim=True)` in float32."""
    random = np.random.RandomState(7)
    rows = (random.standard_normal(shape) * 0.02).astype(np.float32)
    mean = MeanRow(*shape)
    for start in range(0, len(rows), 250):
        mean.add(rows[start : start + 250])

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        expected = torch.from_numpy(rows).mean(dim=0, keepdim=True).numpy()[0]
    finally:
        torch.set_num_threads(before)

    assert (mean.row() == expected).all()
