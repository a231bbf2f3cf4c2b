"""Parts are found and must belong together; pieces are found, ordered and whole."""

from __future__ import annotations

from pathlib import Path
from string import ascii_lowercase

import pytest

from tests.gguf_files import GgufFile, i32, small_llama, string, u16
from wizard_edge.errors import Corrupt, MissingFile, UsageError
from wizard_edge.gguf import Header
from wizard_edge.gguf_parts import (
    Pieces,
    find_pieces,
    model_stem,
    read_joined,
    read_model,
    read_parts,
    split_name,
)
from wizard_edge.gguf_rules import UnsupportedArchitecture

COUNT = 3


def parts() -> list[GgufFile]:
    """A small model in three parts as llama.cpp would cut it."""
    model = small_llama()
    total = len(model.tensors)
    first, rest = model.tensors[:4], model.tensors[4:]
    files = [
        GgufFile(list(model.entries), first),
        GgufFile([], rest[:5]),
        GgufFile([], rest[5:]),
    ]
    for number, file in enumerate(files):
        file.set("split.no", u16(number))
        file.set("split.count", u16(COUNT))
        file.set("split.tensors.count", i32(total))
    return files


def write_parts(folder: Path, files: list[GgufFile]) -> list[Path]:
    return [
        file.write(folder / split_name("model", number, COUNT))
        for number, file in enumerate(files, start=1)
    ]


def test_all_parts_are_read_from_the_first(tmp_path: Path) -> None:
    paths = write_parts(tmp_path, parts())

    headers = read_parts(paths[0])

    assert [header.path for header in headers] == paths
    assert sum(len(header.tensors) for header in headers) == len(small_llama().tensors)


def test_a_whole_file_is_its_only_part(tmp_path: Path) -> None:
    path = small_llama().write(tmp_path / "any name.gguf")

    assert [header.path for header in read_parts(path)] == [path]


def test_a_directory_is_told_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a directory, not a GGUF file"):
        read_parts(tmp_path)


@pytest.mark.parametrize("number", [1, 2])
def test_a_missing_part_is_named(number: int, tmp_path: Path) -> None:
    paths = write_parts(tmp_path, parts())
    paths[number].unlink()

    with pytest.raises(MissingFile) as caught:
        read_parts(paths[0])

    assert caught.value.path == str(paths[number])


def test_a_later_part_names_the_first(tmp_path: Path) -> None:
    paths = write_parts(tmp_path, parts())

    with pytest.raises(UsageError) as caught:
        read_parts(paths[1])

    assert caught.value.message == f"{paths[1]} is part 2 of 3"
    assert caught.value.hint == f"give the first part: {paths[0]}"


@pytest.mark.parametrize("name", ["model.gguf", "model-00001-of-00002.gguf"])
def test_a_part_of_another_name_leads_nowhere(name: str, tmp_path: Path) -> None:
    path = parts()[0].write(tmp_path / name)

    with pytest.raises(UsageError, match="which its name does not say"):
        read_parts(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.set("split.no", u16(2)),
        lambda file: file.set("split.count", u16(4)),
        lambda file: file.set("split.tensors.count", i32(7)),
        lambda file: file.drop("split.count"),
        lambda file: file.drop("split.tensors.count"),
        lambda file: file.drop("split.no"),
    ],
)
def test_parts_of_different_models_are_told(change: object, tmp_path: Path) -> None:
    files = parts()
    assert callable(change)
    change(files[1])
    paths = write_parts(tmp_path, files)

    with pytest.raises(Corrupt) as caught:
        read_parts(paths[0])

    assert caught.value.path == str(paths[1])


def test_a_tensor_in_two_parts_is_told(tmp_path: Path) -> None:
    files = parts()
    files[2].tensors[0] = files[1].tensors[0]
    paths = write_parts(tmp_path, files)

    with pytest.raises(Corrupt, match=r"is in model-00002-of-00003\.gguf too"):
        read_parts(paths[0])


def test_too_few_tensors_are_told(tmp_path: Path) -> None:
    files = parts()
    files[2].tensors.pop()
    paths = write_parts(tmp_path, files)

    with pytest.raises(Corrupt, match="is 12, the 3 parts have 11"):
        read_parts(paths[0])


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("model.Q4_0.gguf", "model.Q4_0"),
        ("model-00001-of-00003.gguf", "model"),
        ("model-1-of-3.gguf", "model-1-of-3"),
        ("model", "model"),
    ],
)
def test_the_stem_says_nothing_of_parts(name: str, stem: str) -> None:
    assert model_stem(name) == stem


LETTERED = ["m.gguf-split-a", "m.gguf-split-b", "m.gguf-split-c"]
TWO_LETTERS = [f"m.gguf-split-a{letter}" for letter in "abc"]
NUMBERED = [f"m.gguf.part{number}of3" for number in (1, 2, 3)]


def cut(folder: Path, names: list[str]) -> list[Path]:
    """Cut a model into pieces of these names, the header in the first."""
    content = small_llama().build()
    header, _ = small_llama().header()
    ends = [0, len(header) + 100, len(header) + 200, len(content)]
    paths = []
    for number, name in enumerate(names):
        path = folder / name
        path.write_bytes(content[ends[number] : ends[number + 1]])
        paths.append(path)
    return paths


def joined(path: Path) -> Header:
    pieces = find_pieces(path)
    assert pieces is not None
    return read_joined(pieces)


@pytest.mark.parametrize(
    "names", [LETTERED, TWO_LETTERS, NUMBERED], ids=["a", "aa", "1of3"]
)
@pytest.mark.parametrize("given", range(3))
def test_any_piece_leads_to_all(names: list[str], given: int, tmp_path: Path) -> None:
    paths = cut(tmp_path, names)

    pieces = find_pieces(paths[given])

    assert pieces is not None
    following = {"m.gguf-split-c": "d", "m.gguf-split-ac": "ad"}.get(names[2])
    after = tmp_path / f"m.gguf-split-{following}" if following else None
    assert pieces == Pieces("m.gguf", tuple(paths), after)
    assert read_joined(pieces).architecture == "llama"


@pytest.mark.parametrize(
    "names", [LETTERED, TWO_LETTERS, NUMBERED], ids=["a", "aa", "1of3"]
)
@pytest.mark.parametrize("gone", range(3))
def test_a_missing_piece_is_named(names: list[str], gone: int, tmp_path: Path) -> None:
    paths = cut(tmp_path, names)
    paths[gone].unlink()

    # That the last lettered piece is gone, only the size can say.
    with pytest.raises(MissingFile) as caught:
        joined(paths[gone - 1])

    assert caught.value.path == str(paths[gone])


def test_the_second_letter_goes_round(tmp_path: Path) -> None:
    names = [f"m.gguf-split-{a}{b}" for a, b in ("az", "ba", "bb")]
    every = [f"m.gguf-split-a{letter}" for letter in ascii_lowercase[:-1]] + names
    for name in every:
        (tmp_path / name).write_bytes(b"")

    pieces = find_pieces(tmp_path / "m.gguf-split-ba")

    assert pieces is not None
    assert [path.name for path in pieces.paths] == every
    assert pieces.after == tmp_path / "m.gguf-split-bc"


def test_a_piece_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFile) as caught:
        find_pieces(tmp_path / "m.gguf-split-b")

    assert caught.value.path == str(tmp_path / "m.gguf-split-b")


@pytest.mark.parametrize("name", ["m.gguf", "m.gguf-split-", "m-split-a", "m.part1of2"])
def test_other_names_are_no_pieces(name: str, tmp_path: Path) -> None:
    assert find_pieces(tmp_path / name) is None


def test_pieces_are_judged_as_the_file_they_make(tmp_path: Path) -> None:
    paths = cut(tmp_path, NUMBERED)
    with paths[2].open("ab") as file:
        file.write(bytes(100))

    with pytest.raises(Corrupt, match="bytes follow the last tensor"):
        joined(paths[0])


def test_pieces_of_another_architecture_are_refused(tmp_path: Path) -> None:
    content = small_llama().set("general.architecture", string("mpt")).build()
    (tmp_path / "m.gguf-split-a").write_bytes(content)

    with pytest.raises(UnsupportedArchitecture):
        joined(tmp_path / "m.gguf-split-a")


def test_a_model_is_read_from_any_of_its_files(tmp_path: Path) -> None:
    """Parts, of which the first and the last are cut into pieces."""
    first, second, third = write_parts(tmp_path, parts())
    pieces = [*halves(first, "part{}of2"), *halves(third, "part{}of2")]

    model = read_model(pieces[0])

    names = [split_name("model", number, COUNT) for number in (1, 2, 3)]
    assert [(whole.name, whole.paths) for whole in model] == [
        (names[0], tuple(pieces[:2])),
        (names[1], (second,)),
        (names[2], tuple(pieces[2:])),
    ]
    assert [read_model(piece) for piece in pieces[1:]] == [model] * 3


def halves(path: Path, ending: str) -> list[Path]:
    """Cut a file into two pieces behind its header, and delete it."""
    content = path.read_bytes()
    middle = len(content) - 10
    pieces = [path.with_name(f"{path.name}.{ending.format(n)}") for n in (1, 2)]
    pieces[0].write_bytes(content[:middle])
    pieces[1].write_bytes(content[middle:])
    path.unlink()
    return pieces


def test_a_part_that_is_neither_whole_nor_in_pieces_is_named(tmp_path: Path) -> None:
    first, second, _ = write_parts(tmp_path, parts())
    pieces = halves(first, "part{}of2")
    second.unlink()

    with pytest.raises(MissingFile) as caught:
        read_model(pieces[1])

    assert caught.value.path == str(second)


def test_a_piece_of_a_later_part_alone_leads_to_the_first(tmp_path: Path) -> None:
    first, _, third = write_parts(tmp_path, parts())
    pieces = halves(third, "part{}of2")
    first.unlink()

    with pytest.raises(MissingFile) as caught:
        read_model(pieces[0])

    assert caught.value.path == str(first)
