"""`make learn` as a user meets it, on a recipe of seconds: the record and the page say what was measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from chiasm.evaluation.statistics import interval
from tiny_recipe import TINY

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
OVERLAY = {"seed": 3, "data": {"held-out": {"objects": [2, 3]}}}
SMALL = {**TINY, "name": "small", "tiny": OVERLAY}
BROKEN = {**TINY, "name": "broken", "tiny": {"evaluation": {"data": None}}}


def learn(folder, *arguments):
    command = [sys.executable, ROOT / "benchmarks" / "learn.py", *arguments]
    command += ["--runs", folder / "runs", "--out", folder / "docs" / "learn.md"]
    settings = {**os.environ, "CHIASM_CACHE": str(folder / "cache")}
    return subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=folder, env=settings)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learn")
    for raw in (SMALL, BROKEN):
        (folder / f"{raw['name']}.yaml").write_text(yaml.safe_dump(raw))
    return folder, learn(folder, folder / "small.yaml", folder / "broken.yaml")


@pytest.mark.slow
def test_the_record_holds_what_the_evaluation_measured(learnt):
    run = learnt[0] / "runs" / "small"
    record = json.loads((run / "record.json").read_text())
    assert record["figures"]["tasks"] == json.loads((run / "eval.json").read_text())["tasks"]
    assert record["recipe"]["seed"] == 3  # the tiny overlay
    assert record["training_seconds"] > 0
    assert record["machine"]["threads"] == 1


@pytest.mark.slow
def test_the_page_tells_scores_costs_and_pictures(learnt):
    folder = learnt[0]
    page = (folder / "docs" / "learn.md").read_text()
    figures = json.loads((folder / "runs" / "small" / "record.json").read_text())["figures"]
    seen, drawn = page.split("## Drawing")
    row = next(line for line in seen.splitlines() if line.startswith("| [small]"))
    assert f"| {100 * figures['tasks']['questions']['score']:.0f} % (" in row
    assert f"| {figures['cost']['image_tokens']['read']} |" in row
    row = next(line for line in drawn.splitlines() if line.startswith("| [small]"))
    assert f"| {figures['cost']['passes']['picture']} |" in row
    assert "![The first 4 pictures of small](learn/small.webp)" in drawn
    assert (folder / "docs" / "learn" / "small.webp").stat().st_size < 60_000


@pytest.mark.slow
def test_what_failed_is_said_first_and_the_others_are_measured(learnt):
    folder, said = learnt
    assert said.returncode == 1
    page = (folder / "docs" / "learn.md").read_text()
    assert page.index("**broken failed**") < page.index("`small`")
    assert "says nothing about evaluation" in page


@pytest.mark.slow
def test_a_recipe_that_was_measured_is_trained_again_only_when_it_changes(learnt):
    folder = learnt[0]
    before = (folder / "runs" / "small" / "run.json").read_text()
    again = learn(folder, folder / "small.yaml")
    assert "small: measured before" in again.stdout
    assert (folder / "runs" / "small" / "run.json").read_text() == before
    changed = {**SMALL, "tiny": OVERLAY | {"seed": 4}}
    (folder / "small.yaml").write_text(yaml.safe_dump(changed))
    learn(folder, folder / "small.yaml")
    assert (folder / "runs" / "small" / "run.json").read_text() != before


def test_the_page_names_the_intervals_that_an_evaluation_computes():
    from learn_page import EXPLAINED

    assert "Clopper and Pearson" in (interval.__doc__ or "")
    assert "Clopper and Pearson's](evaluation.md#intervals)" in EXPLAINED
    assert "bootstrap" not in EXPLAINED
