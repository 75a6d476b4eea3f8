"""A study from its file to its report, as a user would run it."""

import json
import sys
from copy import deepcopy

import pytest

from chiasm.cli import main
from chiasm.errors import ChiasmError, RecipeError
from chiasm.storage import safe_yaml
from chiasm.studies.plan import cells_of, load_study, studies
from chiasm.studies.report import content_of, write_report
from chiasm.studies.runner import run_study


@pytest.fixture
def written(tiny, tmp_path):
    """A study of two arms over the tiny recipe; what is given is laid over it."""
    recipe = deepcopy(tiny)
    recipe["evaluation"] = {
        **recipe.get("evaluation", {}),
        "data": "world",
        "questions": 6,
        "pictures": 0,
        "text": 0,
    }
    (tmp_path / "recipe.yaml").write_text(safe_yaml.write(recipe))

    def write(**more):
        study = {
            "name": "widths",
            "question": "Does a deeper connector help?",
            "recipe": str(tmp_path / "recipe.yaml"),
            "arms": {"one": {}, "two": {"about": "deeper", "set": {"model.connector.depth": 3}}},
            "baseline": "one",
            "seeds": 1,
            "margin": 0.05,
        }
        path = tmp_path / "study.yaml"
        path.write_text(safe_yaml.write({**study, **more}))
        return path

    return write


@pytest.mark.slow
def test_a_study_is_run_continued_and_reported(written, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["chiasm", "study", str(written()), str(tmp_path / "out")])
    main()
    records = {
        path.name: json.loads(path.read_text()) for path in (tmp_path / "out" / "records").glob("*.json")
    }
    assert set(records) == {"one-0.json", "two-0.json"}
    assert records["two-0.json"]["parameters"] > records["one-0.json"]["parameters"]
    assert len(records["one-0.json"]["items"]) == 6
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Does a deeper connector help?" in page
    assert "http" not in page.split("</style>")[1]  # nothing comes from elsewhere
    capsys.readouterr()

    main()  # nothing is left to do
    assert "2 of them measured already" in capsys.readouterr().out

    (tmp_path / "out" / "records" / "two-0.json").unlink()
    (tmp_path / "out" / "report.md").unlink()
    monkeypatch.setattr(sys, "argv", ["chiasm", "study", "report", str(tmp_path / "out")])
    main()
    assert "1 of 2 cells" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.slow
def test_a_cell_that_fails_takes_no_other_with_it(written, tmp_path):
    arms = {"one": {}, "broken": {"set": {"model.connector": {"type": "pixel_shuffle", "factor": 3}}}}
    study = load_study(written(arms=arms))
    with pytest.raises(ChiasmError, match=r"1 of 2 cells failed.*broken-0"):
        run_study(study, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out" / "records").iterdir()] == ["one-0.json"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"baseline": "three"}, "baseline 'three' is none of the arms one, two"),
        ({"margin": 0}, "margin"),
        ({"arms": {"one": {}}}, "arms"),
        ({"arm": {}}, "arm"),
        ({"name": "../up"}, "name"),
        ({"match": ["time"]}, "match"),
    ],
)
def test_what_is_not_understood_is_named(written, more, words):
    with pytest.raises(RecipeError, match=words):
        load_study(written(**more))


def test_a_mistake_in_an_arm_is_found_before_anything_is_trained(written):
    study = load_study(written(arms={"one": {}, "two": {"set": {"model.connector.dept": 3}}}))
    with pytest.raises(RecipeError, match=r"arm 'two': .*did you mean 'depth'"):
        cells_of(study)


def test_a_preset_is_laid_over_the_study(written):
    presets = {"small": {"seeds": 2, "set": {"stages.0.steps": 1}, "concludes": False}}
    study = load_study(written(presets=presets), "small")
    cells = cells_of(study)
    assert [cell.name for cell in cells] == ["one-0", "two-0", "one-1", "two-1"]
    assert {cell.recipe.stages[0].steps for cell in cells} == {1}
    assert [cell.recipe.seed for cell in cells] == [0, 0, 1, 1]
    with pytest.raises(RecipeError, match="did you mean 'small'"):
        load_study(written(presets=presets), "smal")


def test_what_was_named_before_the_run_has_a_hash(written):
    assert load_study(written()).terms == load_study(written()).terms
    assert load_study(written()).terms != load_study(written(margin=0.06)).terms


@pytest.mark.parametrize("name", studies())
def test_the_studies_that_come_with_chiasm_resolve_in_every_preset(name):
    study = load_study(name)
    for preset in study.presets:
        assert len(cells_of(load_study(name, preset))) >= len(study.arms)


def records(scores, **controls):
    return [
        {
            "arm": arm,
            "seed": seed,
            "score": score,
            "items": [score] * 50,
            "controls": {"blind": 0.3, "shuffled": 0.3, "commonest": 0.35} | controls.get(arm, {}),
            "samples": 100,
            "parameters": 10,
            "flops": {"question": 5},
            "tokens": 7,
            "image_tokens": {"read": 4},
            "seconds": 3.0,
        }
        for arm, by_seed in scores.items()
        for seed, score in enumerate(by_seed)
    ]


def test_the_headline_says_what_was_found_with_its_numbers(written):
    study = load_study(written(seeds=3))
    content = content_of(study, records({"one": [0.5, 0.51, 0.52], "two": [0.7, 0.72, 0.71]}), 6)
    assert "two: different (+20.0 [" in content["headline"]
    content = content_of(study, records({"one": [0.5, 0.6, 0.4], "two": [0.7, 0.5, 0.6]}), 6)
    assert "two: not resolved" in content["headline"]
    assert "could not be seen" in content["headline"]


def test_a_run_that_is_too_small_or_not_whole_concludes_nothing(written):
    study = load_study(written(seeds=3))
    content = content_of(study, records({"one": [0.5] * 3, "two": [0.9] * 2}), 6)
    assert "too small to conclude" in content["headline"]


def test_controls_catch_an_arm_that_does_not_see_and_questions_that_leak(written):
    study = load_study(written(seeds=3))
    table = records({"one": [0.9, 0.91, 0.92], "two": [0.3, 0.31, 0.29]}, one={"blind": 0.8})
    one, two = content_of(study, table, 6)["rows"]
    assert any("give answers away" in warning for warning in one.warnings)
    assert any("does not see" in warning for warning in two.warnings)


def test_what_is_not_held_equal_is_said(written):
    table = records({"one": [0.5] * 3, "two": [0.6] * 3})
    for record in table:
        record["samples"] += 50 * (record["arm"] == "two")
    matched = content_of(load_study(written(seeds=3)), table, 6)["matched"]
    assert matched["samples"].startswith("NOT equal")


def test_a_folder_without_a_study_is_told(tmp_path):
    with pytest.raises(ChiasmError, match=r"no study\.yaml"):
        write_report(tmp_path)
