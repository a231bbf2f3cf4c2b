"""The real huggingface_hub in a process of its own, called from a test.

A process of its own, because the library reads its environment when it is imported
and keeps caches while it lives. A call goes over as a line of JSON and its outcome
comes back as one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent.parent
# Answers each line `[name, arguments]` with `[class of the error or null, result]`.
# `HfApi` has all calls as methods, those of the module too; but for that of Xet.
LOOP = """
import json, sys
from pathlib import Path
from huggingface_hub import HfApi
from huggingface_hub.utils import disable_progress_bars
from tests.hub.client import as_json, xet_connection
disable_progress_bars()
print("[null, null]", flush=True)
for line in sys.stdin:
    name, arguments = json.loads(line)
    try:
        call = getattr(HfApi(), name, None) or globals()[name]
        outcome = [None, as_json(call(**arguments))]
    except Exception as err:
        outcome = [type(err).__name__, str(err)]
    print(json.dumps(outcome), flush=True)
"""


class HubClient:
    """huggingface_hub with an empty home; `call` returns the outcome of one method."""

    def __init__(self, endpoint: str, home: Path, **environ: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", LOOP],
            cwd=ROOT,
            env=client_environment(endpoint, home) | environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._receive() == [None, None]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Closes the pipes, at which the process ends, and waits for that.
        self._process.communicate()

    def call(self, name: str, **arguments: object) -> Any:
        """Return the result. Raises: ClientError with the class of the library's."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, arguments]) + "\n")
        self._process.stdin.flush()
        error, result = self._receive()
        if error is not None:
            raise ClientError(error, result)
        return result

    def _receive(self) -> list[Any]:
        assert self._process.stdout is not None
        received: list[Any] = json.loads(self._process.stdout.readline())
        return received


class ClientError(Exception):
    """An exception of huggingface_hub: the name of its class, and its text."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


def client_environment(endpoint: str, home: Path) -> dict[str, str]:
    """Return an environment in which the library speaks with `endpoint` alone."""
    kept = {
        name: text
        for name, text in os.environ.items()
        if not name.upper().startswith("HF_") and not name.upper().endswith("_PROXY")
    }
    return kept | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "2",
        "HF_HUB_ETAG_TIMEOUT": "2",
    }


def xet_connection(route: str) -> object:
    """Have the library ask for access to Xet's storage."""
    # Imported here: it reads its environment then.
    from huggingface_hub.utils import _xet

    file = _xet.XetFileData(file_hash="0" * 64, refresh_route=route)
    return _xet.refresh_xet_connection_info(file_data=file, headers={})


def as_json(value: object) -> object:
    """Return what of a result a test compares."""
    if isinstance(value, str | int | float | bool | None):
        return value
    if hasattr(value, "__dict__"):
        value = vars(value)
    if isinstance(value, dict):
        return {str(name): as_json(inner) for name, inner in value.items()}
    if hasattr(value, "__iter__"):
        return [as_json(inner) for inner in value]
    return str(value)
