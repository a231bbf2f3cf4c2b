import pytest

from wizard_edge.errors import UnknownQuant, UsageError
from wizard_edge_converters.options import ConvertOptions


def test_unknown_quants_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownQuant) as caught:
        ConvertOptions(quants=("Q5_Z",))

    assert "Q4_K_M" in caught.value.known


@pytest.mark.parametrize(
    "options",
    [
        {"template": "chatml"},
        {"licenses": ("two words",)},
        {"licenses": ("",)},
        {"name": "two\nlines"},
        {"name": ""},
        {"source_revision": "\x1b[31m"},
        {"threads": 0},
    ],
    ids=repr,
)
def test_senseless_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        ConvertOptions(**options)  # type: ignore[arg-type]
