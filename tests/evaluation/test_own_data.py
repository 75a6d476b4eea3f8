"""Evaluation on a user's own files: own metrics and tasks, drawing, and what cannot be measured."""

import html
import json
import shlex
import sys

import numpy as np
import pytest
from PIL import Image

import chiasm
from chiasm.cli import main
from chiasm.data.corpus import corpus
from chiasm.errors import ChiasmError, DataError
from chiasm.evaluation.evaluate import evaluate
from chiasm.evaluation.report import commands
from chiasm.model import Model
from chiasm.model.checkpoint import save_model
from chiasm.recipe import load_recipe
from chiasm.training.train import train

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

PLUGIN = '''
from chiasm.evaluation.metrics import metric
from chiasm.evaluation.tasks import Outcome, Task


@metric("anything")
def anything(answer, truths):
    """Whatever is answered is right."""
    return 1.0


class Count(Task, name="count of groups"):
    """How many groups there are."""

    def run(self, exam):
        return Outcome({"groups": len(exam.source)}, {})
'''


def chat(folder, name, records):
    (folder / name).write_text("\n".join(map(json.dumps, records)) + "\n")


@pytest.fixture
def own(tmp_path, tiny):
    """A run of an untrained model, whose held-out data are six conversations and three drawings of one's own."""
    random = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    talks = [
        {
            "messages": [
                {"role": "user", "content": "<image>What is it?"},
                {"role": "assistant", "content": f"thing {i}"},
                {"role": "user", "content": "Sure?"},
                {"role": "assistant", "content": "50%"},
            ],
            "images": [f"{i}.png"],
        }
        for i in range(6)
    ]
    drawings = [
        {
            "messages": [
                {"role": "user", "content": f"Draw thing {i}."},
                {"role": "assistant", "content": "<image>"},
            ],
            "images": [f"{i}.png"],
        }
        for i in range(3)
    ]
    chat(tmp_path, "held.jsonl", talks + drawings)
    tiny["data"]["held-out"] = {"type": "chat", "path": str(tmp_path / "held.jsonl")}
    tiny["evaluation"] = {"data": "held-out", "questions": 100, "pictures": 3}
    recipe = load_recipe(tiny)
    folder = tmp_path / "run"
    save_model(Model(recipe.model, texts=corpus(recipe)), recipe, folder)
    return folder


def add_broken(folder):
    """Behind the good records, one whose image is cut off and one whose question is longer than the context."""
    Image.effect_noise((64, 64), 90).save(folder / "whole.png")
    (folder / "cut.png").write_bytes((folder / "whole.png").read_bytes()[:1500])
    with (folder / "held.jsonl").open("a") as file:
        for image, question in (("cut.png", "What is it?"), ("0.png", "word " * 5000)):
            turns = [
                {"role": "user", "content": f"<image>{question}"},
                {"role": "assistant", "content": "thing"},
            ]
            file.write(json.dumps({"messages": turns, "images": [image]}) + "\n")


def test_held_out_records_that_cannot_be_asked_are_errors_or_passed_over_and_counted(own):
    add_broken(own.parent)
    whole = evaluate(own, only=["questions"], overrides=["data.held-out.broken=skip"], report=False)
    assert whole["tasks"]["questions"]["n"] == 12
    assert whole["skipped"] == {"unreadable image": 1, "too long": 1}
    with pytest.raises(DataError, match=r"sample 1[01] of .*held\.jsonl"):
        evaluate(own, only=["questions"], report=False)


@pytest.mark.slow
def test_every_question_is_asked_and_drawings_are_measured(own):
    said = []
    results = evaluate(own, say=said.append)
    questions, drawing = results["tasks"]["questions"], results["tasks"]["drawing"]
    assert (questions["n"], questions["clusters"]) == (12, 6)
    assert drawing["n"] == 3
    assert drawing["reconstruction"]["psnr"] > 0
    assert 0 < drawing["reconstruction"]["ssim"] < 1
    assert drawing["FD-efficientnet-lite0"] > 0
    assert any(line.startswith("drawing: ") and "FD-efficientnet-lite0" in line for line in said)
    page = (own / "report.html").read_text()
    assert 'id="task-drawing"' in page
    assert "Draw thing 0." in page
    assert "FD-efficientnet-lite0" in page


def test_a_metric_and_a_task_of_ones_own_on_the_command_line(own, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(PLUGIN)
    command = ["eval", str(own), "evaluation.metric=anything", "evaluation.pictures=0"]
    monkeypatch.setattr(sys, "argv", ["chiasm", *command, "--plugin", str(tmp_path / "mine.py")])
    main()
    tasks = json.loads((own / "eval.json").read_text())["tasks"]
    assert tasks["questions"]["score"] == 1.0
    assert tasks["count of groups"] == {"groups": 9}
    said = capsys.readouterr().out
    assert "questions: 100.0%" in said
    assert "count of groups: groups 9" in said
    assert "Count of groups" in (own / "report.html").read_text()


def test_the_reports_command_measures_the_same_again(own, tmp_path, monkeypatch):
    plugin = tmp_path / "my metrics.py"
    plugin.write_text(PLUGIN.replace('"anything"', '"first word"'))
    choices = {
        "only": ["questions", "count of groups"],
        "plugins": [plugin],
        "device": "cpu",
        "dtype": "fp32",
    }
    overrides = ["evaluation.metric=first word", "evaluation.questions=3"]
    first = evaluate(own, overrides=overrides, **choices)
    assert {key: first[key] for key in choices} == choices | {"plugins": [str(plugin)]}
    command = commands(own, {}, first)[-1]
    assert command in html.unescape((own / "report.html").read_text())
    (own / "eval.json").unlink()
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    main()
    again = json.loads((own / "eval.json").read_text())
    for key in ("tasks", "metric", "overrides", "settings", *choices):
        assert again[key] == first[key], key


def test_a_recipe_cannot_name_code(own, tmp_path, monkeypatch):
    """What a checkpoint's folder says is a name among the registered metrics, and never imported."""
    (own / "evil.py").write_text("raise SystemExit('ran')")
    monkeypatch.chdir(own)
    for name in ("evil.py", "evil:run", "os:system", str(own / "evil.py")):
        with pytest.raises(ChiasmError, match="there is no metric"):
            evaluate(own, overrides=[f"evaluation.metric={json.dumps(name)}"])


@pytest.mark.parametrize(
    ("text", "message"), [("import nothing_of_this_name", "cannot be imported"), (None, "no plugin at")]
)
def test_a_plugin_that_cannot_be_imported_is_named(own, tmp_path, text, message):
    if text is not None:
        (tmp_path / "wrong.py").write_text(text)
    with pytest.raises(ChiasmError, match=message):
        chiasm.evaluate(own, plugins=[tmp_path / "wrong.py"])


def test_nothing_to_measure_is_an_error_that_says_what_is_needed(own):
    nothing = [f"evaluation.{name}=0" for name in ("questions", "phrasings", "pictures", "text")]
    with pytest.raises(ChiasmError, match="nothing of this model can be measured") as error:
        evaluate(own, overrides=nothing)
    assert "evaluation.labelled" in str(error.value)
    assert not (own / "report.html").exists()


def test_held_out_data_is_read_before_training_begins(tmp_path, tiny):
    chat(tmp_path, "held.jsonl", [{"messages": [{"role": "user", "content": "No answer."}]}])
    tiny["data"]["held-out"] = {"type": "chat", "path": str(tmp_path / "held.jsonl")}
    with pytest.raises(DataError, match=r"sample 1 of held\.jsonl"):
        train(load_recipe(tiny), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
