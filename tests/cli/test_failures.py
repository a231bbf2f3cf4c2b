from __future__ import annotations

import errno

import click
import pytest

from wizard_edge.cli._failures import Failure, explain
from wizard_edge.errors import Corrupt, UnknownModel

CASES = [
    pytest.param(
        UnknownModel("13c", near=["13b", "30b"]),
        Failure(3, "unknown_model", "unknown model '13c'", "did you mean 13b or 30b?"),
        id="ours with a hint",
    ),
    pytest.param(
        Corrupt("m.gguf", "no magic", where="offset 0"),
        Failure(6, "corrupt", "m.gguf is damaged at offset 0: no magic"),
        id="ours without",
    ),
    pytest.param(
        click.BadParameter("'x' is not a valid integer."),
        Failure(2, "usage", "invalid value: 'x' is not a valid integer"),
        id="click",
    ),
    pytest.param(
        KeyboardInterrupt(), Failure(130, "interrupted", "interrupted"), id="Ctrl-C"
    ),
    pytest.param(click.Abort(), Failure(130, "interrupted", "interrupted"), id="abort"),
    pytest.param(
        OSError(errno.ENOSPC, "No space left on device", "/x/y"),
        Failure(7, "not_enough", "no space left on device: /x/y"),
        id="disk full",
    ),
    pytest.param(
        PermissionError(errno.EACCES, "Permission denied", b"/x/\xff"),
        Failure(5, "refused", "permission denied: /x/\udcff"),
        id="no permission",
    ),
    pytest.param(
        MemoryError(), Failure(7, "not_enough", "not enough memory"), id="memory"
    ),
    pytest.param(
        OSError(errno.EIO, "Input/output error"),
        Failure(
            1,
            "bug",
            "OSError: [Errno 5] Input/output error",
            "this is a bug, please report it with the output of the same command "
            "with -v",
        ),
        id="anything else",
    ),
]


@pytest.mark.parametrize(("error", "expected"), CASES)
def test_what_a_person_is_told(error: BaseException, expected: Failure) -> None:
    assert explain(error) == expected


def test_the_json_shape() -> None:
    assert Failure(3, "not_found", "no", "yes").as_dict() == {
        "error": {"code": 3, "kind": "not_found", "message": "no", "hint": "yes"}
    }
