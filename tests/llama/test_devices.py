from __future__ import annotations

from wizard_edge._llama.devices import build_identity, find_backends, find_devices


def test_the_processor_is_a_device_with_memory() -> None:
    [processor] = [item for item in find_devices() if item.kind == "cpu"]

    assert (processor.name, processor.backend) == ("CPU", "CPU")
    assert 0 < processor.free <= processor.total
    assert str(processor) == f"CPU ({processor.description})"


def test_no_device_has_two_ids() -> None:
    ids = [item.id for item in find_devices() if item.id is not None]

    assert len(ids) == len(set(ids))


def test_the_processors_part_says_what_it_was_compiled_with() -> None:
    [part] = [item for item in find_backends() if item.name == "CPU"]

    assert part.features
    assert all(value.isdecimal() for value in part.features.values())


def test_a_build_says_its_version_and_commit() -> None:
    version, _, commit = build_identity().partition(" ")

    assert version.count(".") == 2
    assert commit.startswith("(")
    assert commit.endswith(")")
