"""A SHA-256 that is put down and taken up again equals one that was not."""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wizard_edge import hashing
from wizard_edge.hashing import PlainSha256, ResumableSha256, can_resume, new_sha256

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = bytes(range(256)) * 3
CONTINUE = """
import sys
from wizard_edge.hashing import ResumableSha256
hasher = ResumableSha256.resume(sys.argv[1])
hasher.update(bytes.fromhex(sys.argv[2]))
print(hasher.hexdigest())
"""

needs_libcrypto = pytest.mark.skipif(not can_resume(), reason="no libcrypto here")


@pytest.fixture
def fresh_search() -> Iterator[None]:
    """Look for libcrypto anew in this test and after it."""
    hashing._libcrypto.cache_clear()
    yield
    hashing._libcrypto.cache_clear()


@pytest.fixture
def without_libcrypto(fresh_search: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no library be found."""
    monkeypatch.setattr(hashing, "_candidates", lambda: ["no-such-library.so"])


@needs_libcrypto
@given(st.lists(st.binary(max_size=300), max_size=6))
def test_pieces_with_a_saved_state_between_equal_hashlib(pieces: list[bytes]) -> None:
    hasher = ResumableSha256()

    for piece in pieces:
        hasher.update(piece)
        hasher = ResumableSha256.resume(hasher.save())

    whole = b"".join(pieces)
    assert hasher.hexdigest() == hashlib.sha256(whole).hexdigest()
    assert hasher.count == len(whole)


@needs_libcrypto
@pytest.mark.parametrize("split", [0, 1, 55, 56, 63, 64, 65, 128, 768])
def test_another_process_goes_on(split: int) -> None:
    hasher = ResumableSha256()
    hasher.update(SAMPLE[:split])

    run = subprocess.run(
        [sys.executable, "-c", CONTINUE, hasher.save(), SAMPLE[split:].hex()],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )

    assert run.stdout.strip() == hashlib.sha256(SAMPLE).hexdigest()


@needs_libcrypto
def test_a_count_beyond_four_gigabytes_survives() -> None:
    """The bit count has a carry into its second word."""
    count = (1 << 32) + 7
    text = f"sha256-state-1:{count}:{'0' * 64}:{'ab' * 7}"
    state = f"{text}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    hasher = ResumableSha256.resume(state)
    hasher.update(b"\xab" * 3)

    assert hasher.count == count + 3
    assert (hasher._context.bits_high, hasher._context.bits_low) == (8, 80)
    assert hasher.save().startswith(f"sha256-state-1:{count + 3}:{'0' * 64}:abab")


@needs_libcrypto
@pytest.mark.parametrize(
    "data",
    [
        bytearray(SAMPLE),
        memoryview(SAMPLE),
        memoryview(bytearray(SAMPLE)),
        memoryview(b"x" + SAMPLE)[1:],
        memoryview(bytearray(SAMPLE)).cast("I"),
        memoryview(SAMPLE).cast("I"),
        b"",
        bytearray(),
        memoryview(b""),
        memoryview(bytes((1 << 20) + 1)),
    ],
    ids=[
        "bytearray",
        "read-only view",
        "writable view",
        "view with an offset",
        "view of words",
        "read-only view of words",
        "no bytes",
        "empty bytearray",
        "empty view",
        "view longer than a piece",
    ],
)
def test_every_kind_of_buffer(data: bytes | bytearray | memoryview) -> None:
    hasher = ResumableSha256()

    hasher.update(data)

    assert hasher.hexdigest() == hashlib.sha256(data).hexdigest()


@needs_libcrypto
def test_a_digest_on_the_way_disturbs_nothing() -> None:
    hasher = ResumableSha256()

    hasher.update(b"half")
    early = hasher.hexdigest()
    hasher.update(b" and half")

    assert early == hashlib.sha256(b"half").hexdigest()
    assert hasher.hexdigest() == hashlib.sha256(b"half and half").hexdigest()


@needs_libcrypto
def test_a_state_is_text_of_one_line() -> None:
    hasher = ResumableSha256()
    hasher.update(b"abc")

    # The words are the initial hash value. Source: FIPS 180-4, section 5.3.3.
    assert hasher.save().rpartition(":")[0] == (
        "sha256-state-1:3:6a09e667bb67ae853c6ef372a54ff53a"
        "510e527f9b05688c1f83d9ab5be0cd19:616263"
    )


def _state(count: str, words: str, pending: str) -> str:
    text = f"sha256-state-1:{count}:{words}:{pending}"
    return f"{text}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


MALFORMED = {
    "empty": "",
    "prose": "hello",
    "another tag": _state("0", "0" * 64, "").replace("state-1", "state-2"),
    "no check": f"sha256-state-1:0:{'0' * 64}:",
    "wrong check": _state("0", "0" * 64, "")[:-1] + "g",
    "trailing newline": _state("0", "0" * 64, "") + "\n",
    "negative count": _state("-1", "0" * 64, ""),
    "leading zero": _state("00", "0" * 64, ""),
    "count too large": _state(str(1 << 61), "0" * 64, ""),
    "words too short": _state("0", "0" * 63, ""),
    "upper case": _state("0", "A" * 64, ""),
    "pending does not fit": _state("3", "0" * 64, "00" * 4),
    "pending too long": _state("64", "0" * 64, "00" * 64),
    "odd digits": _state("1", "0" * 64, "000"),
}


@needs_libcrypto
@pytest.mark.parametrize("state", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_state_is_refused(state: str) -> None:
    with pytest.raises(ValueError, match="SHA-256 state"):
        ResumableSha256.resume(state)


@needs_libcrypto
def test_a_state_with_any_digit_changed_is_refused() -> None:
    hasher = ResumableSha256()
    hasher.update(SAMPLE[:100])
    state = hasher.save()

    for place, digit in enumerate(state):
        changed = state[:place] + ("1" if digit != "1" else "2") + state[place + 1 :]
        with pytest.raises(ValueError, match="SHA-256 state"):
            ResumableSha256.resume(changed)


@needs_libcrypto
def test_the_hash_is_the_one_that_can_be_saved() -> None:
    assert isinstance(new_sha256(), ResumableSha256)


@pytest.mark.usefixtures("without_libcrypto")
def test_without_libcrypto_the_hash_cannot_be_saved() -> None:
    hasher = new_sha256()
    hasher.update(memoryview(SAMPLE))

    assert not can_resume()
    assert hasher.save() is None
    assert isinstance(hasher, PlainSha256)
    assert hasher.hexdigest() == hashlib.sha256(SAMPLE).hexdigest()


@pytest.mark.usefixtures("without_libcrypto")
def test_without_libcrypto_a_state_is_refused() -> None:
    with pytest.raises(ValueError, match="no libcrypto"):
        ResumableSha256.resume(_state("0", "0" * 64, ""))


@needs_libcrypto
@pytest.mark.usefixtures("fresh_search")
def test_a_library_with_another_struct_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Shifted(ctypes.Structure):
        _fields_ = (("first", ctypes.c_uint32), *hashing._Context._fields_)

    monkeypatch.setattr(hashing, "_Context", Shifted)

    assert not can_resume()
