from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from tests.service.fakes import (
    COST,
    SmallConvert,
    a_checkpoint,
    a_request,
    an_installation,
    stored,
    tree,
)
from wizard_edge import __version__
from wizard_edge.errors import (
    CannotConvert,
    UnknownQuant,
    UsageError,
)
from wizard_edge.names import ModelName, RelPath, Sha256
from wizard_edge.receipts import Origin, Receipt, StoredFile
from wizard_edge.service.checkpoints import find_checkpoint
from wizard_edge.service.conversions import (
    convert_to_file,
    convert_to_store,
    estimate_conversion,
)


def test_a_checkpoint_becomes_a_model_with_its_whole_receipt(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    source = a_checkpoint(tmp_path / "My Model")

    wanted = a_request(
        f"{source}/",
        "q4_k_m",
        template="alpaca",
        licenses=["apache-2.0", "own-licence"],
    )

    [result] = convert_to_store(installation, wanted, convert=SmallConvert())

    content = result.path.read_bytes()
    assert result.already is False
    assert result.path == tmp_path / "home/models/my-model/my-model.Q4_K_M.gguf"
    assert result.receipt == Receipt(
        model=ModelName.parse("my-model"),
        quant="Q4_K_M",
        files=(
            StoredFile(
                RelPath.parse("my-model.Q4_K_M.gguf"),
                len(content),
                Sha256.parse(sha256(content).hexdigest()),
            ),
        ),
        origin=Origin("local"),
        licenses=("apache-2.0", "own-licence"),
        template="alpaca",
        architecture="llama",
        context=64,
        parameters=result.receipt.parameters,
        tool=f"wizard-edge {__version__}",
        created="2026-01-02T03:04:05Z",
        quality={"rms_error.F16": 0.5},
    )
    assert (
        installation.store.find(ModelName.parse("my-model")).receipt == result.receipt
    )


def test_without_options_nothing_is_made_up(tmp_path: Path) -> None:
    receipt = stored(an_installation(tmp_path), tmp_path / "unknown-7b").receipt

    assert (receipt.template, receipt.licenses) == (None, ())


@pytest.mark.parametrize(
    "error", [CannotConvert("truncated"), KeyboardInterrupt()], ids=["error", "Ctrl-C"]
)
def test_a_conversion_that_ends_early_leaves_nothing(
    tmp_path: Path, error: BaseException
) -> None:
    installation = an_installation(tmp_path)
    source = a_checkpoint(tmp_path / "model")

    with pytest.raises(type(error)):
        convert_to_store(
            installation, a_request(source), convert=SmallConvert(fail=error)
        )

    assert tree(installation.home.root) == []


def test_a_conversion_that_fails_keeps_the_model_of_before(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    before = stored(installation, tmp_path / "model")

    with pytest.raises(CannotConvert):
        convert_to_store(
            installation,
            a_request(tmp_path / "model", "Q8_0"),
            convert=SmallConvert(fail=CannotConvert("no")),
            overwrite=True,
        )

    assert installation.store.find(before.receipt.model).receipt == before.receipt
    assert before.path.stat().st_size == before.receipt.size


def test_merged_weights_called_like_a_delta_take_another_name(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    source = str(a_checkpoint(tmp_path / "WizardLM-13B-V1.0"))
    convert = SmallConvert()

    wanted = a_request(source, name="merged")
    cost = estimate_conversion(installation, wanted, convert=convert)
    convert_to_file(installation, wanted, [tmp_path / "out.gguf"], convert=convert)

    assert cost == COST
    assert [facts.title for _, _, facts in convert.calls] == ["merged"]


def test_an_unknown_template_or_quant_is_refused(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    source = str(a_checkpoint(tmp_path / "model"))

    with pytest.raises(UsageError):
        find_checkpoint(installation, a_request(source, template="chatml"))
    with pytest.raises(UnknownQuant):
        convert_to_store(installation, a_request(source, "Q9"), convert=SmallConvert())
    assert not installation.home.root.exists()


def test_a_conversion_to_a_file_leaves_the_store_alone(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    source = str(a_checkpoint(tmp_path / "model"))
    output = tmp_path / "out.gguf"

    [converted] = convert_to_file(
        installation, a_request(source), [output], convert=SmallConvert()
    )

    assert converted.files[0].path == output
    assert output.stat().st_size == converted.size
    assert not installation.home.root.exists()


def test_an_estimate_writes_nothing(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    source = str(a_checkpoint(tmp_path / "model"))

    cost = estimate_conversion(installation, a_request(source), convert=SmallConvert())

    assert cost == COST
    assert not installation.home.root.exists()


def test_what_is_installed_is_replaced_only_when_asked(tmp_path: Path) -> None:
    installation = an_installation(tmp_path)
    before = stored(installation, tmp_path / "model")
    wanted = a_request(tmp_path / "model", "Q8_0")

    with pytest.raises(UsageError, match="in the store already") as caught:
        convert_to_store(installation, wanted, convert=SmallConvert())
    assert "--overwrite" in (caught.value.hint or "")
    assert installation.store.find(before.receipt.model).receipt == before.receipt

    convert_to_store(installation, wanted, convert=SmallConvert(), overwrite=True)
