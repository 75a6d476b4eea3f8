"""The changes that `benchmarks/mutations.py` makes: one at a time, and of what decides something."""

import ast
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from mutants import mutate, places

SOURCE = '''
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elsewhere import one


@decorator(3)
def f(a: int = 1, *, b: Literal[2] = 2) -> Annotated[int, 3]:
    """Adds 1 and 1."""
    if not a < b and b in (1, 2):
        raise ValueError("from 1 to %d" % (b - 1))
    pairs = zip(a, b, strict=True)

    def inner(x):
        return -x

    return f"{a + 1:.3f}" + inner(b)


def example():
    return {"width": 4}
'''


@pytest.fixture
def module(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(SOURCE)
    return path


def test_every_change_is_one_and_another(module):
    mutants = [mutate(place) for place in places(module)]
    assert len({mutant.source for mutant in mutants}) == len(mutants)
    plain = ast.unparse(ast.parse(SOURCE)).splitlines()
    for mutant in mutants:
        changed = [line for line in mutant.source.splitlines() if line not in plain]
        assert len(changed) == 1
        compile(mutant.source, "module.py", "exec")


def test_what_decides_is_changed_and_nothing_else(module):
    changes = {(mutant.before, mutant.after) for mutant in map(mutate, places(module))}
    assert changes == {
        ("1", "2"), ("2", "3"),  # the defaults and the numbers of the condition
        ("not a < b and b in (1, 2)", "not a < b or b in (1, 2)"),
        ("not a < b", "not not a < b"),
        ("a < b", "a <= b"),
        ("b in (1, 2)", "b not in (1, 2)"),
        ("return -x", "return None"),
        ("-x", "+x"),
        ("return f'{a + 1:.3f}' + inner(b)", "return None"),
        ("f'{a + 1:.3f}' + inner(b)", "f'{a + 1:.3f}' - inner(b)"),
    }  # fmt: skip


def test_a_place_knows_the_function_that_it_runs_in(module):
    """By the line of its first decorator; defaults are reckoned where the function is made."""
    functions = {mutate(place).before: place.function for place in places(module)}
    outer = SOURCE.splitlines().index("@decorator(3)") + 1
    assert functions["a < b"] == functions["return f'{a + 1:.3f}' + inner(b)"] == outer
    assert (
        functions["-x"] == outer
    )  # a compiler that traces the outer one does not tell that the inner is called
    assert {place.function for place in places(module) if mutate(place).line == outer + 1} == {None}
