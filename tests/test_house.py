"""The house: which room may know of which, and that nothing lies loose that has a room."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "chiasm"
# From left to right: a room knows those before it.
ROOMS = (
    *("errors", "storage", "parts", "distribution", "nn", "recipe"),
    *("views", "sequence", "data", "encoders", "connectors", "language", "routing"),
    *("critics", "tokenizers", "heads", "decoders", "modalities", "model", "objectives"),
    *(
        "inference",
        "conversation",
        "training",
        "evaluation",
        "curation",
        "studies",
        "serving",
        "interop",
        "terminal",
        "cli",
    ),
)
LOOSE = {"__init__", "errors"}  # the package's face, its errors
# What knows of a room to its right, and why.
EXCEPTIONS = {
    ("recipe.schema", "heads.sampling"): "options of drawing become what a head is handed",
    ("recipe.schema", "inference.text"): "options of words become what the engine is handed",
    ("model", "inference.completion"): "Model.complete is the engine's",
    ("model", "inference.drawing"): "Model.generate is the engine's",
    ("model", "inference.editing"): "Model.edit is the engine's",
    ("model", "inference.masks"): "Model.segment is the engine's",
    ("model", "conversation"): "Model.chat is the engine's",
    ("training.train", "evaluation.tasks"): "what a recipe measures is checked before it trains",
    ("training.train", "terminal.console"): "progress goes where commands print",
}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")


def imports(node: ast.AST) -> Iterator[str]:
    """Modules of the package that run or may run where this is imported; for annotations alone: none."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.ImportFrom) and (child.module or "").partition(".")[0] == "chiasm":
            for each in child.names:
                path = f"{child.module}.{each.name}".removeprefix("chiasm.")
                whole = PACKAGE / path.replace(".", "/")
                is_module = whole.with_suffix(".py").exists() or whole.is_dir()
                yield path if is_module else (child.module or "").removeprefix("chiasm").lstrip(".")
        if isinstance(child, ast.Import):
            yield from (n.name.removeprefix("chiasm.") for n in child.names if n.name.startswith("chiasm."))
        yield from imports(child)


def edges() -> set[tuple[str, str]]:
    return {
        (module_of(path), target)
        for path in PACKAGE.rglob("*.py")
        if module_of(path)
        for target in imports(ast.parse(path.read_text(encoding="utf-8")))
    }


def room(module: str) -> str:
    return module.partition(".")[0]


def test_nothing_imports_to_its_right():
    rank = {name: index for index, name in enumerate(ROOMS)}
    wrong = {
        (source, target)
        for source, target in edges()
        if target and rank[room(source)] < rank[room(target)] and (source, target) not in EXCEPTIONS
    }
    assert not wrong


@pytest.mark.parametrize("edge", EXCEPTIONS, ids=" -> ".join)
def test_an_exception_is_still_needed(edge):
    assert edge in edges()


def test_every_room_has_its_place():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert rooms | LOOSE - {"__init__"} == set(ROOMS)


def test_no_file_lies_loose():
    assert {path.stem for path in PACKAGE.glob("*.py")} == LOOSE


def test_the_rooms_say_what_they_are():
    mute = [path for path in PACKAGE.rglob("*.py") if ast.get_docstring(ast.parse(path.read_text())) is None]
    assert not mute


def test_a_class_has_a_name_of_its_own():
    files = {path: ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
    homes: dict[str, list[str]] = {}
    for path, tree in files.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(module_of(path))
    assert {name: modules for name, modules in homes.items() if len(modules) > 1} == {}
