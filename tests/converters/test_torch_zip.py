"""A `.bin` file gives its tensors' bytes, checked; a bent one gives a clear error."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.converters.checkpoints import (
    SHAPES,
    Weights,
    name,
    random_weights,
    state_dict_pickle,
    tensor_pickle,
    text,
    write_bin,
    write_torch_zip,
)
from wizard_edge.errors import CannotConvert, Corrupt, MissingFile, WizardEdgeError
from wizard_edge_converters.source_files import SourceFile
from wizard_edge_converters.torch_zip import TorchFile


@pytest.fixture
def weights() -> Weights:
    everything = random_weights(SHAPES["tied"])
    names = ["model.norm.weight", "model.layers.0.self_attn.k_proj.weight"]
    return {tensor: everything[tensor] for tensor in names}


@pytest.fixture
def path(tmp_path: Path, weights: Weights) -> Path:
    path = tmp_path / "pytorch_model.bin"
    write_bin(path, weights)
    return path


def read_all(path: Path) -> dict[str, bytes]:
    file = TorchFile(SourceFile(path), path.name)
    try:
        found = {
            tensor.name: file.read(tensor, 0, tensor.elements)
            for tensor in file.tensors
        }
        file.finish()
        return found
    finally:
        file.close()


def problem(path: Path, kind: type[WizardEdgeError] = Corrupt) -> str:
    with pytest.raises(kind) as caught:
        read_all(path)
    return caught.value.message


def one_tensor(pickled: bytes) -> bytes:
    return b"\x80\x02}" + text("w") + pickled + b"s."


def test_gives_the_bytes_of_every_tensor(path: Path, weights: Weights) -> None:
    expected = {tensor: values.tobytes() for tensor, values in weights.items()}

    assert read_all(path) == expected


def test_large_zip_files_are_read(
    path: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond 4 GiB sizes and offsets move to zip64 fields; here beyond 10 bytes."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10)
    write_bin(path, weights)
    monkeypatch.undo()
    expected = {tensor: values.tobytes() for tensor, values in weights.items()}

    assert b"PK\x06\x06" in path.read_bytes()
    assert read_all(path) == expected


def test_tensors_come_in_the_order_of_the_file(path: Path) -> None:
    file = TorchFile(SourceFile(path), path.name)

    storages = [int(tensor.storage.rpartition("/")[2]) for tensor in file.tensors]

    assert storages == sorted(storages)
    file.close()


def test_views_into_one_storage_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    whole = tensor_pickle("0", "F16", (2, 4))
    row = tensor_pickle("0", "F16", (1, 4), length=8, offset=4, strides=(9, 1))
    pickled = b"\x80\x02}" + text("all") + whole + b"s" + text("row") + row + b"s."
    write_torch_zip(path, pickled, {"0": bytes(range(16))})

    found = read_all(path)

    assert found == {"all": bytes(range(16)), "row": bytes(range(8, 16))}


def test_a_storage_is_compared_each_time_it_is_read(
    path: Path, weights: Weights
) -> None:
    """As the q and k rows of a base: looked at first, added to the delta later."""
    file = TorchFile(SourceFile(path), path.name)
    [norm] = [t for t in file.tensors if t.name == "model.norm.weight"]
    file.read(norm, 0, norm.elements)
    data = bytearray(path.read_bytes())
    data[data.index(weights["model.norm.weight"].tobytes()) + 7] ^= 1
    path.write_bytes(data)

    with pytest.raises(Corrupt, match="CRC-32"):
        file.read(norm, 0, norm.elements)

    file.close()


BAD_TENSORS = {
    "beyond its storage": tensor_pickle("0", "F16", (2, 4), length=8, offset=1),
    "a storage of 7 elements in 16 bytes": tensor_pickle("0", "F16", (7,), length=7),
    "storage '1' is missing": tensor_pickle("1", "F16", (2, 4)),
    "storage '../x' is missing": tensor_pickle("../x", "F16", (2, 4)),
}


@pytest.mark.parametrize("expected", BAD_TENSORS)
def test_a_tensor_must_lie_in_its_storage(expected: str, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_torch_zip(path, one_tensor(BAD_TENSORS[expected]), {"0": bytes(16)})

    message = problem(path)

    assert expected in message
    assert "tensor 'w'" in message


def test_a_transposed_tensor_cannot_be_converted(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    columns = tensor_pickle("0", "F16", (4, 2), strides=(1, 4))
    write_torch_zip(path, one_tensor(columns), {"0": bytes(16)})

    assert "not stored row by row" in problem(path, CannotConvert)


def test_a_changed_byte_of_a_tensor_is_noticed(path: Path, weights: Weights) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(weights["model.norm.weight"].tobytes())
    data[at + 7] ^= 1
    path.write_bytes(data)

    message = problem(path)

    assert "CRC-32" in message
    assert "archive/data/0" in message


def test_a_changed_byte_beside_a_view_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    half = tensor_pickle("0", "F16", (4,), length=8, offset=2)
    write_torch_zip(path, one_tensor(half), {"0": b"0123456789abcdef"})
    path.write_bytes(path.read_bytes().replace(b"0123456789abcdef", b"0" * 16))

    assert "CRC-32" in problem(path)


def test_a_changed_pickle_is_noticed(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"model.norm", b"model.nOrm", 1))

    assert "data.pkl" in problem(path)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_cut_file_is_noticed(path: Path, part: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])

    message = problem(path)

    assert str(path) in message
    assert "no zip directory" in message


def test_a_pickle_that_calls_is_refused(path: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    call = name("os", "system") + b"(" + text(f"touch {canary}") + b"tR"
    write_torch_zip(path, one_tensor(call), {})

    assert "os.system" in problem(path)
    assert not canary.exists()


def test_an_empty_zip_is_refused(path: Path) -> None:
    rebuild(path, lambda archive, pickled: None)

    assert "no members" in problem(path)


def test_old_torch_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "old.bin"
    path.write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.")

    assert "before 1.6" in problem(path, CannotConvert)


def test_git_lfs_pointers_are_named(tmp_path: Path) -> None:
    path = tmp_path / "pointer.bin"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")

    with pytest.raises(Corrupt) as caught:
        TorchFile(SourceFile(path), path.name)

    assert caught.value.hint == "git lfs pull fetches the content"


def test_big_endian_files_are_refused(path: Path) -> None:
    data = path.read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        source = zipfile.ZipFile(io.BytesIO(data))
        for member in source.namelist():
            content = source.read(member)
            archive.writestr(member, b"big" if content == b"little" else content)

    assert "little-endian" in problem(path, CannotConvert)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    problem(tmp_path / "absent.bin", MissingFile)


def rebuild(path: Path, write: Callable[[zipfile.ZipFile, bytes], None]) -> None:
    pickled = state_dict_pickle({})
    with zipfile.ZipFile(path, "w") as archive:
        write(archive, pickled)


# zipfile itself warns of a name that is there twice.
@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (["a/data.pkl", "a/data.pkl"], "is there twice"),
        (["a/data.pkl", "b/data.pkl"], "2 members called data.pkl"),
        (["a/data"], "0 members called data.pkl"),
        (["a/data.pkl", "../x"], "not plain"),
        (["a/data.pkl", "/etc/x"], "not plain"),
        (["a/data.pkl", "a//x"], "not plain"),
        (["a/data.pkl", "C:\\x"], "not plain"),
        (["a/data.pkl", "a/\n"], "not plain"),
    ],
)
def test_bad_names_are_refused(members: list[str], expected: str, path: Path) -> None:
    def write(archive: zipfile.ZipFile, pickled: bytes) -> None:
        for member in members:
            archive.writestr(zipfile.ZipInfo(member), pickled)

    rebuild(path, write)

    assert expected in problem(path)


def test_compressed_members_are_refused(path: Path) -> None:
    def write(archive: zipfile.ZipFile, pickled: bytes) -> None:
        archive.writestr("a/data.pkl", bytes(1 << 20), zipfile.ZIP_DEFLATED)

    rebuild(path, write)

    assert "is compressed" in problem(path)


def test_encrypted_members_are_refused(path: Path) -> None:
    data = path.read_bytes()
    at = data.index(b"PK\x01\x02")
    path.write_bytes(data[: at + 8] + b"\x01" + data[at + 9 :])

    assert "is encrypted" in problem(path)


def test_overlapping_members_are_refused(path: Path) -> None:
    """The second directory entry is made to point at the first local header."""
    data = bytearray(path.read_bytes())
    first = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", first + 1)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    path.write_bytes(data)

    assert "overlaps" in problem(path)


def test_a_directory_that_promises_too_much_is_refused(path: Path) -> None:
    data = bytearray(path.read_bytes())
    end = data.rindex(b"PK\x05\x06")
    data[end + 8 : end + 12] = b"\xff\xff\xff\xff"
    path.write_bytes(data)

    assert "directory" in problem(path)


def test_only_our_errors_escape_from_changed_bytes(
    path: Path, weights: Weights, tmp_path: Path
) -> None:
    source = random.Random(2)
    small = {"norm": weights["model.norm.weight"][:4]}
    write_bin(path, small)
    data = path.read_bytes()

    for _ in range(1_000):
        changed = bytearray(data)
        for _ in range(source.randint(1, 3)):
            changed[source.randrange(len(changed))] = source.randrange(256)
        # A new file each time: rewriting one makes ext4 wait for the disk.
        path.unlink()
        path.write_bytes(changed[: source.choice([len(changed), len(changed) - 1])])
        try:
            found = read_all(path)
        except WizardEdgeError:
            continue
        assert set(map(len, found.values())) <= {8}
