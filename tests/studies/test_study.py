"""A study from its file to its report, as a user would run it."""

import json
import os
import sys
from copy import deepcopy

import pytest

from chiasm.cli import main
from chiasm.errors import ChiasmError, RecipeError
from chiasm.storage import safe_yaml
from chiasm.storage.claim import claimed
from chiasm.studies.design import Terms, cells_of, sweep_cells
from chiasm.studies.plan import load_study, studies
from chiasm.studies.records import controls_of, write_cells, write_record
from chiasm.studies.report import content_of, write_report
from chiasm.studies.runner import best_rates, run_study


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
    with pytest.raises(ChiasmError, match=r"1 of 2 cells failed.*broken\.log"):
        run_study(study, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out" / "records").iterdir()] == ["one-0.json"]


def test_what_is_no_file_of_a_study_is_a_sentence(tmp_path):
    path = tmp_path / "study.yaml"
    with pytest.raises(RecipeError, match="there is no study at"):
        load_study(path)
    os.mkfifo(path)  # which would wait for a writer
    with pytest.raises(RecipeError, match="there is no study at"):
        load_study(path)
    path.unlink()
    path.write_bytes(b"name: \x89")
    with pytest.raises(RecipeError, match="is not YAML"):
        load_study(path)
    with pytest.raises(ChiasmError, match=r"^study: it must be a path"):
        load_study(None)


def test_one_process_runs_a_study_in_a_folder(written, tmp_path):
    study = load_study(written())
    (tmp_path / "out").mkdir()
    with claimed(tmp_path / "out", "running a study"):
        with pytest.raises(ChiasmError, match=r"another process is running a study in .*; choose another"):
            run_study(study, tmp_path / "out")
        assert not (tmp_path / "out" / "study.yaml").exists()  # it is the other's


def test_a_folder_that_holds_a_run_gets_no_study(written, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text("{}")
    with pytest.raises(
        ChiasmError, match="out holds a run or a checkpoint; choose another folder for the study"
    ):
        run_study(load_study(written()), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["run.json"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"baseline": "three"}, "baseline 'three' is none of the arms one, two"),
        ({"margin": 0}, "margin"),
        ({"arms": {"one": {}}}, "arms"),
        ({"presetsx": {}}, "study.yaml: the study has no key 'presetsx'; did you mean 'presets'"),
        ({"arms": {"one": {}, "two": {"sett": {}}}}, "arms.two has no key 'sett'; did you mean 'set'"),
        ({"rates": {"multiples": [1]}}, "rates lacks the key 'data'"),
        ({"secondary": "x"}, "secondary must be a mapping, not 'x'"),
        ({"recipe": 5}, "recipe: input should be a valid string or a mapping, not 5"),
        ({"name": "../up"}, "name: '../up' is no name"),
        ({"match": ["time"]}, "match.0: input should be 'samples'"),
    ],
)
def test_what_is_not_understood_is_named(written, more, words):
    with pytest.raises(RecipeError, match=words):
        load_study(written(**more))


@pytest.mark.parametrize("words", [["seed=1"], ["out", "seed=1"]])
def test_overrides_belong_into_the_study_s_own_set(monkeypatch, capsys, words):
    monkeypatch.setattr(sys, "argv", ["chiasm", "study", "structure", *words, "--preset", "smoke"])
    with pytest.raises(SystemExit):
        main()
    assert "a study takes no overrides; write `seed: 1` into its `set:`" in capsys.readouterr().err


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
    assert set(load_study(name).presets) >= {"smoke", "desk", "night", "cluster"}
    for preset in load_study(name).presets:
        study = load_study(name, preset)
        cells = cells_of(study)
        assert {cell.arm for cell in cells} == set(study.arms)
        assert len({cell.id for cell in cells}) == len(cells)


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
            "training_flops": 6,
            "tokens": 7,
            "image_tokens": {"read": 4},
            "answer_seconds": {"answer": 0.1},
            "size": None,
            "secondary": {},
            "seconds": 3.0,
        }
        for arm, by_seed in scores.items()
        for seed, score in enumerate(by_seed)
    ]


def test_the_headline_says_what_was_found_with_its_numbers(written):
    study = load_study(written(seeds=3))
    content = content_of(study, records({"one": [0.5, 0.51, 0.52], "two": [0.7, 0.72, 0.71]}), [], 6)
    assert "two: different (+20.0 [" in content["headline"]
    content = content_of(study, records({"one": [0.5, 0.6, 0.4], "two": [0.7, 0.5, 0.6]}), [], 6)
    assert "two: not resolved" in content["headline"]
    assert "could not be seen" in content["headline"]
    assert f"{content['needed']['seeds']} seeds would do" in content["headline"]


def test_a_run_that_is_too_small_or_not_whole_concludes_nothing(written):
    study = load_study(written(seeds=3))
    content = content_of(study, records({"one": [0.5] * 3, "two": [0.9] * 2}), [], 6)
    assert content["headline"].startswith("5 of 6 cells are measured; nothing is concluded")
    small = load_study(written(presets={"small": {"concludes": False}}), "small")
    content = content_of(small, records({"one": [0.5] * 3, "two": [0.9] * 3}), [], 6)
    assert "too small to conclude" in content["headline"]
    assert not content["concludes"]


def test_controls_catch_an_arm_that_does_not_see_and_questions_that_leak(written):
    study = load_study(written(seeds=3))
    table = records({"one": [0.9, 0.91, 0.92], "two": [0.3, 0.31, 0.29]}, one={"blind": 0.8})
    one, two = content_of(study, table, [], 6)["rows"]
    assert any("give answers away" in warning for warning in one.warnings)
    assert any("does not see" in warning for warning in two.warnings)
    assert any("always the commonest answer" in warning for warning in two.warnings)
    assert not any("commonest answer" in warning for warning in one.warnings if "without" not in warning)


def test_what_is_not_held_equal_is_said(written):
    table = records({"one": [0.5] * 3, "two": [0.6] * 3})
    for record in table:
        record["samples"] += 50 * (record["arm"] == "two")
    matched = content_of(load_study(written(seeds=3)), table, [], 6)["matched"]
    assert matched["samples"].startswith("NOT equal")


def test_a_folder_without_a_study_is_told(tmp_path):
    with pytest.raises(ChiasmError, match=r"no study\.yaml"):
        write_report(tmp_path)


def over_data(gain, sizes=(100, 200, 400)):
    """Records of two arms at several sizes, the second better by a gain at all of them."""
    table = []
    for i, size in enumerate(sizes):
        for record in records({"one": [0.4 + 0.1 * i + 0.01 * s for s in (-1, 0, 1)]}):
            other = {**record, "arm": "two", "score": record["score"] + gain + 0.002 * record["seed"]}
            table += [{**record, "size": size}, {**other, "size": size, "items": None}]
    return table


def test_an_arm_is_compared_over_all_amounts_of_data_and_at_each(written):
    data = {"sizes": [100, 200, 400], "set": {"data.world.scenes": 1, "stages.0.steps": 0.01}}
    study = load_study(written(seeds=3, data=data))
    assert [(cell.name, cell.recipe.stages[0].steps) for cell in cells_of(study)[:4]] == [
        ("one-100-0", 1),
        ("two-100-0", 1),
        ("one-200-0", 2),
        ("two-200-0", 2),
    ]
    content = content_of(study, over_data(0.1), [], 18)
    base, answer = content["data"]
    assert base.arm == "one"
    assert answer.exchange.rate == pytest.approx(2, rel=0.05)  # a doubling gives ten points, as the arm does
    assert "worth 2 times the data of one" in answer.sentence
    assert answer.sizes[400].difference == pytest.approx(0.102)
    assert "an exponent is told from 5 sizes on" in answer.sentence
    one_short = [r for r in over_data(0.1) if (r["arm"], r["size"], r["seed"]) != ("two", 400, 2)]
    rows = content_of(study, one_short, [], 18)["rows"]
    assert [len(row.scores) for row in rows] == [3, 2]  # a seed counts with all of its sizes


def test_an_arm_may_be_compared_with_another_than_the_baseline(written):
    arms = {"one": {}, "two": {}, "three": {"reference": "two"}}
    study = load_study(written(seeds=3, arms=arms))
    table = records({"one": [0.5, 0.5, 0.51], "two": [0.7, 0.7, 0.71], "three": [0.7, 0.71, 0.7]})
    content = content_of(study, table, [], 9)
    assert content["rows"][2].comparison.difference == pytest.approx(0)
    assert "three beside two: equivalent" in content["headline"]
    with pytest.raises(RecipeError, match="did you mean 'two'"):
        load_study(written(arms={"one": {}, "two": {}, "three": {"reference": "to"}}))


def test_every_arm_gets_the_same_sweep_and_keeps_its_best(written, tmp_path):
    recipe = written(rates={"multiples": [0.5, 1, 2], "data": "world"})
    with pytest.raises(RecipeError, match="must be chosen on other data"):
        sweep_cells(load_study(recipe))
    study = load_study(
        written(rates={"multiples": [0.5, 1, 2], "data": "tuning"}, set={"data.tuning": {"type": "world"}})
    )
    sweep = sweep_cells(study)
    assert [cell.name for cell in sweep] == [
        f"sweep-{arm}-{rate:g}" for arm in ("one", "two") for rate in (0.5, 1, 2)
    ]
    assert {cell.recipe.evaluation.data for cell in sweep} == {"tuning"}
    plain, doubled = (cells_of(study, Terms(rates={"two": rate}))[1].recipe.stages[0] for rate in (1, 2))
    assert doubled.train == {slot: 2 * lr for slot, lr in plain.train.items()}

    for cell, score in zip(sweep, (0.3, 0.4, 0.4, 0.5, 0.5, 0.4), strict=True):
        write_record(tmp_path, cell.name, {"id": cell.id, "score": score})
    assert best_rates(study, tmp_path, sweep) == {"one": 1, "two": 1}  # of equals the nearest to 1


def test_a_report_needs_only_what_lies_in_its_folder(written, tmp_path):
    study = load_study(written(seeds=2, secondary={"spatial": "questions.by_type.where.score"}))
    controls = {"blind": 0.2}
    table = records({"one": [0.5, 0.6], "two": [0.55, 0.65]})
    cells = cells_of(study)
    for cell in cells:
        (record,) = (r for r in table if (r["arm"], r["seed"]) == (cell.arm, cell.seed))
        secondary = {"spatial": {"score": record["score"] - 0.1, "controls": controls}}
        write_record(tmp_path / "kept", cell.name, {**record, "id": cell.id, "secondary": secondary})
    write_cells(tmp_path / "kept", cells)
    (tmp_path / "kept" / "study.yaml").write_text(safe_yaml.write(study.model_dump(mode="json")))
    (tmp_path / "recipe.yaml").unlink()  # a report asks for no recipe
    headline, page = write_report(tmp_path / "kept")
    assert headline in page.with_suffix(".md").read_text()
    text = page.read_text()
    assert "By other endpoints" in text
    assert "blind 20.0 %" in text
    assert "http" not in text.split("</style>")[1]  # nothing comes from elsewhere


def test_a_preset_may_set_something_in_one_arm_alone(written):
    presets = {"small": {"set": {"stages.0.steps": 2}, "arms": {"two": {"stages.0.steps": 1}}}}
    cells = cells_of(load_study(written(presets=presets), "small"))
    assert [(cell.arm, cell.recipe.stages[0].steps) for cell in cells] == [("one", 2), ("two", 1)]
    with pytest.raises(RecipeError, match="did you mean 'two'"):
        load_study(written(presets={"small": {"arms": {"twoo": {}}}}))


def test_controls_stand_beside_the_score_that_they_are_of():
    tasks = {"masks": {"score": 0.5, "cumulative": 0.6, "shuffled": 0.1, "everything": 0.2, "n": 9}}
    assert controls_of(tasks, "masks.score") == {"shuffled": 0.1, "everything": 0.2}
    assert controls_of(tasks, "masks.cumulative") == {}
