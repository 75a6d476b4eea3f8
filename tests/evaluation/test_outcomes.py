"""Tasks of one's own that fail, or give what cannot be written down: a sentence, and the others' results stay."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from chiasm.evaluation import evaluate
from chiasm.evaluation.outcomes import FailedTask, run_task
from chiasm.evaluation.tasks import NotApplicable, Outcome, Task

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def running(function):
    class Boom(Task, name="boom"):
        def run(self, exam):
            return function()

    return Boom()


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (Outcome({"score": float("nan"), "x": [1]}, {}), "task 'boom' gives nan for 'score'"),
        (Outcome({"by": {"a": float("inf")}}, {}), r"gives inf for 'by\.a'"),
        (Outcome({"score": "high"}, {}), "gives 'high' for 'score'; it must be a number"),
        (Outcome({"score": 0.5, "ci": [0.1]}, {}), r"gives \[0\.1\] for 'ci'; it must be two numbers"),
        (Outcome({"score": np.float32(0.5)}, {}), "gives scores that are no JSON: Object of type float32"),
        (Outcome({"score": 0.5}, {"rows": {1, 2}}), "gives samples that are no JSON"),
        (Outcome([0.5], {}), r"gives scores \[0\.5\]; they must be a dict"),
        (None, "gives None; it must be an Outcome"),
    ],
)
def test_what_cannot_be_written_down_is_refused(outcome, message):
    with pytest.raises(FailedTask, match=message):
        run_task(running(lambda: outcome), None)


def test_what_can_be_is_given_on():
    outcome = Outcome({"score": 0.5, "ci": [0.4, 0.6], "note": "x", "by": {"n": 3}}, {"rows": []})
    assert run_task(running(lambda: outcome), None) is outcome


def test_a_failure_has_its_line_and_what_does_not_apply_is_none():
    with pytest.raises(
        FailedTask, match=r"task 'boom' fails: line \d+ of .*test_outcomes\.py: ZeroDivisionError"
    ):
        run_task(running(lambda: 1 / 0), None)

    def leave():
        raise NotApplicable("no encoder")

    with pytest.raises(NotApplicable, match="no encoder"):
        run_task(running(leave), None)


def test_the_results_of_the_other_tasks_stay(tmp_path, monkeypatch):
    """What `evaluate` has measured lies in the folder when it says which task has failed."""
    good = type("Good", (Task,), {"run": lambda self, exam: Outcome({"value": 1}, {})}, name="good")()
    recipe = SimpleNamespace(
        evaluation=SimpleNamespace(tasks={}, data="held", metric="exact", labelled=None), seed=0
    )
    subject = SimpleNamespace(model=SimpleNamespace(routing=SimpleNamespace(report=dict)))
    source = SimpleNamespace(skipped={}, fingerprint="f")
    monkeypatch.setattr(
        evaluate,
        "tasks",
        lambda options: {"boom": running(lambda: Outcome({"x": float("nan")}, {})), "good": good},
    )
    monkeypatch.setattr(evaluate, "_some", lambda exam: [])
    monkeypatch.setattr(evaluate, "cost", lambda *arguments: {"seconds": {}})
    results, samples, _ = evaluate.examine(subject, source, recipe)
    assert results["tasks"] == {"good": {"value": 1}}
    assert "gives nan for 'x'" in results["failed"]["boom"]
    assert samples == {"good": {}}
    json.dumps(results, allow_nan=False)
