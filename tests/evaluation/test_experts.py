"""Use of experts by kind of token: in the line that is printed, in eval.json and in the report."""

import json

import pytest
from plausible import a_recipe, a_run

from chiasm.evaluation.evaluate import evaluate, held_out
from chiasm.evaluation.experts import rows, summary
from chiasm.evaluation.report import render
from chiasm.recipe import load_recipe
from chiasm.training.train import train

USE = {
    "inner.model.layers.0.mlp": {"text": [0.5, 0.25, 0.25, 0.0], "read": [0.0, 0.25, 0.25, 0.5]},
    "inner.model.layers.2.mlp": {"text": [0.25] * 4},
}


def test_how_far_pictures_choices_are_from_those_of_words():
    table = rows(USE)
    assert [(row.layer, row.kind, row.distance) for row in table] == [
        ("model.layers.0.mlp", "words", None),
        ("model.layers.0.mlp", "tokens of images read", 0.5),
        ("model.layers.2.mlp", "words", None),
    ]


def test_the_line_says_the_extremes_and_what_even_would_be():
    assert summary(USE) == (
        "experts' shares of the choices: words 0% to 50%; tokens of images read 0% to 50% (even: 25%)"
    )
    assert summary({"layer": {}}) == "no token went through an expert"


def test_the_report_has_the_table(tmp_path):
    a_run(tmp_path, held_out(a_recipe()), questions=20, pictures=2, text=10)
    assert "Experts" not in render(tmp_path)
    results = json.loads((tmp_path / "eval.json").read_text())
    (tmp_path / "eval.json").write_text(json.dumps({**results, "routing": USE}))
    page = render(tmp_path)
    assert '<a href="#experts">' in page
    assert "0.0 · 25.0 · 25.0 · 50.0" in page
    assert "50.0%" in page


@pytest.mark.slow
def test_an_evaluation_of_sparse_experts_tells_their_use(tiny, tmp_path):
    tiny["model"]["routing"] = {"type": "moe", "experts": 3, "layers": "all"}
    tiny["data"]["held-out"]["objects"] = [2, 2]
    tiny["stages"][1]["steps"] = 2
    folder = train(load_recipe(tiny), tmp_path / "run")
    said = []
    results = evaluate(folder, say=said.append)
    assert set(results["routing"]["inner.model.layers.1.mlp"]) == {"text", "read", "written"}
    assert any(line.startswith("experts' shares of the choices: words") for line in said)
    assert "tokens of images drawn" in (folder / "report.html").read_text()
