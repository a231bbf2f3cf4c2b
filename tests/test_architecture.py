"""Who may import whom: the layers of the design as data, read with `ast`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "wizard_edge"
CONVERTERS = ROOT / "converters" / "wizard_edge_converters"

# A module or package of wizard_edge -> its layer. Imports point downwards, or
# sideways where that makes no circle.
LAYERS = {
    "errors": 0,
    "files": 0,
    "names": 0,
    "progress": 0,
    "units": 0,
    "changes": 1,
    "checksums": 1,
    "chunks": 1,
    "config": 1,
    "copying": 1,
    "endpoints": 1,
    "gbnf": 1,
    "gguf": 1,
    "gguf_cursor": 1,
    "gguf_parts": 1,
    "gguf_rules": 1,
    "gguf_types": 1,
    "gguf_vocabulary": 1,
    "hashing": 1,
    "json_leaves": 1,
    "json_pattern": 1,
    "json_schema": 1,
    "locking": 1,
    "models": 1,
    "page_cache": 1,
    "part_files": 1,
    "paths": 1,
    "private": 1,
    "receipts": 1,
    "refs": 1,
    "registry": 1,
    "registry_schema": 1,
    "scanning": 1,
    "sums": 1,
    "tables": 1,
    "templates": 1,
    "answer_text": 2,
    "answers": 2,
    "backend": 2,
    "condition": 2,
    "conversation": 2,
    "conversion": 2,
    "download": 2,
    "drift": 2,
    "engine": 2,
    "fitting": 2,
    "governor": 2,
    "hardware": 2,
    "history": 2,
    "hub": 2,
    "jobs": 2,
    "kv_cache": 2,
    "ledger": 2,
    "licenses": 2,
    "lookup": 2,
    "low_memory": 2,
    "memory": 2,
    "neighbours": 2,
    "offload": 2,
    "overflow": 2,
    "pace": 2,
    "parking": 2,
    "parking_disk": 2,
    "prompt": 2,
    "replies": 2,
    "scheduler": 2,
    "scoring": 2,
    "session_folders": 2,
    "sessions": 2,
    "shares": 2,
    "slots": 2,
    "speculation": 2,
    "speed": 2,
    "spelling": 2,
    "state_files": 2,
    "steering": 2,
    "step_costs": 2,
    "store": 2,
    "transcripts": 2,
    "tuning": 2,
    "tuning_file": 2,
    "turn_files": 2,
    "turns": 2,
    "verdicts": 2,
    "_llama": 3,
    "evaluate": 3,
    "service": 3,
    "worker": 3,
    "__init__": 4,
    "__main__": 4,
    "cli": 4,
    "server": 4,
}
# What only one place may import. "_llama" is that place for the binding, and so on.
OWNERS = {
    "llama_cpp": {"_llama"},
    "click": {"cli"},
    "rich": {"cli"},
    "prompt_toolkit": {"cli"},
    "starlette": {"server"},
    "uvicorn": {"server"},
}
# The commands that hand the converter pipeline down as a value.
CONVERTER_USERS = {"cli/convert.py", "cli/pull.py", "cli/quantize.py", "cli/imatrix.py"}
CONVERTERS_MAY_USE = {0, 1, 2}
STDLIB_ONLY_LAYERS = {0}
THIRD_PARTY = {
    "click",
    "filelock",
    "gguf",
    "huggingface_hub",
    "llama_cpp",
    "numpy",
    "platformdirs",
    "prompt_toolkit",
    "rich",
    "sentencepiece",
    "starlette",
    "uvicorn",
}

FILES = sorted(PACKAGE.rglob("*.py"))
CONVERTER_FILES = sorted(CONVERTERS.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Yield every module a file imports for use, not those for annotations only."""
    yield from _imports(ast.parse(path.read_text(encoding="utf-8")))


def _imports(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and _is_type_checking(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            yield base
            if base in ("wizard_edge", "wizard_edge_converters"):
                yield from (f"{base}.{alias.name}" for alias in child.names)
        else:
            yield from _imports(child)


def _is_type_checking(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def part_of(path: Path) -> str:
    """Return the module or package of wizard_edge that a file belongs to."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def own_imports(path: Path) -> Iterator[str]:
    for name in imports(path):
        parts = name.split(".")
        # `from wizard_edge import __version__` names no module.
        if parts[0] == "wizard_edge" and len(parts) > 1 and parts[1] != "__version__":
            yield parts[1]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def violations(path: Path) -> list[str]:
    """Return what a file of wizard_edge imports against the rules."""
    part = part_of(path)
    layer = LAYERS[part]
    found = [
        f"{name} (layer {LAYERS[name]})"
        for name in own_imports(path)
        if LAYERS[name] > layer
    ]
    for name in imports(path):
        top = name.split(".")[0]
        if part not in OWNERS.get(top, {part}):
            found.append(top)
        if layer in STDLIB_ONLY_LAYERS and top in THIRD_PARTY:
            found.append(top)
        inside = path.relative_to(PACKAGE).as_posix()
        if top == "wizard_edge_converters" and inside not in CONVERTER_USERS:
            found.append(top)
    return found


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_point_downwards(path: Path) -> None:
    assert violations(path) == []


def test_every_module_has_a_layer() -> None:
    assert {part_of(path) for path in FILES} <= set(LAYERS)


@pytest.mark.parametrize("path", CONVERTER_FILES, ids=relative)
def test_converters_use_facts_and_ggml_only(path: Path) -> None:
    used = set(own_imports(path))

    assert {n for n in used if LAYERS[n] not in CONVERTERS_MAY_USE} <= {"_llama"}
    assert not {name.split(".")[0] for name in imports(path)} & set(OWNERS)


def test_no_circles_between_modules() -> None:
    graph: dict[str, set[str]] = {}
    for path in FILES:
        graph.setdefault(part_of(path), set()).update(own_imports(path))

    assert _circle(graph) is None


def test_a_wrong_import_is_noticed(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from wizard_edge import service\nimport wizard_edge.cli.run\n")

    assert list(own_imports(wrong)) == ["service", "cli"]


def test_nothing_outside_the_output_prints() -> None:
    printing = [
        relative(path)
        for path in [*FILES, *CONVERTER_FILES]
        if path.name != "_output.py" and _calls_print(path)
    ]

    assert printing == []


def test_only_one_function_turns_outside_text_into_a_path() -> None:
    users = [
        relative(path)
        for path in FILES
        if ".joinpath(" in path.read_text(encoding="utf-8")
    ]

    assert users == ["wizard_edge/paths.py"]


def _calls_print(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("print", "input")
        for node in ast.walk(tree)
    )


def _circle(graph: dict[str, set[str]]) -> list[str] | None:
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> list[str] | None:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return None
        for target in sorted(graph.get(name, set()) - {name}):
            found = visit(target, [*trail, name])
            if found:
                return found
        done.add(name)
        return None

    for name in sorted(graph):
        found = visit(name, [])
        if found:
            return found
    return None
