"""Metrics and tasks of one's own: each is run under its own name, or an error says why not."""

import importlib
from textwrap import dedent

import pytest

from chiasm.errors import ChiasmError, RecipeError
from chiasm.evaluation import metrics
from chiasm.evaluation.tasks import tasks
from chiasm.plugins import load_plugins

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

METRIC = """
from chiasm.evaluation.metrics import metric

@metric("own")
def right(answer, truths):
    return {value}
"""
TASK = """
from chiasm.evaluation.tasks import Outcome, Task

class Length(Task):
    name = "length"

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

class Groups(Counting):
    name = "groups"

    def count(self, exam):
        return len(exam.source)

class Mine(Questions):
    name = "mine"
"""


@pytest.fixture
def load(tmp_path):
    def write_and_load(**files):
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(dedent(text))
        load_plugins(tmp_path / f"{name}.py" for name in files)

    return write_and_load


def test_a_metric_never_takes_the_place_of_another_files(load):
    with pytest.raises(RecipeError, match=r"two metrics are named 'own': .*one\.py and .*two\.py"):
        load(one=METRIC.format(value=0.0), two=METRIC.format(value=1.0))
    assert metrics.lookup("own")("", [""]) == 0.0


def test_a_task_never_takes_the_place_of_another_files(load):
    load(one=TASK.format(value=1), two=TASK.format(value=2))
    with pytest.raises(
        RecipeError, match=r"two evaluation tasks are named 'length': .*one\.py and .*two\.py"
    ):
        tasks()


def test_a_task_that_derives_from_another_needs_a_name_of_its_own(load):
    load(one="from chiasm.evaluation.tasks.text import Text\n\nclass Mine(Text):\n    pass\n")
    with pytest.raises(RecipeError, match=r"two evaluation tasks are named 'text': .*Mine in .*one\.py"):
        tasks()


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
    ],
)
def test_a_task_that_cannot_be_run_is_named(load, body, message):
    load(one=f"from chiasm.evaluation.tasks import Task\n\nclass Nameless(Task):\n    {body}\n")
    with pytest.raises(ChiasmError, match=message):
        tasks()
