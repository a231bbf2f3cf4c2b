"""The catalogue of models and licences: `models.toml`, read into values.

The shipped file comes first, a file of the user's adds to it or overrides it;
`registry_schema` says what may stand in them. Knows no store and no hub. `difflib`
is imported where an error needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self, TypeVar

from wizard_edge.errors import ConfigError, NotFound, UnknownModel
from wizard_edge.models import (
    Base,
    License,
    Mirror,
    ModelSpec,
    RemoteFile,
    RopeScaling,
    SamplingDefaults,
    Scores,
    Shape,
    Source,
    Tokenizer,
    Variant,
)
from wizard_edge.registry_schema import (
    FILE,
    LICENSE,
    MODEL,
    check_licenses,
    license_from,
    spec_from,
)
from wizard_edge.tables import (
    Keys,
    Misfit,
    Table,
    check_complete,
    key_paths,
    merge,
    parse_file,
    read,
)

__all__ = [
    "SCHEMA",
    "Base",
    "License",
    "Mirror",
    "ModelSpec",
    "Registry",
    "RemoteFile",
    "RopeScaling",
    "SamplingDefaults",
    "Scores",
    "Shape",
    "Source",
    "Tokenizer",
    "Variant",
    "builtin_file",
    "schema_keys",
]

SCHEMA = 1
_HINT = "every key is explained in docs/models.md"


class Registry:
    """All models and licences, in the order of the files."""

    __slots__ = ("_by_name", "_licenses", "_models")

    def __init__(
        self, models: Iterable[ModelSpec], licenses: Iterable[License]
    ) -> None:
        self._models = {spec.name: spec for spec in models}
        self._licenses = {license_.id: license_ for license_ in licenses}
        self._by_name = _by_name(self._models.values())

    @classmethod
    def load(cls, user: Path | None = None) -> Self:
        """Read the shipped file, then the user's if it exists.

        Raises: ConfigError naming file, model and key.
        """
        files = [builtin_file()]
        if user is not None and user.exists():
            files.append(user)
        return cls.read(files)

    @classmethod
    def read(cls, files: Sequence[Path]) -> Self:
        """Read these files; what a later one says goes over what an earlier one did.

        Raises: ConfigError naming file, model and key.
        """
        content: Table = {}
        touched: dict[str, Path] = {}
        for path in files:
            later = _read_file(path)
            for kind in ("licenses", "models"):
                touched |= {f"{kind}.{name}": path for name in later.get(kind, {})}
            content = merge(FILE, content, later)
        licenses = content.get("licenses", {})

        def make_spec(name: str, table: Table) -> ModelSpec:
            check_licenses(table, licenses)
            return spec_from(name, table)

        models = _build(content, "models", MODEL, make_spec, touched)
        built = _build(content, "licenses", LICENSE, license_from, touched)
        try:
            return cls(models, built)
        except Misfit as err:
            raise err.in_file(files[-1], hint="give one of them other names") from None

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self._models.values())

    def __len__(self) -> int:
        return len(self._models)

    @property
    def licenses(self) -> tuple[License, ...]:
        """Every licence, in the order of the files."""
        return tuple(self._licenses.values())

    def find(self, name: str) -> ModelSpec:
        """Find a model by its name, title, alias or official repository, in any case.

        Raises: UnknownModel with the names that come near.
        """
        found = self._by_name.get(name.strip().lower())
        if found is None:
            raise UnknownModel(name, near=self._near(name.strip().lower()))
        return found

    def license(self, license_id: str) -> License:
        """Find a licence by its id. Raises: NotFound."""
        if license_id not in self._licenses:
            hint = f"known: {', '.join(self._licenses)}"
            raise NotFound(f"unknown licence {license_id!r}", hint=hint)
        return self._licenses[license_id]

    def _near(self, wanted: str) -> Sequence[str]:
        from difflib import get_close_matches

        close = get_close_matches(wanted, self._by_name, n=6)
        # One letter is in too many names to be near any of them.
        within = [name for name in self._by_name if wanted in name and wanted[1:]]
        near = [self._by_name[name].name for name in (*close, *within)]
        return list(dict.fromkeys(near))[:3]


def builtin_file() -> Path:
    """Find the shipped models.toml.

    Raises: ConfigError where the installation lost it.
    """
    package = Path(__file__).parent
    # A wheel holds it inside the package, an editable install beside it.
    for directory in (package, package.parent):
        if (directory / "models.toml").is_file():
            return directory / "models.toml"
    raise ConfigError(
        f"models.toml is missing from {package}", hint="install wizard-edge again"
    )


def schema_keys() -> dict[str, bool]:
    """Give the dotted path of every key of models.toml, and whether it must be there.

    `<name>` stands for a model, `<id>` for a licence, `<quant>`, `<file>` and
    `<token>` for what they say.
    """
    return dict(key_paths(FILE))


def _read_file(path: Path) -> Table:
    content = parse_file(path)
    schema = content.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise ConfigError(
            f"{path}: schema: is missing or no number",
            hint=f"put 'schema = {SCHEMA}' on top of the file",
        )
    if schema > SCHEMA:
        raise ConfigError(
            f"{path}: schema {schema} is newer than this program, which reads {SCHEMA}",
            hint="upgrade: pip install --upgrade wizard-edge",
        )
    try:
        table: Table = read(FILE, content)
    except Misfit as err:
        raise err.in_file(path, hint=_HINT) from err
    return table


_T = TypeVar("_T")


def _build(
    content: Table,
    kind: str,
    schema: Keys,
    make: Callable[[str, Table], _T],
    touched: dict[str, Path],
) -> list[_T]:
    """Make a value of each table; an error names the last file that touched it."""
    built = []
    for name, table in content.get(kind, {}).items():
        try:
            check_complete(schema, table)
            built.append(make(name, table))
        except Misfit as err:
            path = touched[f"{kind}.{name}"]
            raise err.under(kind, name).in_file(path, hint=_HINT) from None
    return built


def _by_name(models: Iterable[ModelSpec]) -> dict[str, ModelSpec]:
    """Everything a model is called by, in lower case; each name means one model."""
    names: dict[str, ModelSpec] = {}
    for spec in models:
        source = spec.source
        repos = (source.repo, *source.former) if source else ()
        for name in (spec.name, spec.title, *spec.aliases, *filter(None, repos)):
            other = names.setdefault(name.lower(), spec)
            if other is not spec:
                problem = f"{name!r} already means {other.name}"
                raise Misfit(problem, "models", spec.name, "aliases")
    return names
