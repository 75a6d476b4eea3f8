"""Small changes of a module's source, one at a time, for `mutations.py`.

A change turns one operator, comparison, `and`/`or`, `not`, number, truth value or returned value into another. What
decides nothing is left alone: annotations, decorators, f-strings, the sentences of errors (`raise`), blocks for the
type checker, the `strict` of a `zip`, which guards against what never happens, and the `example` of a part, from
which the contract tests build it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

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
LEFT_ALONE = {"annotation", "returns", "decorator_list", "format_spec"}


@dataclass(frozen=True)
class Place:
    """Where a change can be made: the number of a node in a module, and of one of its changes.

    function: first line of the outermost function that the node runs in, counting its decorators (what a compiler
        traces does not tell that it calls a function within); None on import.
    """

    module: Path
    node: int
    way: int
    function: int | None


@dataclass(frozen=True)
class Mutant:
    """One change: its place, the line, the expression before and after, and the changed source."""

    place: Place
    line: int
    before: str
    after: str
    source: str

    @property
    def module(self) -> Path:
        return self.place.module

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.before}  ->  {self.after}"


def places(module: Path) -> list[Place]:
    """Every place and way in which a module's source can be changed."""
    nodes = _nodes(ast.parse(module.read_text(encoding="utf-8")))
    return [
        Place(module, index, way, function)
        for index, (node, function) in enumerate(nodes)
        for way in range(len(list(_changes(node))))
    ]


def mutate(place: Place) -> Mutant:
    """The module with the one change."""
    tree = ast.parse(place.module.read_text(encoding="utf-8"))
    node, _ = _nodes(tree)[place.node]
    before = ast.unparse(node)
    list(_changes(node))[place.way]()
    line = getattr(node, "lineno", 0)
    return Mutant(place, line, before, ast.unparse(node), ast.unparse(ast.fix_missing_locations(tree)))


def _nodes(tree: ast.AST) -> list[tuple[ast.AST, int | None]]:
    """What may be changed, each with the first line of the function that it runs in."""
    nodes: list[tuple[ast.AST, int | None]] = []

    def visit(node: ast.AST, function: int | None) -> None:
        nodes.append((node, function))
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for field, value in ast.iter_fields(node):
            if field in LEFT_ALONE:
                continue
            within = function or (_first_line(node) if is_function and field == "body" else None)
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not _decides_nothing(child):
                    visit(child, within)

    visit(tree, None)
    return nodes


def _first_line(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])


def _decides_nothing(node: ast.AST) -> bool:
    for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    strict = isinstance(node, ast.keyword) and node.arg == "strict"
    example = isinstance(node, ast.FunctionDef) and node.name.startswith("example")
    return isinstance(node, ast.JoinedStr | ast.Raise) or for_types or strict or example


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
