from __future__ import annotations

import random
from pathlib import Path

import pytest

from wizard_edge.errors import (
    ConfigError,
    NotFound,
    UnknownModel,
    UnknownQuant,
    UsageError,
    WizardEdgeError,
)
from wizard_edge.names import CommitId, RelPath, RepoId, Sha256
from wizard_edge.refs import (
    QUANTS,
    FileRef,
    HubRef,
    ModelRef,
    RegistryRef,
    parse_quant,
)
from wizard_edge.registry import Registry, RemoteFile, Variant, builtin_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHA = "ab" * 32
SMALL = f"""
schema = 1

[licenses.free]
name = "Free"
expression = "LicenseRef-Free"
commercial = true

[models."wizard-7b-v1.0"]
title = "Wizard-7B-V1.0"
aliases = ["7b"]
architecture = "llama"
template = "vicuna"
licenses = ["free"]
context = 2048
unverified = ["source.revision", "variants.*.sha256"]

[models."wizard-7b-v1.0".source]
repo = "WizardTeam/Wizard-7B-V1.0"
former = ["Wizard/Wizard-7B-V1.0"]
about = 27000000000

[models."wizard-7b-v1.0".gguf]
repo = "quants/Wizard-7B-GGUF"
revision = "{COMMIT}"
file = "wizard-7b.{{quant}}.gguf"

[models."wizard-7b-v1.0".variants]
Q4_K_M = {{ size = 4081003832, sha256 = "{SHA}" }}
Q8_0 = {{ about = 7161092376 }}
Q6_K = {{ joined = "bytes", parts = [{{ file = "w.a" }}, {{ file = "w.b" }}] }}
"""


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return written(tmp_path / "models.toml", SMALL)


def with_user(small: Path, text: str) -> Registry:
    user = written(small.with_name("user.toml"), f"schema = 1\n{text}")
    return Registry.read([small, user])


# ---- what people type -----------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("13b", RegistryRef("13b")),
        ("wizardlm-13b-v1.2:Q4_K_M", RegistryRef("wizardlm-13b-v1.2", "Q4_K_M")),
        ("WizardLM-13B-V1.2:q4_k_m", RegistryRef("WizardLM-13B-V1.2", "Q4_K_M")),
        ("WizardLM/WizardLM-13B-V1.2", RegistryRef("WizardLM/WizardLM-13B-V1.2")),
        ("./f.gguf", FileRef(Path("./f.gguf"))),
        ("f.gguf", FileRef(Path("f.gguf"))),
        ("/x/dir", FileRef(Path("/x/dir"))),
        ("dir/", FileRef(Path("dir"))),
        ("a/b/c", FileRef(Path("a/b/c"))),
        ("..", FileRef(Path(".."))),
        ("C:\\models\\f", FileRef(Path("C:\\models\\f"))),
        ("hf:owner/repo", HubRef(RepoId("owner/repo"))),
        ("hf:owner/repo:q8_0", HubRef(RepoId("owner/repo"), quant="Q8_0")),
        (
            "hf:owner/repo/sub/f.gguf",
            HubRef(RepoId("owner/repo"), file=RelPath("sub/f.gguf")),
        ),
    ],
    ids=str,
)
def test_ref_parses(text: str, ref: ModelRef) -> None:
    assert ModelRef.parse(text) == ref


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ":Q4_0",
        "13b:",
        "hf:",
        "hf:owner",
        "hf:owner/repo:",
        "hf:owner/repo/",
        "hf:owner/repo/readme.md",
        "hf:owner/repo/f.gguf:Q4_0",
        "hf:../repo",
        "hf:owner/repo/../f.gguf",
        "ftp://example.org/a.gguf",
        "https://example.org",
        "https://",
        "https://u:secret@example.org/a.gguf",
        "https://example.org/a b.gguf",
        "https://example.org/a.gguf#sha256=1",
        "https://example.org/a.gguf#part",
        "http://example.org/a.gguf",
        "http://127.0.0.1.example.org/a.gguf",
        "a\x1b[2J",
    ],
)
def test_ref_refuses_what_is_no_model(text: str) -> None:
    with pytest.raises(UsageError):
        ModelRef.parse(text)


def test_half_a_repository_is_told_as_it_was_typed() -> None:
    with pytest.raises(UsageError) as caught:
        ModelRef.parse("hf:owner")

    assert caught.value.message == "not a repository (owner/name): 'owner'"


@pytest.mark.parametrize("text", ["13b:Q9_Z", "hf:owner/repo:13b", "13b:Q4_0:Q8_0"])
def test_ref_refuses_a_quant_that_llama_cpp_does_not_know(text: str) -> None:
    with pytest.raises(UnknownQuant) as caught:
        ModelRef.parse(text)

    assert caught.value.known == QUANTS


@pytest.mark.parametrize(
    "text",
    ["13b", "13b:Q8_0", "hf:o/r", "hf:o/r:F16", "hf:o/r/f.gguf", "./dir", "/x/f.gguf"],
)
def test_ref_written_out_parses_to_itself(text: str) -> None:
    ref = ModelRef.parse(text)

    assert ModelRef.parse(str(ref)) == ref


def test_ref_says_its_kind() -> None:
    kinds = [ModelRef.parse(text).kind for text in ("13b", "./dir", "hf:o/r")]

    assert kinds == ["registry", "file", "hub"]


@pytest.mark.parametrize("quant", QUANTS)
def test_quant_is_found_in_any_case(quant: str) -> None:
    assert parse_quant(quant.lower()) == quant


# ---- finding --------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "wizard-7b-v1.0",
        "WIZARD-7B-V1.0",
        "7b",
        "7B",
        "WizardTeam/Wizard-7B-V1.0",
        "wizard/wizard-7b-v1.0",
    ],
)
def test_model_is_found_by_everything_it_is_called(small: Path, name: str) -> None:
    assert Registry.read([small]).find(name).name == "wizard-7b-v1.0"


@pytest.mark.parametrize("name", ["wizard-7b-v1.1", "izard", "7b-v1.0", "wizzard-7b"])
def test_unknown_model_offers_near_names(small: Path, name: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        Registry.read([small]).find(name)

    assert caught.value.near == ("wizard-7b-v1.0",)


@pytest.mark.parametrize("name", ["qqq", "", "z"])
def test_unknown_model_offers_nothing_far(small: Path, name: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        Registry.read([small]).find(name)

    assert caught.value.near == ()


def test_unknown_licence_names_the_known_ones(small: Path) -> None:
    with pytest.raises(NotFound, match="unknown licence 'gpl'") as caught:
        Registry.read([small]).license("gpl")

    assert caught.value.hint == "known: free"


def test_variant_of_a_quant_it_lacks_names_those_it_has(small: Path) -> None:
    with pytest.raises(UnknownQuant) as caught:
        Registry.read([small]).find("7b").variant("F32")

    assert caught.value.known == ("Q4_K_M", "Q8_0", "Q6_K")


def test_variants_carry_repository_revision_size_and_hash(small: Path) -> None:
    spec = Registry.read([small]).find("7b")

    repo, revision = RepoId("quants/Wizard-7B-GGUF"), CommitId(COMMIT)
    assert spec.variants == (
        Variant(
            "Q4_K_M",
            (
                RemoteFile(
                    repo,
                    revision,
                    RelPath("wizard-7b.Q4_K_M.gguf"),
                    size=4081003832,
                    size_exact=True,
                    sha256=Sha256(SHA),
                ),
            ),
            size=4081003832,
            size_exact=True,
        ),
        Variant(
            "Q8_0",
            (
                RemoteFile(
                    repo, revision, RelPath("wizard-7b.Q8_0.gguf"), size=7161092376
                ),
            ),
            size=7161092376,
        ),
        Variant(
            "Q6_K",
            (
                RemoteFile(repo, revision, RelPath("w.a")),
                RemoteFile(repo, revision, RelPath("w.b")),
            ),
            joined="bytes",
        ),
    )


@pytest.mark.parametrize(
    ("key", "marked"),
    [
        ("source.revision", True),
        ("source", False),
        ("source.repo", False),
        ("variants.Q8_0.sha256", True),
        ("variants.Q8_0.size", False),
    ],
)
def test_unverified_mark_covers_its_key_only(
    small: Path, key: str, marked: bool
) -> None:
    assert Registry.read([small]).find("7b").is_unverified(key) is marked


def test_mark_on_a_table_covers_its_keys(small: Path) -> None:
    registry = with_user(small, '[models."wizard-7b-v1.0"]\nunverified = ["source"]')

    assert registry.find("7b").is_unverified("source.revision")


# ---- one file over another ------------------------------------------------------


def test_user_file_adds_a_model_after_the_shipped_ones(small: Path) -> None:
    registry = with_user(
        small,
        """
        [models.mine]
        architecture = "llama"
        template = "alpaca"
        licenses = ["free"]
        source = { repo = "me/mine" }
        """,
    )

    assert [spec.name for spec in registry] == ["wizard-7b-v1.0", "mine"]
    assert registry.find("mine").title == "mine"


def test_user_file_replaces_values_and_lists_and_keeps_the_rest(small: Path) -> None:
    registry = with_user(
        small,
        '[models."wizard-7b-v1.0"]\ncontext = 4096\naliases = ["seven"]',
    )

    spec = registry.find("seven")
    assert (spec.context, spec.title, len(spec.variants)) == (4096, "Wizard-7B-V1.0", 3)
    with pytest.raises(UnknownModel):
        registry.find("7b")


def test_user_file_replaces_a_variant_as_a_whole(small: Path) -> None:
    registry = with_user(
        small,
        """
        [models."wizard-7b-v1.0".variants]
        q4_k_m = { repo = "me/mine", file = "m.gguf" }
        """,
    )

    spec = registry.find("7b")
    expected = RemoteFile(RepoId("me/mine"), None, RelPath("m.gguf"))
    assert spec.variant("Q4_K_M").files == (expected,)
    assert [variant.quant for variant in spec.variants] == ["Q4_K_M", "Q8_0", "Q6_K"]


def test_new_repository_takes_back_the_revision_of_the_old_one(small: Path) -> None:
    registry = with_user(
        small, '[models."wizard-7b-v1.0".gguf]\nrepo = "mirror/Wizard-7B-GGUF"'
    )

    (file,) = registry.find("7b").variant("Q4_K_M").files
    assert (file.repo, file.revision) == ("mirror/Wizard-7B-GGUF", None)
    assert file.sha256 == SHA


def test_variant_may_have_a_revision_of_its_own(small: Path) -> None:
    other = COMMIT[::-1]
    registry = with_user(
        small,
        f'[models."wizard-7b-v1.0".variants]\nQ4_0 = {{ revision = "{other}" }}',
    )

    (file,) = registry.find("7b").variant("Q4_0").files
    assert (file.repo, file.revision) == ("quants/Wizard-7B-GGUF", other)


def test_exact_size_takes_back_the_estimate(small: Path) -> None:
    registry = with_user(
        small, '[models."wizard-7b-v1.0".source]\nsize = 26953670656\n'
    )

    source = registry.find("7b").source
    assert source is not None
    assert (source.size, source.size_exact) == (26953670656, True)


def test_user_file_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    shipped = Registry.load()

    registry = Registry.load(tmp_path / "models.toml")

    assert list(registry) == list(shipped)


def test_user_file_goes_over_the_shipped_one(tmp_path: Path) -> None:
    user = written(
        tmp_path / "models.toml",
        'schema = 1\n[models."wizardlm-13b-v1.2"]\nsampling = { temperature = 0.1 }',
    )

    sampling = Registry.load(user).find("13b").sampling

    assert sampling is not None
    assert (sampling.temperature, sampling.top_p) == (0.1, 1.0)


def test_delta_carries_its_base() -> None:
    spec = Registry.load().find("wizardlm-7b-v1.0")

    assert spec.source is not None
    assert spec.source.kind == "delta"
    assert spec.source.delta_of == spec.base


# ---- files that make no sense ---------------------------------------------------

MODEL = 'models."wizard-7b-v1.0"'


@pytest.mark.parametrize(
    ("text", "problem", "hint"),
    [
        (
            f"[{MODEL}]\ncontxt = 1",
            f"{MODEL}.contxt: is no key of this table",
            "did you mean 'context'?",
        ),
        (
            f'[{MODEL}]\ncontext = "long"',
            f"{MODEL}.context: wants a whole number above 0, got 'long'",
            "every key is explained in docs/models.md",
        ),
        (f"[{MODEL}]\ncontext = true", f"{MODEL}.context: wants a whole number", None),
        (f'[{MODEL}]\naliases = "x"', f"{MODEL}.aliases: wants a list", None),
        (f"[{MODEL}]\ntraps = [1]", f"{MODEL}.traps: wants one line of text", None),
        (f'[{MODEL}]\ntitle = "a\\nb"', f"{MODEL}.title: wants one line", None),
        (f"[{MODEL}]\nshape = 1", f"{MODEL}.shape: wants a table", None),
        (
            f"[{MODEL}]\nshape = {{ layers = 1 }}",
            f"{MODEL}.shape.hidden: is missing",
            None,
        ),
        (
            f'[{MODEL}.gguf]\nrevision = "main"',
            f"{MODEL}.gguf.revision: not a commit",
            None,
        ),
        (
            f'[{MODEL}.variants]\nQ4_0 = {{ sha256 = "AB" }}',
            f"{MODEL}.variants.Q4_0.sha256: not a sha256",
            None,
        ),
        (
            f"[{MODEL}.variants]\nQ9_Z = {{}}",
            f"{MODEL}.variants.Q9_Z: unknown quant 'Q9_Z'",
            None,
        ),
        (
            f"[{MODEL}.variants]\nQ4_0 = {{}}\nq4_0 = {{}}",
            f"{MODEL}.variants.q4_0: is there twice, once as 'Q4_0'",
            None,
        ),
        (
            f"[{MODEL}.variants]\nQ4_0 = {{ size = 1, about = 1 }}",
            f"{MODEL}.variants.Q4_0.size: excludes 'about'",
            None,
        ),
        (
            f'[{MODEL}.variants]\nQ4_0 = {{ file = "../x" }}',
            f"{MODEL}.variants.Q4_0.file: not a plain relative path",
            None,
        ),
        (
            f'[{MODEL}.variants]\nQ4_0 = {{ joined = "bytes" }}',
            f"{MODEL}.variants.Q4_0: wants both 'parts' and 'joined'",
            None,
        ),
        (
            f'[{MODEL}.variants]\nQ4_0 = {{ joined = "tape", parts = [] }}',
            f"{MODEL}.variants.Q4_0.joined: wants one of whole, bytes, gguf-split",
            None,
        ),
        (
            f'[{MODEL}]\nlicenses = ["gpl"]',
            f"{MODEL}.licenses: unknown licence 'gpl'",
            "known: free",
        ),
        (
            f'[{MODEL}]\nbase = {{ name = "B", license = "gpl" }}',
            f"{MODEL}.base: unknown licence 'gpl'",
            "known: free",
        ),
        (
            f'[{MODEL}]\nunverified = ["sauce"]',
            f"{MODEL}.unverified: 'sauce' is no key of this table",
            None,
        ),
        (
            f'[{MODEL}.source]\nkind = "delta"',
            f"{MODEL}.base: is missing, and the source is a delta",
            None,
        ),
        (
            '[models.b]\narchitecture = "llama"\ntemplate = "alpaca"',
            "models.b.licenses: is missing",
            None,
        ),
        (
            '[models.b]\narchitecture = "llama"\ntemplate = "alpaca"\nlicenses = []',
            "models.b: has neither a source nor variants",
            "name one of them",
        ),
        (
            '[models.b]\narchitecture = "llama"\ntemplate = "alpaca"\nlicenses = []\n'
            "variants.Q4_0 = {}",
            "models.b.variants.Q4_0: has no repo, and the model no gguf",
            None,
        ),
        (
            '[models.b]\narchitecture = "llama"\ntemplate = "alpaca"\nlicenses = []\n'
            'source.repo = "a/b"\naliases = ["7b"]',
            "models.b.aliases: '7b' already means wizard-7b-v1.0",
            "give one of them other names",
        ),
        ("[models.B]", "models.B: wants lower-case letters", None),
        ("[model.b]", "model: is no key of this table", "did you mean 'models'?"),
        ("models = 1", "models: wants a table, got 1", None),
        (
            '[licenses.l]\nname = "L"\nexpression = "L"\ncommercial = "maybe"',
            "licenses.l.commercial: wants true, false or 'unverified'",
            None,
        ),
        (
            '[licenses.l]\nname = "L"\nexpression = "L"\ncommercial = true\nurl = "x"',
            "licenses.l.url: wants an https address",
            None,
        ),
    ],
)
def test_error_names_file_model_and_key(
    small: Path, text: str, problem: str, hint: str | None
) -> None:
    with pytest.raises(ConfigError) as caught:
        with_user(small, text)

    assert caught.value.message.startswith(f"{small.with_name('user.toml')}: {problem}")
    assert hint is None or caught.value.hint == hint


def test_error_in_the_first_file_names_the_first_file(small: Path) -> None:
    written(small, SMALL.replace("context = 2048", "context = 0"))

    with pytest.raises(ConfigError) as caught:
        with_user(small, "")

    assert caught.value.message.startswith(f"{small}: {MODEL}.context")


def test_newer_schema_is_refused_and_names_the_upgrade(small: Path) -> None:
    written(small, SMALL.replace("schema = 1", "schema = 2"))

    with pytest.raises(ConfigError, match="schema 2 is newer") as caught:
        Registry.read([small])

    assert caught.value.hint == "upgrade: pip install --upgrade wizard-edge"


@pytest.mark.parametrize("line", ["", 'schema = "1"', "schema = true", "schema = 0"])
def test_file_without_a_schema_is_refused(small: Path, line: str) -> None:
    written(small, SMALL.replace("schema = 1", line))

    with pytest.raises(ConfigError, match="schema") as caught:
        Registry.read([small])

    assert caught.value.hint == "put 'schema = 1' on top of the file"


@pytest.mark.parametrize(
    "content",
    [
        b"schema = ",
        b"\xff\xfe",
        b"schema = 1\n[a\n",
        b"a = " + b"[" * 100_000,
        b"schema = 1" + b"0" * 5000,
    ],
    ids=["cut", "not utf-8", "open bracket", "deep", "long number"],
)
def test_file_that_is_no_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "models.toml"
    path.write_bytes(content)

    with pytest.raises(ConfigError, match="is not TOML"):
        Registry.read([path])


def test_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        Registry.read([tmp_path])


def test_cut_at_any_byte_raises_only_our_errors(tmp_path: Path) -> None:
    content = SMALL.encode()
    path = tmp_path / "models.toml"

    for end in range(len(content)):
        path.write_bytes(content[:end])
        try:
            Registry.read([path])
        except ConfigError:
            continue


def test_flipped_bits_raise_only_our_errors(tmp_path: Path) -> None:
    dice = random.Random(7)
    path = tmp_path / "models.toml"

    for _ in range(300):
        content = bytearray(SMALL.encode())
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        path.write_bytes(content)
        try:
            Registry.read([path])
        except ConfigError:
            continue


def test_random_text_is_a_model_or_our_error() -> None:
    dice = random.Random(7)
    alphabet = "ab1./\\:-_~ hf:QK\x00\u00e9"

    for _ in range(3000):
        text = "".join(dice.choices(alphabet, k=dice.randrange(12)))
        try:
            ref = ModelRef.parse(text)
        except WizardEdgeError:
            continue
        assert str(ref)


def test_shipped_file_lies_in_the_package_or_beside_it() -> None:
    assert builtin_file().name == "models.toml"
