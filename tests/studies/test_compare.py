"""The words of a study: how often they are wrong when there is nothing to see, and right when there is."""

import numpy as np
import pytest

from chiasm.studies.compare import compare, holm, interval, seeds_needed, smallest, verdict

STUDIES = 400


def simulated(effect, seeds, spread, arms=1, rng=None):
    """Scores of a baseline and some arms, whose differences vary from seed to seed."""
    rng = rng or np.random.default_rng(0)
    base = 0.7 + spread * rng.standard_normal(seeds)
    table = {"base": dict(enumerate(base))}
    for arm in range(arms):
        table[f"arm{arm}"] = dict(enumerate(base + effect + spread * rng.standard_normal(seeds)))
    return table


@pytest.mark.parametrize(("seeds", "arms"), [(3, 1), (5, 1), (10, 1), (5, 6)])
def test_equal_arms_are_called_different_in_at_most_five_percent_of_studies(seeds, arms):
    rng = np.random.default_rng(seeds * arms)
    wrong = sum(
        any(each.word == "different" for each in compare(simulated(0, seeds, 0.04, arms, rng), "base", 0.001))
        for _ in range(STUDIES)
    )
    assert wrong <= 0.05 * STUDIES + 2 * np.sqrt(0.05 * 0.95 * STUDIES)


def test_an_effect_as_large_as_the_smallest_that_is_promised_is_found_with_the_promised_power():
    rng = np.random.default_rng(1)
    seeds, spread = 8, 0.04
    smallest = np.mean(
        [compare(simulated(0, seeds, spread, rng=rng), "base", 0.001)[0].smallest for _ in range(STUDIES)]
    )
    found = sum(
        compare(simulated(smallest, seeds, spread, rng=rng), "base", 0.001)[0].word == "different"
        for _ in range(STUDIES)
    )
    assert 0.7 <= found / STUDIES <= 0.9


def test_arms_as_far_apart_as_the_margin_are_called_equivalent_in_at_most_five_percent():
    rng = np.random.default_rng(2)
    wrong = sum(
        compare(simulated(0.05, 6, 0.02, rng=rng), "base", 0.05)[0].word == "equivalent"
        for _ in range(STUDIES)
    )
    assert wrong <= 0.05 * STUDIES + 2 * np.sqrt(0.05 * 0.95 * STUDIES)


def test_equal_arms_are_equivalent_where_the_margin_is_wide_and_unresolved_where_it_is_narrow():
    table = {"base": dict.fromkeys(range(5), 0.7), "arm": {s: 0.7 + 0.004 * (s - 2) for s in range(5)}}
    assert compare(table, "base", 0.05)[0].word == "equivalent"
    assert compare(table, "base", 0.001)[0].word == "not resolved"


def test_one_seed_resolves_nothing():
    (only,) = compare({"base": {0: 0.2}, "arm": {0: 0.9}}, "base", 0.5)
    assert only.word == "not resolved"
    assert only.difference == pytest.approx(0.7)
    assert only.smallest == float("inf")


def test_seeds_are_compared_with_themselves():
    scores = [0.2, 0.5, 0.8]
    table = {"base": dict(enumerate(scores)), "arm": {s: x + 0.05 + 0.001 * s for s, x in enumerate(scores)}}
    (only,) = compare(table, "base", 0.01)
    assert only.word == "different"  # the seeds differ by far more than the arms
    assert only.low < 0.051 < only.high


def test_a_seed_that_one_arm_lacks_is_left_out():
    table = {"base": {0: 0.5, 1: 0.6}, "arm": {0: 0.5, 1: 0.6, 2: 0.1}}
    assert compare(table, "base", 0.01)[0].seeds == 2


def test_holm_corrects_step_by_step():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("p", "margin", "word"),
    [
        (0.01, 0.5, "different"),
        (0.5, 0.5, "not resolved"),
        (0.5, 0.01, "equivalent"),
        (0.01, 0.01, "equivalent"),
    ],
)
def test_the_word_follows_from_both_tests(p, margin, word):
    assert verdict(p, margin) == word


def test_an_interval_holds_seeds_and_questions():
    rng = np.random.default_rng(0)
    few = [rng.random(20) < 0.5 for _ in range(3)]
    many = [rng.random(2000) < 0.5 for _ in range(3)]
    apart = [np.full(2000, 0.2), np.full(2000, 0.8)]
    widths = [high - low for low, high in map(interval, (few, many, apart))]
    assert widths[1] < widths[0]
    assert widths[2] > 0.5


def test_an_interval_of_seeds_and_questions_is_that_of_drawing_them_one_by_one():
    rng = np.random.default_rng(0)
    items = [rng.random(30).round(1) for _ in range(4)]
    means = [np.mean([rng.choice(items[i], 30).mean() for i in rng.integers(4, size=4)]) for _ in range(2000)]
    assert interval(items) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.015)


def test_as_many_seeds_as_would_do_see_the_margin():
    assert seeds_needed(0.04, 0.03) > seeds_needed(0.02, 0.03) > 2
    assert seeds_needed(0.04, 0.03, arms=6) > seeds_needed(0.04, 0.03)
    seeds = seeds_needed(0.04, 0.03)
    assert smallest(0.04, seeds) <= 0.0301
    rng = np.random.default_rng(4)
    found = sum(
        compare(simulated(0.03, seeds, 0.04, rng=rng), "base", 0.001)[0].word == "different"
        for _ in range(STUDIES)
    )
    assert found / STUDIES >= 0.75
    assert seeds_needed(1.0, 0.001) is None
