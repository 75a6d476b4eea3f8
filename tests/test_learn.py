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
import learn_figures  # noqa: E402
import learn_page  # noqa: E402
import mixed_page  # noqa: E402

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
    written = json.loads((run / "record.json").read_text())
    tasks = json.loads((run / "eval.json").read_text())["tasks"]
    exact = written["figures"]["tasks"]["questions"].pop("exact")
    assert written["figures"]["tasks"] == tasks
    assert exact == {key: tasks["questions"][key] for key in ("score", "ci")}  # its metric is exact
    assert written["recipe"]["seed"] == 3  # the tiny overlay
    assert written["training_seconds"] > 0
    assert written["machine"]["threads"] == 1


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


def record(name, day, score, source="world", **tasks):
    """A record as `learn.py` writes it, of a model that answers questions."""
    scores = {"score": score, "ci": [score - 0.1, score + 0.1], "shuffled": 0.2, "by_type": {}}
    scores |= {"blind": 0.2, "blind_ci": [0.1, 0.3], "exact": {"score": score / 2, "ci": [0.0, 0.5]}}
    cost = {"parameters": {"total": 1.2e6, "trainable": 2e5}, "image_tokens": {"read": 9}, "flops": {}}
    return {
        "name": name, "finished": f"2026-01-{day}T10:00:00", "training_seconds": 90.0, "commit": 3 * name,
        "recipe": {"evaluation": {"data": "held-out"}, "data": {"held-out": {"type": source}}},
        "machine": {"cpu": "a", "cores": 1, "device": "cpu"},
        "figures": {"tasks": {"questions": scores, **tasks}, "cost": cost},
    }  # fmt: skip


def test_rows_outlive_their_runs_and_the_later_of_two_measurements_counts(tmp_path):
    page = tmp_path / "learn.md"
    learn_figures.gather([record("one", 10, 0.5), record("two", 11, 0.6)], page)
    rows = learn_figures.gather([record("two", 10, 0.9), record("one", 12, 0.7)], page)
    assert [(row["name"], row["figures"]["tasks"]["questions"]["score"]) for row in rows] == [
        ("one", 0.7), ("two", 0.6),
    ]  # fmt: skip
    assert learn_figures.gather([], page) == rows
    learn_page.write_page(rows, page)
    assert (
        "Measured 2026-01-12 on a, 1 cores, cpu; one thread a recipe; commit oneoneo: `one`."
        in page.read_text()
    )


def test_a_recipe_that_fails_now_is_said_to_and_its_figures_are_not_forgotten(tmp_path):
    page = tmp_path / "learn.md"
    learn_figures.gather([record("one", 10, 0.5)], page)
    assert learn_figures.gather([{"name": "one", "failed": "no"}], page) == [{"name": "one", "failed": "no"}]
    assert [row["name"] for row in learn_figures.gather([], page)] == ["one"]


def test_pages_and_masks_have_tables_of_their_own(tmp_path):
    page = tmp_path / "learn.md"
    masks = {"score": 0.6, "ci": [0.5, 0.7], "cumulative": 0.55, "shuffled": 0.1, "everything": 0.05, "n": 80}
    masks["by_type"] = {"box": {"score": 0.75}, "segment": {"score": 0.45}}
    rows = learn_figures.gather(
        [record("reader", 10, 0.8, "pages"), record("marker", 10, 0.4, masks=masks)], page
    )
    learn_page.write_page(rows, page)
    answers, rest = page.read_text().split("## Reading pages")
    reading, marking = rest.split("## Marking")
    assert "(../recipes/marker.yaml) | 40 % (30 - 50) |" in answers
    assert "reader.yaml" not in answers.split("## Answering")[1]
    assert "| 80 % (70 - 90) | 20 % (10 - 30) | 20 % | 40 % (0 - 50) |" in reading
    assert "| whole image | box | segment | masks asked for |" in marking
    assert "| 60 % (50 - 70) | 55 % | 10 % | 5 % | 75 % | 45 % | 80 | 40 % |" in marking


def test_reading_stands_by_resolution_and_with_a_second_look(tmp_path):
    page = tmp_path / "learn.md"
    bands = {
        " 128 px": {"score": 0.9, "blind": 0.1, "n": 40},
        "1024 px": {"score": 0.3, "blind": 0.2, "n": 60},
    }
    zoom = {
        "score": 0.7,
        "ci": [0.6, 0.8],
        "off": 0.5,
        "off_ci": [0.4, 0.6],
        "looked": 1.0,
        "chosen": 0.4,
        "n": 90,
    }
    reader = record("reader", 10, 0.8, "pages", resolution={"score": 0.6, "by_type": bands}, zoom=zoom)
    learn_page.write_page(learn_figures.gather([reader, record("other", 10, 0.4, "pages")], page), page)
    by_resolution, looks = page.read_text().split("### By resolution")[1].split("### With a second look")
    assert "| recipe | image tokens | 128 px | 1024 px |" in by_resolution
    assert "| [reader](../recipes/reader.yaml) | 9 | 90 % (10 %; 40) | 30 % (20 %; 60) |" in by_resolution
    assert (
        "| [reader](../recipes/reader.yaml) | 70 % (60 - 80) | 50 % (40 - 60) | 100 % | 40 % | 90 |" in looks
    )
    assert "[other]" not in by_resolution + looks
    assert "## Other measures" not in looks


@pytest.mark.parametrize(
    ("single", "verdict"),
    [
        (0.3, "tiles beat a single view by more than both intervals."),
        (0.5, "tiles do not beat a single view by more than both intervals."),
        (0.9, "tiles are beaten by a single view by more than both intervals."),
    ],
)
def test_of_tiles_is_said_what_the_intervals_allow(single, verdict):
    arms = [("tiles", 0.6), ("single view", single)]
    rows = [{"task": "text", "arm": arm, "scores": {"ci": [s - 0.1, s + 0.1]}} for arm, s in arms]
    assert learn_page.compared(rows) == f"On text {verdict}"


def test_of_a_page_in_two_languages_stands_what_was_read_as_it_came(tmp_path):
    kinds = {"read": {"score": 0.6}, "title": {"score": 0.4}}
    scores = {
        "score": 0.5,
        "ci": [0.4, 0.6],
        "blind": 0.1,
        "blind_ci": [0.0, 0.2],
        "n": 300,
        "by_type": kinds,
    }
    asked = [{"question": "标题是什么?", "answer": "来信\nPerth", "truth": "开罗来信"}]
    row = {"recipe": "internvl-1.5", "scores": scores, "asked": asked, "seconds": 90, "commit": "abc"}
    page = tmp_path / "learn.md"
    learn_figures.write(learn_figures.folder_of(page) / learn_figures.MIXED, [row])
    learn_page.write_page([], page)
    section = page.read_text().split("## A page in two languages")[1]
    assert "300 questions about held-out pages: 50 % (40 - 60),\nblind 10 % (0 - 20); by kind: " in section
    assert "by kind: *read* 60 %, *title* 40 %. 2 processor minutes" in section
    assert "| 标题是什么? | 来信<br>Perth | 开罗来信 |" in section
    assert "(learn/mixed-page.png)" in section


def test_the_page_that_is_read_has_letters_of_both_languages():
    assert mixed_page.both_languages("Paris来信")
    assert not mixed_page.both_languages("开罗来信 12")
    assert not mixed_page.both_languages("News from Cairo")


def test_the_page_in_the_docs_is_what_the_figures_beside_it_give(tmp_path):
    docs = ROOT / "docs"
    for name in (learn_figures.TILES, learn_figures.MIXED):
        figures = learn_figures.read(docs / "learn" / name)
        learn_figures.write(learn_figures.folder_of(tmp_path / "learn.md") / name, figures)
    learn_page.write_page(learn_figures.read(docs / "learn" / learn_figures.FIGURES), tmp_path / "learn.md")
    assert (tmp_path / "learn.md").read_text() == (docs / "learn.md").read_text()


def test_the_page_names_the_intervals_that_an_evaluation_computes():
    from learn_page import EXPLAINED

    assert "Clopper and Pearson" in (interval.__doc__ or "")
    assert "Clopper and Pearson's](evaluation.md#intervals)" in EXPLAINED
    assert "bootstrap" not in EXPLAINED
