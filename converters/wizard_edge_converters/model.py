"""What is to be converted, whatever it is read from: tensors, metadata, types.

A `Model` knows what stands between source and plan: which stored tensor becomes
which GGUF tensor, what the metadata say in a quant, and which types a file of it
would have that lost nothing, on which llama.cpp's choice of types leans a little.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from wizard_edge._llama.tensor_types import decide_types
from wizard_edge.errors import UsageError
from wizard_edge.gguf_types import FileType, GgmlType
from wizard_edge.templates import find_template
from wizard_edge_converters.checkpoint import Checkpoint
from wizard_edge_converters.entries import Entry
from wizard_edge_converters.header import lay_out
from wizard_edge_converters.hparams import read_hparams
from wizard_edge_converters.metadata import Provenance, build_metadata
from wizard_edge_converters.plan import (
    Wish,
    lossless_type,
    plain_types,
    tensor_entries,
)
from wizard_edge_converters.quantize import Weights
from wizard_edge_converters.tensors import Match, match_tensors, tensor_rules
from wizard_edge_converters.tokenizer import read_vocabulary
from wizard_edge_converters.type_rules import TypeRules

# Quants that only say how to store a number: nothing has to be decided per tensor.
PLAIN_QUANTS = {"F32": GgmlType.F32, "F16": GgmlType.F16, "BF16": GgmlType.BF16}


@dataclass(frozen=True, slots=True)
class Model:
    """A model on its way; `between` are the types of the file that loses nothing.

    `describe` gives the metadata of a file of some quant, `skeleton` the part of it
    that llama.cpp's choice of types needs. `notes` say what was left out. Weights that
    are quantized already become others only with `allow_requantize`.
    """

    architecture: str
    matches: tuple[Match, ...]
    between: Mapping[str, GgmlType]
    describe: Callable[[str], tuple[Entry, ...]]
    skeleton: tuple[Entry, ...]
    is_plain: bool = True
    notes: tuple[str, ...] = field(default=())
    allow_requantize: bool = False

    def wish(self, quant: str, rules: TypeRules) -> Wish:
        """Choose the type of every tensor in a quant.

        Raises: CannotConvert for a quant that needs more of an importance matrix, and
        for what would lose twice; UsageError for a rule that does not fit;
        BackendError where llama.cpp refuses.
        """
        anew = {entry.key for entry in rules.notes}
        kept = [entry for entry in self.describe(quant) if entry.key not in anew]
        return Wish(quant, self._types(quant, rules), (*kept, *rules.notes))

    def weights(self, rules: TypeRules) -> Weights | None:
        """Return how much columns count. Raises: CannotConvert for another model's."""
        return rules.weights(tensor_entries(self.matches, self.between))

    def _types(self, quant: str, rules: TypeRules) -> Mapping[str, GgmlType]:
        if quant in PLAIN_QUANTS and not rules.is_default:
            raise UsageError(
                f"{quant} stores all matrices alike: types and importance make no "
                "difference",
                hint="leave those options out, or take another quant",
            )
        if self.is_plain and quant in PLAIN_QUANTS:
            return plain_types(self.matches, PLAIN_QUANTS[quant])
        tensors = tensor_entries(self.matches, self.between)
        layout = lay_out(self.skeleton, tensors)
        decision = decide_types(
            layout.header,
            layout.size,
            FileType[quant],
            self.between,
            imatrix_present=rules.importance is not None,
            tensor_types=rules.tensor_types,
            output_type=rules.output_type,
            embedding_type=rules.embedding_type,
            pure=rules.pure,
            allow_requantize=self.allow_requantize,
        )
        rules.check(quant, decision, rules.weights(tensors))
        return dict(decision.types)


def read_model(checkpoint: Checkpoint, provenance: Provenance) -> Model:
    """Read config, vocabulary and tensor list of a checkpoint.

    Raises: CannotConvert; Corrupt naming file and key or tensor.
    """
    hparams = read_hparams(checkpoint)
    # Before the vocabulary, which has as many rows as the config claims.
    matches = match_tensors(tensor_rules(hparams), checkpoint.tensors, checkpoint.name)
    vocabulary = read_vocabulary(checkpoint, hparams)
    if provenance.template is not None:
        # What the model was trained on counts before what its files say.
        jinja = find_template(provenance.template).jinja
        vocabulary = replace(vocabulary, chat_template=jinja)
    parameters = _count_parameters(matches)
    matrix = lossless_type(matches)

    def describe(quant: str) -> tuple[Entry, ...]:
        return build_metadata(
            hparams,
            vocabulary,
            provenance,
            parameters=parameters,
            file_type=FileType[quant],
        )

    return Model(
        architecture=hparams.architecture,
        matches=matches,
        between=plain_types(matches, matrix),
        describe=describe,
        skeleton=build_metadata(
            hparams,
            None,
            provenance,
            parameters=parameters,
            file_type=FileType[matrix.name],
        ),
        notes=vocabulary.notes,
    )


def _count_parameters(matches: Sequence[Match]) -> int:
    return sum(match.stored.elements for match in matches)
