"""The README's figures are those of a record that one command writes."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import quickstart  # noqa: E402

README = (ROOT / "README.md").read_text(encoding="utf-8")
SHARE = re.compile(r"\d+(?:\.\d+)? ?%")
RECORD = ROOT / "benchmarks" / "records" / "quickstart.json"


@pytest.fixture(scope="module")
def record():
    if not RECORD.is_file():
        pytest.skip("not measured since the recipe changed: python benchmarks/quickstart.py")
    return json.loads(RECORD.read_text(encoding="utf-8"))


def test_without_a_record_the_readme_has_no_percentage():
    if not RECORD.is_file():
        assert not SHARE.findall(README)


@pytest.fixture(scope="module")
def alone():
    return json.loads(quickstart.ALONE.read_text(encoding="utf-8"))


def test_the_readme_shows_the_tables_of_the_records(record, alone):
    assert quickstart.with_tables(README, record, alone) == README


def test_the_readme_has_no_other_percentage(record, alone):
    """Every share in the README's prose and tables is one of the records' tables."""
    assert not SHARE.findall(README.replace(quickstart.shown(record, alone), ""))


def test_the_time_by_the_clock_is_of_a_seed_that_had_the_cores_for_itself(alone):
    (seed,) = alone["seeds"]
    (session,) = seed["sessions"]
    assert session["jobs"] == 1
    assert session["threads"] == seed["machine"]["cores"]
    assert session["load"] < seed["machine"]["cores"] + 1
    assert quickstart.clock(alone).startswith(
        f"`chiasm quickstart` takes {session['wall'] / 60:.1f} minutes by the clock on 2 cores"
    )


def test_the_record_is_that_of_its_seeds(record):
    again = quickstart.summary(record["seeds"])
    assert again == record
    assert len({each["seed"] for each in record["seeds"]}) == len(record["seeds"]) >= 1
    assert all(
        each["scores"].keys() == record["median"].keys() - {"weakest type"} for each in record["seeds"]
    )


def test_of_a_score_the_lowest_seed_is_the_worst_and_of_a_control_the_highest():
    scores = {"questions": 0.9, "questions: what": 0.8, "questions: where": 0.7, "blind": 0.3}
    scores |= {"shuffled": 0.2, "commonest": 0.3, "words commonest": 0.1}
    scores |= {"phrasings": 0.6, "place": 0.5, "all": 0.4, "words": 0.3}
    better = {**scores, "questions": 1.0, "questions: where": 1.0, "blind": 0.5}
    seeds = [
        {"seed": n, "commit": "c", "scores": each, "seconds": {"wall": 10.0 + n, "processor": 20.0 + n}}
        for n, each in enumerate((scores, better, better))
    ]
    whole = quickstart.summary(seeds)
    assert (whole["median"]["questions"], whole["worst"]["questions"]) == (1.0, 0.9)
    assert (whole["median"]["weakest type"], whole["worst"]["weakest type"]) == (0.8, 0.7)
    assert whole["worst"][quickstart.WEAKEST] == "where"
    assert whole["worst"]["blind"] == 0.5
    assert quickstart.headline(whole).splitlines()[2:4] == [
        "| questions about pictures | 100.0 % | 90.0 % |",
        "| their weakest type (in the worst seed `where`) | 80.0 % | 70.0 % |",
    ]
    assert whole["seconds"]["processor"] == {"median": 21.0, "worst": 22.0}
