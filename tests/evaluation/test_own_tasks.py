"""Metrics and tasks of one's own: each is run under its own name, or an error says why not."""

import importlib
from textwrap import dedent

import pytest

from chiasm.errors import ChiasmError, RecipeError
from chiasm.evaluation import metrics
from chiasm.evaluation.tasks import check, tasks
from chiasm.parts.plugins import load_plugins
from chiasm.recipe import load_recipe

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

METRIC = """
from chiasm.evaluation.metrics import metric

@metric("own")
def right(answer, truths):
    return {value}
"""
TASK = """
from chiasm.evaluation.tasks import Outcome, Task

class Length(Task, name="length"):
    def run(self, exam):
        return Outcome({{"value": {value}}}, {{}})
"""
BASES = """
from abc import abstractmethod
from chiasm.evaluation.tasks import Outcome, Task
from chiasm.evaluation.tasks.questions import Questions

class Counting(Task):
    @abstractmethod
    def count(self, exam): ...

    def run(self, exam):
        return Outcome({"count": self.count(exam)}, {})

class Groups(Counting, name="groups"):
    def count(self, exam):
        return len(exam.source)

class Mine(Questions):
    name = "mine"  # as good as name="mine" behind the base
"""


@pytest.fixture
def load(tmp_path):
    def write_and_load(**files):
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(dedent(text))
        load_plugins(tmp_path / f"{name}.py" for name in files)

    return write_and_load


def test_a_metric_never_takes_the_place_of_another_files(load):
    with pytest.raises(RecipeError, match=r"metric 'own' is defined twice: .*one\.py and .*two\.py"):
        load(one=METRIC.format(value=0.0), two=METRIC.format(value=1.0))
    assert metrics.lookup("own")("", [""]) == 0.0


def test_two_metrics_or_tasks_of_one_name_in_one_file_are_an_error(load):
    with pytest.raises(RecipeError, match=r"metric 'own' is defined twice: .* line 4 of .* line 10 of"):
        load(twice=METRIC.format(value=0.0) + METRIC.format(value=1.0))
    with pytest.raises(RecipeError, match=r"task 'length' is defined twice: .* line 5 of .* line 11 of"):
        load(again=TASK.format(value=1) + TASK.format(value=2))


def test_a_task_never_takes_the_place_of_another_files(load):
    with pytest.raises(RecipeError, match=r"task 'length' is defined twice: .*one\.py and .*two\.py"):
        load(one=TASK.format(value=1), two=TASK.format(value=2))
    assert tasks()["length"].run(None).scores == {"value": 1}


def test_a_task_that_derives_from_another_needs_a_name_of_its_own(load):
    for given in ("", ", name='text'"):
        with pytest.raises(RecipeError, match=r"(has no name|is defined twice): .*Mine in .*one\.py"):
            load(one=f"from chiasm.evaluation.tasks.text import Text\n\nclass Mine(Text{given}):\n    pass\n")


def test_one_file_may_be_imported_under_two_names(load, tmp_path, monkeypatch):
    load(measured_twice=METRIC.format(value=0.5) + TASK.format(value=1))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(importlib.sys.modules, "measured_twice", raising=False)
    load_plugins(["measured_twice"])
    assert metrics.lookup("own")("", [""]) == 0.5
    assert "length" in tasks()
    del importlib.sys.modules["measured_twice"]


def test_tasks_are_run_however_they_derive_and_interfaces_are_not(load):
    before = list(tasks())
    load(one=BASES)
    assert list(tasks()) == [*before, "groups", "mine"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def run(self, exam): ...", r"has no name: Nameless in .*one\.py"),
        ("name = ' '\n    def run(self, exam): ...", "has no name: Nameless"),
        ("name = 3\n    def run(self, exam): ...", "has no name: Nameless"),
        ("name = 'x'\n    def __init__(self, a): ...\n    def run(self, exam): ...", "'x' cannot be built"),
        (
            "name = 'x'\n    def __init__(self, *, a: int): ...\n    def run(self, exam): ...",
            "needs the option 'a'",
        ),
    ],
)
def test_a_task_that_cannot_be_run_is_named(load, body, message):
    def load_and_build():
        load(one=f"from chiasm.evaluation.tasks import Task\n\nclass Nameless(Task):\n    {body}\n")
        tasks()

    with pytest.raises(ChiasmError, match=message):
        load_and_build()


OPTIONS = """
from chiasm.evaluation.tasks import Outcome, Task

class Length(Task, name="length"):
    def __init__(self, *, most: int = 20):
        self.most = most

    def run(self, exam):
        return Outcome({"value": self.most}, {})
"""


def test_a_tasks_options_are_its_constructors_and_stand_in_the_recipe(load, tiny):
    load(one=OPTIONS)
    assert tasks()["length"].most == 20
    recipe = load_recipe(tiny, ["evaluation.tasks.length.most=3"])
    check(recipe.evaluation)
    assert tasks(recipe.evaluation.tasks)["length"].most == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("length.mots=3", "task 'length' has no option 'mots'; did you mean 'most'?"),
        ("length.most=much", r"evaluation\.tasks\.length\.most is 'much'"),
        ("lenght.most=3", "there is no task 'lenght'; did you mean 'length'?"),
        ("wholly_other.most=3", r"there is no task 'wholly_other'; known: .*--plugin FILE"),
    ],
)
def test_a_wrong_option_of_a_task_is_named_before_anything_is_asked(load, tiny, override, message):
    load(one=OPTIONS)
    recipe = load_recipe(tiny, [f"evaluation.tasks.{override}"])
    for use in (lambda: check(recipe.evaluation), lambda: tasks(recipe.evaluation.tasks)):
        with pytest.raises(RecipeError, match=message):
            use()
