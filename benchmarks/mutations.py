"""Would the tests notice? One small change of the source at a time, and whether a test fails.

    python benchmarks/mutations.py evaluation data/world/checker.py          # all changes of these modules
    python benchmarks/mutations.py heads routing --sample 100 --seed 0        # a hundred of them
    python benchmarks/mutations.py losses.py --tests tests/test_losses.py     # against these tests

Modules are files or folders below src/chiasm. A change turns one operator, comparison, `and`/`or`, `not`, number,
truth value or returned value into another. The tests of a module are the files of its name
(`tests/test_losses.py`), or where there are none those of the folder that mirrors its own (`tests/heads/`). They
run up to the first failure, without the slow ones, in a forked process that imports a copy of the package with the
one change. A change that runs into the time limit counts as noticed: something waits for it that never comes.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import multiprocessing
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, TESTS = ROOT / "src" / "chiasm", ROOT / "tests"
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.MatMult: ast.Mult,
}
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


@dataclass(frozen=True)
class Place:
    """Where a change can be made: the number of a node in a module, and of one of its changes."""

    module: Path
    node: int
    way: int


@dataclass(frozen=True)
class Mutant:
    """One change: the module, the line, the expression before and after, and the changed source."""

    module: Path
    line: int
    before: str
    after: str
    source: str

    def __str__(self) -> str:
        return f"{self.module.relative_to(ROOT)}:{self.line}: {self.before}  ->  {self.after}"


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("modules", nargs="+", help="files or folders below src/chiasm")
    arguments.add_argument("--sample", type=int, help="how many changes, drawn by the seed; default: all")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--tests", nargs="+", help="in place of the tests that mirror each module")
    arguments.add_argument("--timeout", type=float, default=300, help="seconds of one change")
    given = arguments.parse_args()
    chosen = [place for module in modules(given.modules) for place in places(module)]
    if given.sample is not None:
        chosen = random.Random(given.seed).sample(chosen, min(given.sample, len(chosen)))
    mutants = [mutate(place) for place in chosen]
    _preload()
    tests = {m.module: list(given.tests or mirroring(m.module)) for m in mutants}
    for files in {tuple(files) for files in tests.values()}:
        if not files:
            sys.exit("a module has no tests that mirror it; name some with --tests")
        if noticed(None, files, given.timeout):
            sys.exit(f"the tests fail before anything is changed: {' '.join(files)}")
    survivors = []
    for number, mutant in enumerate(mutants, 1):
        killed = noticed(mutant, tests[mutant.module], given.timeout)
        print(f"{number}/{len(mutants)} {'killed  ' if killed else 'SURVIVED'} {mutant}", flush=True)
        survivors += [] if killed else [mutant]
    print(f"\n{len(mutants) - len(survivors)} of {len(mutants)} killed", end="")
    print(f" ({1 - len(survivors) / len(mutants):.1%})" if mutants else "")
    print("".join(f"survived: {mutant}\n" for mutant in survivors), end="")


def modules(named: Sequence[str]) -> list[Path]:
    """The files that the arguments stand for."""
    found: list[Path] = []
    for name in named:
        path = PACKAGE / name
        if not path.exists():
            sys.exit(f"there is no {path.relative_to(ROOT)}")
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return found


def mirroring(module: Path) -> list[str]:
    """The tests of a module: the files of its name, or where there are none those of its folder."""
    place = module.relative_to(PACKAGE)
    folder = TESTS / place.parent
    own = [TESTS / f"test_{place.stem}.py", *sorted(folder.glob(f"test_*{place.stem}.py"))]
    found = [path for path in dict.fromkeys(own) if path.exists()]
    if not found and place.parent != Path():
        found = sorted(folder.glob("test_*.py"))
    return [str(path.relative_to(ROOT)) for path in found]


def places(module: Path) -> list[Place]:
    """Every place and way in which a module's source can be changed."""
    nodes = _nodes(ast.parse(module.read_text(encoding="utf-8")))
    return [
        Place(module, index, way)
        for index, node in enumerate(nodes)
        for way in range(len(list(_changes(node))))
    ]


def mutate(place: Place) -> Mutant:
    """The module with the one change."""
    tree = ast.parse(place.module.read_text(encoding="utf-8"))
    node = _nodes(tree)[place.node]
    before = ast.unparse(node)
    list(_changes(node))[place.way]()
    line = getattr(node, "lineno", 0)
    return Mutant(place.module, line, before, ast.unparse(node), ast.unparse(ast.fix_missing_locations(tree)))


def _nodes(tree: ast.AST) -> list[ast.AST]:
    """What may be changed: no annotation, no docstring and no f-string's form."""
    found: list[ast.AST] = []

    def visit(node: ast.AST) -> None:
        found.append(node)
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list", "format_spec"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                    visit(child)

    visit(tree)
    return found


def _changes(node: ast.AST) -> Iterator[Callable[[], None]]:
    """Functions that each change the node in one way."""
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OPERATORS:
        yield lambda: setattr(node, "op", OPERATORS[type(node.op)]())
    elif isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            if type(operator) in COMPARISONS:
                yield lambda i=i, operator=operator: node.ops.__setitem__(i, COMPARISONS[type(operator)]())
    elif isinstance(node, ast.BoolOp):
        yield lambda: setattr(node, "op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield lambda: setattr(node, "op", ast.UAdd())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield lambda: setattr(node, "operand", ast.UnaryOp(ast.Not(), node.operand))
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield lambda: setattr(node, "value", not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield lambda: setattr(node, "value", node.value + 1)
    elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        yield lambda: setattr(node, "value", ast.Constant(None))


def _is_none(value: ast.AST) -> bool:
    return isinstance(value, ast.Constant) and value.value is None


def noticed(mutant: Mutant | None, tests: Sequence[str], timeout: float) -> bool:
    """Whether the tests fail, or do not end, with the change."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        _mirror(source / "chiasm", mutant)
        (Path(folder) / "recipes").symlink_to(ROOT / "recipes")
        process = multiprocessing.get_context("fork").Process(target=_test, args=(source, list(tests)))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            return True
        return process.exitcode != 0


def _mirror(package: Path, mutant: Mutant | None) -> None:
    """The package by links, but for the changed module."""
    changed = mutant.module.relative_to(PACKAGE) if mutant else Path()
    here, there = package, PACKAGE
    for part in (*changed.parts[:-1], None):
        here.mkdir(parents=True)
        for entry in there.iterdir():
            if entry.name not in (part, "__pycache__", changed.parts[-1] if part is None and mutant else ""):
                (here / entry.name).symlink_to(entry)
        if part is not None:
            here, there = here / part, there / part
    if mutant:
        (here / changed.name).write_text(mutant.source, encoding="utf-8")


def _preload() -> None:
    """What takes long to import and is not changed, once for all forks."""
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for name in (
        "torch",
        "transformers",
        "pytest",
        "pydantic",
        "PIL.Image",
        "jinja2",
        "rich.console",
        "typer",
    ):
        __import__(name)


def _test(source: Path, tests: list[str]) -> None:
    import pytest

    os.chdir(ROOT)
    sys.path.insert(0, str(source))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = pytest.main(["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--no-header", *tests])
    os._exit(int(code))


if __name__ == "__main__":
    main()
