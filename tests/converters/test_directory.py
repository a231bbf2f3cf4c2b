"""Which files of a directory are the checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.converters.checkpoints import SHAPES, Shape, random_weights, write_weights
from wizard_edge.errors import CannotConvert, Corrupt, MissingFile
from wizard_edge_converters.directory import open_checkpoint

WEIGHTS = random_weights(SHAPES["tied"])


def test_safetensors_count_before_pickles(tmp_path: Path) -> None:
    write_weights(tmp_path, WEIGHTS, form="bin")
    write_weights(tmp_path, WEIGHTS, form="safetensors", shards=2)

    with open_checkpoint(tmp_path) as checkpoint:
        files = {tensor.file for tensor in checkpoint.tensors.values()}

    assert files == {
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    }


def test_tensors_come_file_by_file_in_their_order(tmp_path: Path) -> None:
    write_weights(tmp_path, WEIGHTS, form="bin", shards=3)

    with open_checkpoint(tmp_path) as checkpoint:
        order = [(t.file, t.offset) for t in checkpoint.tensors.values()]
        size = checkpoint.size

    assert order == sorted(order)
    assert size == sum(path.stat().st_size for path in tmp_path.glob("*.bin"))


def test_rows_are_read_by_element(tmp_path: Path) -> None:
    write_weights(tmp_path, WEIGHTS, form="bin")
    name = "model.layers.0.mlp.up_proj.weight"

    with open_checkpoint(tmp_path) as checkpoint:
        data = checkpoint.read(checkpoint.tensors[name], 256, 512)

    assert data == WEIGHTS[name][1:3].tobytes()


def test_shards_must_count_up_to_what_they_say(tmp_path: Path) -> None:
    write_weights(tmp_path, WEIGHTS, form="bin", shards=3)
    (tmp_path / "pytorch_model.bin.index.json").unlink()
    (tmp_path / "pytorch_model-00002-of-00003.bin").unlink()

    with pytest.raises(MissingFile, match="00002-of-00003"):
        open_checkpoint(tmp_path)


def test_shards_of_two_checkpoints_are_refused(tmp_path: Path) -> None:
    for shards in (2, 3):
        write_weights(tmp_path, WEIGHTS, form="bin", shards=shards)
    (tmp_path / "pytorch_model.bin.index.json").unlink()

    with pytest.raises(CannotConvert, match="different checkpoints"):
        open_checkpoint(tmp_path)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    write_weights(tmp_path, WEIGHTS, form="bin", shards=2)
    (tmp_path / "pytorch_model.bin.index.json").unlink()
    first = tmp_path / "pytorch_model-00001-of-00002.bin"
    (tmp_path / "pytorch_model-00002-of-00002.bin").write_bytes(first.read_bytes())

    with pytest.raises(Corrupt, match="is there twice"):
        open_checkpoint(tmp_path)


def test_links_to_files_elsewhere_are_followed(tmp_path: Path) -> None:
    """The hub's cache is made of links into a folder of blobs."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    write_weights(blobs, random_weights(Shape(layers=1)), form="bin")
    (snapshot / "pytorch_model.bin").symlink_to(blobs / "pytorch_model.bin")

    with open_checkpoint(snapshot) as checkpoint:
        assert len(checkpoint.tensors) == 12


def test_a_directory_of_something_else_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("hello")

    with pytest.raises(CannotConvert) as caught:
        open_checkpoint(tmp_path)

    assert "pytorch_model.bin.index.json" in caught.value.message
    assert caught.value.hint is not None
    assert caught.value.exit_code == 9
