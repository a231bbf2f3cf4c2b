"""The bundled checkpoint goes through the converter whole, tokenizer included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor

from tests.conftest import CHECKPOINT
from tests.converters.running import Converted
from wizard_edge._llama.library import load
from wizard_edge.gguf_types import GgmlType
from wizard_edge_converters.directory import open_checkpoint

pytestmark = pytest.mark.skipif(
    not (CHECKPOINT / "config.json").is_file(), reason="the apprentice is not trained"
)
TEXTS = (
    "Hello, my name is Ada.",
    "What is 3 + 4?",
    "USER: hi ASSISTANT:",
    "  two  spaces\n\nand lines\t",
    "Größe, naïve, 日本, 🙂",
)


def test_it_lies_there_as_the_family_does(apprentice_checkpoint: Path) -> None:
    with open_checkpoint(apprentice_checkpoint) as checkpoint:
        files = {tensor.file for tensor in checkpoint.tensors.values()}
        kinds = {tensor.type for tensor in checkpoint.tensors.values()}

    assert files == {
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
    }
    assert kinds == {GgmlType.F16}


@pytest.mark.parametrize("quant", ["Q8_0", "Q4_K_M"])
def test_k_quants_apply_to_every_matrix(
    quant: str, converted: Callable[[str, str], Converted]
) -> None:
    kinds = converted("apprentice", quant).plan.targets[0].tensors.keys()

    expected = {"Q8_0": {"Q8_0"}, "Q4_K_M": {"Q4_K", "Q6_K"}}
    assert kinds == expected[quant] | {"F32"}


@pytest.mark.parametrize("text", TEXTS)
def test_llama_cpp_tokenizes_as_sentencepiece_does(
    text: str,
    apprentice_checkpoint: Path,
    converted: Callable[[str, str], Converted],
) -> None:
    pieces = SentencePieceProcessor()
    pieces.LoadFromFile(str(apprentice_checkpoint / "tokenizer.model"))
    library = load()
    parameters = library.llama_model_default_params()
    parameters.vocab_only = True
    path = str(converted("apprentice", "Q8_0").path).encode()
    model = library.llama_model_load_from_file(path, parameters)
    data = text.encode()
    buffer = (library.llama_token * 200)()

    count = library.llama_tokenize(
        library.llama_model_get_vocab(model), data, len(data), buffer, 200, True, False
    )

    library.llama_model_free(model)
    assert list(buffer[:count]) == [pieces.bos_id(), *pieces.EncodeAsIds(text)]
