import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest
from plausible import a_recipe, a_run

from chiasm.errors import ChiasmError
from chiasm.evaluation import plots
from chiasm.evaluation.evaluate import held_out
from chiasm.evaluation.history import curves, training
from chiasm.evaluation.report import cell_state, commands, faults, render, seconds, write_report
from chiasm.evaluation.verdict import verdict
from chiasm.training.metrics import read_metrics

VOID = {"meta", "img", "link", "br", "path", "circle"}


class Page(HTMLParser):
    """Checks that tags nest, and collects what the page refers to."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.sections: list[str] = []
        self.sources: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.add(tag)
        self.sources += [given[key] for key in ("src", "href") if key in given]
        if tag == "section":
            self.sections.append(given["id"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("run")
    a_run(made, held_out(a_recipe()), questions=60, pictures=8, text=30)
    return made


def test_the_report_holds_everything_in_one_file(folder):
    text = write_report(folder).read_text()
    page = Page(text)
    assert page.sections == ["reading", "questions", "generation", "text", "training", "cost", "repeat"]
    assert all(source.startswith(("data:image/", "#")) for source in page.sources)
    assert "http" not in re.sub(r"base64,[\w+/=]+", "", text)
    assert "url(" not in text
    assert "@import" not in text
    assert "script" not in page.tags
    for said in (
        "chiasm train quickstart",
        "2.13.0+cpu",
        "hidden_size: 64",
        "tokens/s",
        "loss: text",
        "codebook use",
    ):
        assert said in text


def test_text_from_data_is_escaped(folder, tmp_path):
    for name in ("recipe.yaml", "eval.json", "run.json", "metrics.jsonl"):
        (tmp_path / name).write_text((folder / name).read_text())
    (tmp_path / "samples").symlink_to(folder / "samples")
    samples = json.loads((folder / "samples.json").read_text())
    for each in samples["questions"]["asked"]:
        each["said"]["said"] = each["question"] = "<script>alert(1)</script>"
    samples["generation"]["drawn"][0]["prompt"] = '"><script>alert(2)</script>'
    (tmp_path / "samples.json").write_text(json.dumps(samples))
    text = render(tmp_path)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    Page(text)


def test_a_report_of_nothing_is_an_error(tmp_path):
    a_recipe().save(tmp_path / "recipe.yaml")
    with pytest.raises(ChiasmError, match="no evaluation to report; measure it first: chiasm eval"):
        render(tmp_path)


@pytest.mark.parametrize("name", ["eval.json", "samples.json"])
@pytest.mark.parametrize("content", ["[1]", "3", '{"tasks"', ""])
def test_a_damaged_file_is_named(tmp_path, name, content):
    a_recipe().save(tmp_path / "recipe.yaml")
    (tmp_path / name).write_text(content)
    with pytest.raises(ChiasmError, match=rf"{name} (cannot be read|does not hold what Chiasm writes there)"):
        render(tmp_path)


def test_every_task_has_a_section(folder, tmp_path):
    for name in ("recipe.yaml", "run.json", "metrics.jsonl", "samples.json"):
        (tmp_path / name).write_text((folder / name).read_text())
    (tmp_path / "samples").symlink_to(folder / "samples")
    results = json.loads((folder / "eval.json").read_text())
    results["tasks"]["politeness"] = {"score": 0.123, "ci": [0.1, 0.2], "n": 7, "by": {"greeting": 0.456}}
    (tmp_path / "eval.json").write_text(json.dumps(results))
    text = render(tmp_path)
    assert "task-politeness" in Page(text).sections
    for figure in ("Politeness", "0.123", "0.456", "by.greeting", "10.0 – 20.0 %"):
        assert figure in text


def test_wrong_answers_of_every_type_are_shown(folder):
    questions = json.loads((folder / "samples.json").read_text())["questions"]
    asked = questions["asked"]
    wrong = {each["type"] for each in asked if not each["right"]}
    shown = {asked[i]["type"] for i in questions["wrong"] + questions["random"] if not asked[i]["right"]}
    assert shown == wrong
    assert all(not asked[i]["right"] for i in questions["wrong"])


def test_cells_are_told_apart():
    cells = [
        {"asked": "dog", "found": "dog"},
        {"asked": "cat", "found": "pig"},
        {"asked": "key", "found": None},
        {"asked": None, "found": "bus"},
        {"asked": None, "found": None},
    ]
    assert [cell_state(cell) for cell in cells] == ["right", "wrong", "missing", "extra", "empty"]
    assert faults(cells) == ["cat drawn as pig", "key not recognised", "bus too many"]


def test_the_verdict_claims_no_more_than_the_intervals_allow():
    sees = {"score": 0.9, "ci": [0.87, 0.93], "blind": 0.3, "blind_ci": [0.27, 0.33], "commonest": 0.32}
    assert "It answers from the images: 90% right" in verdict({"questions": sees})
    unsure = sees | {"score": 0.35, "ci": [0.30, 0.40]}
    assert "not shown to look" in verdict({"questions": unsure})
    leaky = sees | {"blind": 0.6, "blind_ci": [0.55, 0.65]}
    assert "leak" in verdict({"questions": leaky})


def test_a_metrics_file_that_a_crash_cut_short(tmp_path):
    lines = [
        {
            "stage": "a",
            "step": n,
            "seconds": 2.0,
            "real": 100,
            "samples": 3,
            "losses": {"text": 1 / n, "odd": None},
        }
        for n in (1, 2)
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"stage": "a", "st')
    metrics = read_metrics(tmp_path)
    assert training(metrics)["seconds"] == 4.0
    assert training(metrics)["stages"] == {"a": {"steps": 2, "seconds": 4.0, "tokens": 200, "samples": 6}}
    assert [each["name"] for each in curves(metrics)[0]["curves"]] == ["loss: text"]


def test_numbers_are_short():
    told = [plots.number(value) for value in (0, 3, 36, 0.1234, 1234.5, 12345, 2305344, 7.5e8, 0.0003)]
    assert told == ["0", "3", "36", "0.123", "1,234", "12.3k", "2.31M", "750M", "3.0e-4"]
    assert [seconds(value) for value in (0.05, 2.5, 840, 9000)] == [
        "50 ms",
        "2.5 s",
        "14 min",
        "2 h 30 min",
    ]


def test_the_commands_can_be_typed_as_they_stand():
    results = {"overrides": ["evaluation.metric=first word"], "plugins": ["my metrics.py"], "only": ["text"]}
    train, measure = commands(Path("my runs/a"), {"command": ["chiasm", "train", "my recipe.yaml"]}, results)
    assert train == "chiasm train 'my recipe.yaml'"
    words = ["evaluation.metric=first word", "--only", "text", "--plugin", "my metrics.py"]
    assert shlex.split(measure) == ["chiasm", "eval", "my runs/a", *words]
    assert shlex.split(commands(Path("a b"), {}, {})[0]) == ["chiasm", "train", "a b/recipe.yaml"]
