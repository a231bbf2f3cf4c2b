"""The shipped models.toml: true to itself, to docs/models.md and to its sources."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wizard_edge.models import License, ModelSpec, RemoteFile, Variant
from wizard_edge.registry import Registry, Shape, schema_keys
from wizard_edge.units import format_count

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs" / "models.md"
FACTS = ROOT.parent / "shared" / "facts" / "models.json"

REGISTRY = Registry.load()
MODELS = list(REGISTRY)
# The apprentice is made here and described by its own tests.
FAMILY = [spec for spec in MODELS if spec.name != "apprentice"]
VARIANTS = [(spec, variant) for spec in FAMILY for variant in spec.variants]

TEMPLATES = {"vicuna", "wizardlm-7b", "alpaca", "alpaca-cot"}
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}

# Bytes of a block and the weights in it. Source: ggml-common.h of llama.cpp.
BLOCKS = {
    "F16": (2, 1),
    "Q2_K": (84, 256),
    "Q3_K": (110, 256),
    "Q4_0": (18, 32),
    "Q4_K": (144, 256),
    "Q5_0": (22, 32),
    "Q5_K": (176, 256),
    "Q6_K": (210, 256),
    "Q8_0": (34, 32),
    "IQ3_XXS": (98, 256),
    "IQ3_S": (110, 256),
    "IQ4_XS": (136, 256),
}
# quant -> the type of most weights, a better one, and the share that gets it: roughly
# what llama_tensor_get_type in llama.cpp's llama-quant.cpp does to a LLaMA.
MIXES = {
    "F16": ("F16", "F16", 0.0),
    "Q2_K": ("Q2_K", "Q3_K", 0.6),
    "Q3_K_S": ("Q3_K", "Q3_K", 0.0),
    "Q3_K_M": ("Q3_K", "Q4_K", 0.4),
    "Q3_K_L": ("Q3_K", "Q5_K", 0.4),
    "Q4_0": ("Q4_0", "Q4_0", 0.0),
    "Q4_K_S": ("Q4_K", "Q5_K", 0.05),
    "Q4_K_M": ("Q4_K", "Q6_K", 0.15),
    "Q5_0": ("Q5_0", "Q5_0", 0.0),
    "Q5_K_S": ("Q5_K", "Q5_K", 0.0),
    "Q5_K_M": ("Q5_K", "Q6_K", 0.15),
    "Q6_K": ("Q6_K", "Q6_K", 0.0),
    "Q8_0": ("Q8_0", "Q8_0", 0.0),
    "IQ3_XS": ("IQ3_XXS", "IQ3_S", 0.8),
    "IQ3_S": ("IQ3_S", "IQ3_S", 0.0),
    "IQ3_M": ("IQ3_S", "Q4_K", 0.3),
    "IQ4_XS": ("IQ4_XS", "Q5_K", 0.1),
}


def name_of(value: object) -> str:
    if isinstance(value, ModelSpec):
        return value.name
    return value.quant if isinstance(value, Variant) else str(value)


def bits(block: str) -> float:
    size, weights = BLOCKS[block]
    return 8 * size / weights


def expected_bytes(spec: ModelSpec, quant: str) -> float:
    most, better, share = MIXES[quant]
    assert spec.parameters is not None
    return spec.parameters / 8 * (bits(most) * (1 - share) + bits(better) * share)


def parameters(shape: Shape, context: int) -> int:
    """Count every element of every tensor of the checkpoint once."""
    hidden, ffn = shape.hidden, shape.ffn
    kv = hidden // shape.heads * shape.kv_heads
    if shape.positions == "learned":
        # GPTBigCode: biases everywhere, two norms of two vectors, one tied output.
        attention = hidden * (hidden + 2 * kv) + hidden + 2 * kv + hidden**2 + hidden
        block = attention + 2 * hidden * ffn + ffn + hidden + 4 * hidden
        return (shape.vocabulary + context) * hidden + shape.layers * block + 2 * hidden
    experts = shape.experts or 1
    router = hidden * shape.experts if shape.experts else 0
    block = 2 * hidden**2 + 2 * hidden * kv + experts * 3 * hidden * ffn + router
    return 2 * shape.vocabulary * hidden + shape.layers * (block + 2 * hidden) + hidden


def remote_files(spec: ModelSpec) -> Iterator[RemoteFile]:
    yield from spec.source.files if spec.source else ()
    for variant in spec.variants:
        yield from variant.files


# ---- true to itself -------------------------------------------------------------


def test_every_model_of_the_card_and_the_later_ones_is_there() -> None:
    assert [spec.title for spec in MODELS] == [
        "Apprentice",
        "WizardLM-70B-V1.0",
        "WizardLM-13B-V1.2",
        "WizardLM-13B-V1.1",
        "WizardLM-30B-V1.0",
        "WizardLM-13B-V1.0",
        "WizardLM-7B-V1.0",
        "WizardCoder-Python-34B-V1.0",
        "WizardCoder-Python-13B-V1.0",
        "WizardCoder-Python-7B-V1.0",
        "WizardCoder-15B-V1.0",
        "WizardCoder-3B-V1.0",
        "WizardCoder-1B-V1.0",
        "WizardCoder-33B-V1.1",
        "WizardMath-70B-V1.0",
        "WizardMath-13B-V1.0",
        "WizardMath-7B-V1.0",
        "WizardMath-7B-V1.1",
        "WizardLM-2-7B",
        "WizardLM-2-8x22B",
    ]


@pytest.mark.parametrize("spec", MODELS, ids=name_of)
def test_name_is_the_title_in_lower_case(spec: ModelSpec) -> None:
    assert spec.name == spec.title.lower()


def test_hashes_and_revisions_have_full_length() -> None:
    files = [file for spec in MODELS for file in remote_files(spec)]
    hashes = [file.sha256 for file in files if file.sha256]
    revisions = [file.revision for file in files if file.revision]

    assert len(hashes) > 150
    assert [text for text in hashes if not re.fullmatch("[0-9a-f]{64}", text)] == []
    assert [text for text in revisions if not re.fullmatch("[0-9a-f]{40}", text)] == []


def test_no_two_files_share_a_hash() -> None:
    hashes = [file.sha256 for spec in MODELS for file in remote_files(spec)]
    known = [sha256 for sha256 in hashes if sha256]

    assert len(known) == len(set(known))


def test_each_name_means_one_model() -> None:
    names = [name for spec in MODELS for name in (spec.name, *spec.aliases)]

    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("7b", "wizardlm-7b-v1.0"),
        ("13b", "wizardlm-13b-v1.2"),
        ("30b", "wizardlm-30b-v1.0"),
        ("70b", "wizardlm-70b-v1.0"),
        ("8x22b", "wizardlm-2-8x22b"),
        ("wizardlm", "wizardlm-13b-v1.2"),
        ("wizardcoder", "wizardcoder-python-13b-v1.0"),
        ("wizardmath", "wizardmath-13b-v1.0"),
        ("WizardLM-70B-V1.0", "wizardlm-70b-v1.0"),
        ("WizardLM/WizardLM-70B-V1.0", "wizardlm-70b-v1.0"),
        ("wizardlmteam/wizardlm-70b-v1.0", "wizardlm-70b-v1.0"),
        ("victor123/WizardLM", "wizardlm-7b-v1.0"),
    ],
)
def test_short_names_mean_what_people_expect(alias: str, name: str) -> None:
    assert REGISTRY.find(alias).name == name


@pytest.mark.parametrize("spec", MODELS, ids=name_of)
def test_templates_exist(spec: ModelSpec) -> None:
    assert {spec.template, *spec.alternative_templates} <= TEMPLATES


def test_delta_models_name_base_and_both_licences() -> None:
    deltas = [spec for spec in MODELS if spec.source and spec.source.delta_of]

    assert [spec.title for spec in deltas] == [
        "WizardLM-30B-V1.0",
        "WizardLM-13B-V1.0",
        "WizardLM-7B-V1.0",
    ]
    for spec in deltas:
        assert spec.source is not None
        assert spec.base is not None
        assert spec.base.name.startswith("LLaMA-1")
        assert (spec.base.license, spec.source.license) == ("llama-1", "cc-by-nc-4.0")


@pytest.mark.parametrize("spec", FAMILY, ids=name_of)
def test_parameters_follow_from_the_shape(spec: ModelSpec) -> None:
    assert spec.shape is not None
    assert spec.context is not None

    assert spec.parameters == parameters(spec.shape, spec.context)


@pytest.mark.parametrize("spec", FAMILY, ids=name_of)
def test_heads_divide_the_width_and_tokens_fit_the_vocabulary(spec: ModelSpec) -> None:
    assert spec.shape is not None
    assert spec.tokenizer is not None
    shape, tokenizer = spec.shape, spec.tokenizer

    assert shape.hidden % shape.heads == 0
    assert shape.heads % shape.kv_heads == 0
    assert (shape.rope_theta is None) == (shape.positions == "learned")
    assert all((tokenizer.bos, tokenizer.eos)) or spec.architecture == "starcoder"
    # WizardLM-13B-V1.2 is the one whose added token has no row; it is among its traps.
    beyond = [id_ for id_ in tokenizer.added.values() if id_ >= shape.vocabulary]
    assert beyond == ([32000] if spec.name == "wizardlm-13b-v1.2" else [])


@pytest.mark.parametrize(("spec", "variant"), VARIANTS, ids=name_of)
def test_variant_has_the_size_its_quant_gives(
    spec: ModelSpec, variant: Variant
) -> None:
    if variant.size is None:
        assert not variant.size_exact
        return

    assert variant.size == pytest.approx(expected_bytes(spec, variant.quant), rel=0.15)


@pytest.mark.parametrize("spec", FAMILY, ids=name_of)
def test_source_has_the_size_its_type_gives(spec: ModelSpec) -> None:
    source = spec.source
    assert source is not None
    assert spec.parameters is not None
    if source.size is None or source.dtype is None:
        return

    assert source.size == pytest.approx(spec.parameters * BYTES[source.dtype], rel=0.1)


def test_parts_are_joined_as_their_names_say() -> None:
    joined = {
        f"{spec.name}:{variant.quant}": (variant.joined, len(variant.files))
        for spec, variant in VARIANTS
        if variant.joined != "whole"
    }

    assert joined == {
        "wizardlm-70b-v1.0:Q6_K": ("bytes", 2),
        "wizardlm-70b-v1.0:Q8_0": ("bytes", 2),
        "wizardmath-70b-v1.0:Q6_K": ("bytes", 2),
        "wizardmath-70b-v1.0:Q8_0": ("bytes", 2),
        "wizardlm-2-8x22b:Q4_K_M": ("gguf-split", 5),
    }
    first = REGISTRY.find("8x22b").variant("Q4_K_M").files[0]
    assert first.path == "WizardLM-2-8x22B.Q4_K_M-00001-of-00005.gguf"


def test_what_is_not_known_is_marked() -> None:
    missing = []
    for spec in FAMILY:
        assert spec.source is not None
        wanted = {
            "source.revision": spec.source.revision,
            "source.format": spec.source.format,
            "source.dtype": spec.source.dtype,
            "source.shards": spec.source.shards,
            "training_length": spec.training_length,
            "variants": spec.variants or None,
            "source.state": None if spec.source.state == "unknown" else "known",
        }
        missing += [(spec.name, key) for key, value in wanted.items() if value is None]
        for variant in spec.variants:
            key = f"variants.{variant.quant}.sha256"
            hashes = [file.sha256 for file in variant.files]
            missing += [(spec.name, key)] if None in hashes else []
            if variant.files[0].revision is None and not spec.is_unverified(
                f"variants.{variant.quant}.revision"
            ):
                missing.append((spec.name, "gguf.revision"))

    unmarked = [
        (name, key)
        for name, key in missing
        if not REGISTRY.find(name).is_unverified(key)
    ]
    assert len(missing) > 20
    assert unmarked == []


@pytest.mark.parametrize("license_", REGISTRY.licenses, ids=lambda entry: entry.id)
def test_licence_says_what_it_asks(license_: License) -> None:
    assert license_.obligations
    assert license_.sources
    assert (license_.commercial is None) == ("commercial" in license_.unverified)
    assert (not license_.url) == ("url" in license_.unverified)


def test_llama_2_notice_is_to_the_letter() -> None:
    notice = REGISTRY.license("llama2").notice

    assert notice == (
        "Llama 2 is licensed under the LLAMA 2 Community License, "
        "Copyright (c) Meta Platforms, Inc. All Rights Reserved."
    )
    # The file Notice in the repositories has 112 bytes.
    assert len(notice.encode()) == 112


def test_open_rail_restricts_fourteen_uses() -> None:
    """Attachment A has the items (a) to (n)."""
    restricted = {entry.id: len(entry.restrictions) for entry in REGISTRY.licenses}

    assert {id_: count for id_, count in restricted.items() if count} == {
        "bigcode-openrail-m": 14
    }


@pytest.mark.parametrize("spec", FAMILY, ids=name_of)
def test_the_research_disclaimer_stands_where_the_licence_says_otherwise(
    spec: ModelSpec,
) -> None:
    """The README limits everything to research; WizardLM-2 had a README of its own."""
    says_research = spec.licenses == ("wizardlm-nc",)
    disclaimed = spec.family != "WizardLM-2" and not says_research

    assert ("README" in spec.license_conflict) == disclaimed
    assert ("academic research" in spec.license_conflict) == disclaimed


# ---- true to docs/models.md -----------------------------------------------------


def table_rows(first_heading: str) -> list[list[str]]:
    """The rows of the table in docs/models.md whose header begins so."""
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(first_heading))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_every_key_is_documented_and_every_documented_key_is_real() -> None:
    rows = table_rows("| key |")

    documented = {
        key.strip("`"): type_.endswith("required") for key, type_, _meaning in rows
    }

    assert len(documented) == len(rows)
    assert documented == schema_keys()


def test_models_table_says_what_the_registry_says() -> None:
    def gigabytes(spec: ModelSpec, quant: str) -> str:
        for variant in spec.variants:
            if variant.quant == quant:
                about = "" if variant.size_exact else "~"
                return f"{about}{variant.size / 1e9:.2f}" if variant.size else "?"
        return "-"

    def row(spec: ModelSpec) -> list[str]:
        aliases = ", ".join(f"`{alias}`" for alias in spec.aliases)
        return [
            f"`{spec.name}`",
            aliases or "-",
            format_count(spec.parameters or 0),
            spec.template,
            ", ".join(spec.licenses),
            f"{spec.context} / {spec.training_length or '-'}",
            gigabytes(spec, "Q4_K_M"),
            gigabytes(spec, "Q8_0"),
        ]

    assert table_rows("| model |") == [row(spec) for spec in FAMILY]


def test_licences_table_says_what_the_registry_says() -> None:
    words = {True: "yes", False: "no", None: "unverified"}

    assert table_rows("| id |") == [
        [f"`{entry.id}`", entry.name, words[entry.commercial]]
        for entry in REGISTRY.licenses
    ]


def test_example_of_a_user_file_does_what_the_text_says(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    user = tmp_path / "models.toml"
    user.write_text(example, encoding="utf-8")

    registry = Registry.load(user)

    mine, wizard = registry.find("mine"), registry.find("13b")
    assert [file.path for v in mine.variants for file in v.files] == [
        "my-wizard.Q4_K_M.gguf",
        "my-wizard.Q8_0.gguf",
    ]
    assert registry.license("my-licence").commercial is False
    assert wizard.sampling is not None
    assert wizard.source is not None
    assert (wizard.sampling.temperature, wizard.sampling.top_p) == (0.7, 1.0)
    assert wizard.source.repo == "vanillaOVO/WizardLM-13B-V1.2"
    assert len(wizard.variants) == 12


# ---- true to its sources --------------------------------------------------------

needs_facts = pytest.mark.skipif(
    not FACTS.exists(), reason="the collected facts do not lie beside the project"
)
# The facts of models.json: any JSON.
Facts = dict[str, Any]
SCORES = {
    "HumanEval": "humaneval",
    "HumanEval+": "humaneval_plus",
    "MBPP": "mbpp",
    "MBPP+": "mbpp_plus",
    "GSM8k": "gsm8k",
    "MATH": "math",
    "MT-Bench": "mt_bench",
    "AlpacaEval": "alpaca_eval",
}


def facts() -> Facts:
    content: Facts = json.loads(FACTS.read_text(encoding="utf-8"))
    return content


def model_facts() -> list[Facts]:
    models: list[Facts] = facts()["models"] if FACTS.exists() else []
    return models


by_facts = pytest.mark.parametrize("fact", model_facts(), ids=lambda fact: fact["id"])


@needs_facts
def test_facts_and_registry_know_the_same_models() -> None:
    assert {fact["id"] for fact in model_facts()} == {spec.title for spec in FAMILY}


@needs_facts
@by_facts
def test_scores_equal_the_facts(fact: Facts) -> None:
    scores = REGISTRY.find(fact["id"]).scores
    found = {key: getattr(scores, field, None) for key, field in SCORES.items()}

    assert found == {key: fact["bench"].get(key) for key in SCORES}


@needs_facts
@by_facts
def test_template_licence_and_repositories_equal_the_facts(fact: Facts) -> None:
    spec = REGISTRY.find(fact["id"])
    assert spec.source is not None
    template = "vicuna" if fact["template"] == "vicuna-v1.1" else fact["template"]
    alternative = fact.get("template_alt")

    assert spec.template == template
    assert spec.alternative_templates == ((alternative,) if alternative else ())
    assert spec.licenses == (fact["license"],)
    assert {spec.source.repo, *spec.source.former} == set(fact["hf"])
    assert (spec.source.kind == "delta") == fact["weights"].startswith("DELTA")


@needs_facts
@by_facts
def test_shape_equals_the_facts(fact: Facts) -> None:
    spec, config = REGISTRY.find(fact["id"]), fact["config"]
    shape, tokenizer = spec.shape, spec.tokenizer
    assert shape is not None
    assert tokenizer is not None
    bigcode = config["architecture"] == "GPTBigCodeForCausalLM"
    keys = (
        ["n_layer", "n_embd", "n_inner", "n_head", "n_positions", "layer_norm_epsilon"]
        if bigcode
        else [
            "num_hidden_layers",
            "hidden_size",
            "intermediate_size",
            "num_attention_heads",
            "max_position_embeddings",
            "rms_norm_eps",
        ]
    )
    expected = [config["architecture"], *(config[key] for key in keys)]
    rest = (
        "num_key_value_heads",
        "vocab_size",
        "rope_theta",
        "sliding_window",
        "num_local_experts",
        "num_experts_per_tok",
        "bos_token_id",
        "eos_token_id",
    )

    assert [
        *(spec.hf_class, shape.layers, shape.hidden, shape.ffn, shape.heads),
        *(spec.context, shape.norm_eps),
    ] == expected
    assert [
        *(shape.kv_heads, shape.vocabulary, shape.rope_theta, shape.sliding_window),
        *(shape.experts, shape.experts_used, tokenizer.bos, tokenizer.eos),
    ] == [config.get(key) for key in rest]
    scaling = config.get("rope_scaling")
    assert (shape.rope_scaling is not None) == (scaling is not None)
    if shape.rope_scaling is not None:
        found = {"type": shape.rope_scaling.type, "factor": shape.rope_scaling.factor}
        assert found == scaling
    added = fact.get("added_tokens")
    assert dict(tokenizer.added) == (added if isinstance(added, dict) else {})


@needs_facts
@by_facts
def test_source_files_equal_the_facts(fact: Facts) -> None:
    source = REGISTRY.find(fact["id"]).source
    assert source is not None
    sizes = fact.get("size_bytes", {})

    found = {file.path: (file.sha256, file.size) for file in source.files}

    assert found == {
        path: (sha256, sizes.get(path))
        for path, sha256 in fact.get("sha256", {}).items()
    }


@needs_facts
@by_facts
def test_gguf_files_equal_the_facts(fact: Facts) -> None:
    """Every file of the facts' own repositories, but not every spare one."""
    repos, spec = facts()["gguf_repos"], REGISTRY.find(fact["id"])

    for variant in spec.variants:
        file = variant.files[0]
        entry = repos[file.repo]
        stored = entry["files"]
        known = (entry.get("revision") or "").split(" ")[0]
        assert (file.revision or "") == (known if len(known) == 40 else "")
        if variant.joined == "whole":
            size = stored[file.path].get("size_bytes")
            assert stored[file.path]["quant"] == variant.quant
            assert stored[file.path].get("sha256") == file.sha256
            assert (variant.size if variant.size_exact else None) == size
    (first, *_spare) = [repo for repo in fact["gguf"] if repo in repos] or [None]
    quants = (
        {file["quant"] for file in repos[first]["files"].values()} if first else set()
    )
    assert quants <= {variant.quant for variant in spec.variants}


@needs_facts
def test_byte_parts_equal_the_facts() -> None:
    stored = facts()["gguf_repos"]["TheBloke/WizardLM-70B-V1.0-GGUF"]["files"]
    variant = REGISTRY.find("70b").variant("Q6_K")

    paths = [file.path for file in variant.files]

    assert paths == stored["wizardlm-70b-v1.0.Q6_K.gguf"]["split_parts"]


@needs_facts
def test_no_hash_is_ours_alone() -> None:
    text = FACTS.read_text(encoding="utf-8")
    hashes = [file.sha256 for spec in MODELS for file in remote_files(spec)]

    assert [sha256 for sha256 in hashes if sha256 and sha256 not in text] == []


@needs_facts
def test_licences_equal_the_facts() -> None:
    known = facts()["licenses"]
    for id_, fact in known.items():
        entry = REGISTRY.license(id_)
        allowed = fact["non_commercial"]
        assert entry.url == fact["url"]
        assert entry.commercial == (not allowed if isinstance(allowed, bool) else None)
        assert entry.notice == fact.get("notice_text", "")
        assert entry.expression == (fact.get("expression") or entry.expression)
        assert entry.use_policy == fact.get("use_policy_url", "")


def test_file_is_kept_in_order_and_free_of_tabs() -> None:
    text = (ROOT / "models.toml").read_text(encoding="utf-8")
    families = [spec["family"] for spec in tomllib.loads(text)["models"].values()]

    runs = [family for i, family in enumerate(families) if family not in families[:i]]
    assert families == [family for run in runs for family in families if family == run]
    assert "\t" not in text
    assert text.isascii()
