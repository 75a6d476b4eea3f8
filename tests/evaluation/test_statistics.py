from math import isnan, sqrt

import numpy as np
import pytest

from chiasm.evaluation.statistics import (
    Estimate,
    beta_quantile,
    clustered,
    commonest,
    interval,
    mean_radius,
    paired_interval,
    student_quantile,
    unpaired_interval,
)


def test_quantiles_of_the_beta_distribution_by_closed_forms():
    # Beta(a, 1) has the distribution function x^a, Beta(1, b) has 1 - (1 - x)^b; Beta(1/2, 1/2) is the arcsine's
    a = np.array([0.3, 1.0, 20.0, 400.0])
    assert beta_quantile(0.025, a, np.ones(4)) == pytest.approx(0.025 ** (1 / a), rel=1e-3, abs=1e-6)
    assert beta_quantile(0.975, np.ones(4), a) == pytest.approx(1 - 0.025 ** (1 / a), rel=1e-3)
    assert beta_quantile(0.2, np.array(0.5), np.array(0.5)) == pytest.approx(
        np.sin(np.pi * 0.1) ** 2, rel=1e-3
    )


def test_the_interval_of_a_mean_of_numbers_of_any_size():
    # of 1, 2, 3, 4: a standard deviation of sqrt(5 / 3), over sqrt(4)
    assert mean_radius([1.0, 2.0, 3.0, 4.0]) == pytest.approx(1.959964 * sqrt(5 / 3) / 2)
    assert isnan(mean_radius([7.0]))


def test_differences_are_compared_question_by_question():
    """Mean -0.2, its error by hand: the residuals of five clusters sum to ±0.2 and 0.8 of two questions each."""
    low, high = paired_interval([-1.0] * 2 + [0.0] * 8, [cluster for cluster in range(5) for _ in range(2)])
    error = (5 / 4 * (4 * 0.4**2 + 1.6**2)) ** 0.5 / 10
    assert (low, high) == pytest.approx((-0.2 - 2.776 * error, -0.2 + 2.776 * error), abs=1e-3)
    assert paired_interval([-1.0] * 5, range(5)) == (-1.0, -1.0)  # all of them fell
    assert paired_interval([-1.0] * 9, [0] * 9) == (float("-inf"), float("inf"))  # one image says nothing


def wilson(right: int, asked: int) -> tuple[float, float, float]:
    p, z2 = right / asked, 1.959964**2
    middle, reach = p + z2 / (2 * asked), sqrt(z2 * (p * (1 - p) + z2 / (4 * asked)) / asked)
    return p, *((middle + sign * reach) / (1 + z2 / asked) for sign in (-1, 1))


def test_scores_on_other_questions_are_compared_by_their_intervals():
    """48 of 80 and 56 of 70: Newcombe 1998, "comparison of eleven methods", table II, method 10."""
    before, after = wilson(48, 80), wilson(56, 70)
    assert unpaired_interval(before, after) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert unpaired_interval(after, before) == pytest.approx((-0.3339, -0.0524), abs=1e-4)


def test_every_difference_weighs_alike_however_many_there_are_of_a_picture():
    low, high = paired_interval([-1.0, -1.0, -1.0, 0.0], [0, 0, 0, 1])
    assert (low + high) / 2 == pytest.approx(-0.75)  # not -0.5, the mean over pictures


def test_interval_agrees_with_clopper_and_pearson_where_each_question_has_its_own_picture():
    # 15 of 148 right: Newcombe 1998, method 5; a few clusters' doubt makes this one a little wider
    estimate = clustered([1.0] * 15 + [0.0] * 133, range(148))
    assert estimate.low == pytest.approx(0.0578, abs=0.002)
    assert estimate.high == pytest.approx(0.1617, abs=0.003)


def test_the_mean_is_over_questions_not_over_pictures():
    # three questions of four are right, but one picture of two holds three questions
    assert clustered([1.0, 1.0, 1.0, 0.0], [0, 0, 0, 1]).value == 0.75


def test_an_interval_holds_its_score_between_one_fortieth_tails():
    """Each end leaves 2.5 % outside, as those of a normal mean do."""
    values = [1.0] * 500 + [0.0] * 500
    estimate = clustered(values, range(1000))
    error = np.sqrt(0.25 / 1000)
    assert (estimate.high - 0.5) / error == pytest.approx(1.96, abs=0.05)
    assert (0.5 - estimate.low) / error == pytest.approx(1.96, abs=0.05)


HARD = [  # pictures, share of right answers, correlation of answers about one picture
    (20, 0.9, 0.3),
    (50, 0.98, 0.3),
    (128, 0.02, 0.3),
    (300, 0.995, 0.3),
    (300, 0.5, 0.0),
]


@pytest.mark.parametrize(("clusters", "share", "correlation"), HARD)
def test_the_truth_lies_within_as_often_as_is_said(clusters, share, correlation):
    """`benchmarks/coverage.py` has all cells, with more simulations."""
    random = np.random.default_rng(0)
    asked = random.integers(3, 10, size=(1000, clusters))
    strength = (1 - correlation) / max(correlation, 1e-9)
    ability = random.beta(share * strength, (1 - share) * strength, size=asked.shape)
    right = random.binomial(asked, ability if correlation else share)
    low, high = interval(right.astype(float), asked.astype(float))
    assert ((low <= share) & (share <= high)).mean() >= 0.94


def test_simulated_at_once_or_counted_one_by_one_is_the_same():
    right, asked = np.array([[2.0, 0.0, 3.0], [1.0, 1.0, 1.0]]), np.array([[3.0, 4.0, 3.0], [2.0, 2.0, 5.0]])
    low, high = interval(right, asked)
    for row in range(2):
        values = [float(i < r) for r, n in zip(right[row], asked[row], strict=True) for i in range(round(n))]
        estimate = clustered(values, np.repeat(range(3), asked[row].astype(int)).tolist())
        assert estimate.interval == pytest.approx([low[row], high[row]])


def test_interval_of_independent_questions_is_the_binomial_one():
    values = [1.0] * 300 + [0.0] * 100
    estimate = clustered(values, range(400))
    error = np.sqrt(0.75 * 0.25 / 400)
    assert estimate.value == 0.75
    assert estimate.low == pytest.approx(0.75 - 1.96 * error, abs=0.006)
    assert estimate.high == pytest.approx(0.75 + 1.96 * error, abs=0.006)


def test_questions_that_stand_and_fall_together_count_as_one():
    right = [1.0, 0.0] * 50
    alone = clustered(right, range(100))
    repeated = clustered([value for value in right for _ in range(6)], np.repeat(range(100), 6).tolist())
    assert repeated.value == alone.value
    assert repeated.interval == pytest.approx(alone.interval, abs=1e-3)
    assert repeated.n == 600


def test_all_right_is_not_certainty_and_questions_of_one_picture_count_as_one():
    """Without a wrong answer nothing shows how often they come together: twenty pictures are twenty trials."""
    estimate = clustered([1.0] * 40, [i // 2 for i in range(40)])
    assert estimate.value == 1.0
    assert estimate.interval == pytest.approx([0.025 ** (1 / 20), 1.0], abs=1e-4)


def test_one_wrong_answer_is_never_surer_than_none():
    clusters = [i // 6 for i in range(120)]
    none, one = clustered([1.0] * 120, clusters), clustered([0.0] + [1.0] * 119, clusters)
    assert one.low <= none.low + 1e-4
    assert one.high > 1 - 1e-4


def test_one_picture_alone_says_hardly_anything():
    estimate = clustered([1.0, 0.0, 1.0, 1.0], [7] * 4)
    assert estimate.low < 0.05
    assert estimate.high > 0.95


def test_no_values_say_nothing():
    assert clustered([], []) == Estimate(0.0, 0.0, 1.0, 0)


def test_values_need_a_cluster_each():
    with pytest.raises(ValueError, match="2 values but 1 clusters"):
        clustered([1.0, 0.0], [0])


def test_smallest_effect_of_a_hundred_coin_tosses():
    # 2.80 standard errors of a difference: 2.80 * sqrt(2) * 0.05
    half = 1.959964 * 0.05
    assert Estimate(0.5, 0.5 - half, 0.5 + half, 100).smallest_effect == pytest.approx(0.198, abs=1e-3)


def test_commonest_answer():
    assert commonest(["yes", "yes", "no", "yes"]) == 0.75
    assert commonest([]) == 0.0


def test_quantiles_of_the_beta_distribution_are_those_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    a, b = (each.ravel() for each in np.meshgrid([0.2, 1.0, 3.0, 50.0, 2000.0], [0.3, 1.0, 7.0, 900.0]))
    for share in (0.025, 0.5, 0.975):
        assert beta_quantile(share, a, b) == pytest.approx(stats.beta.ppf(share, a, b), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("freedom", [1, 2, 3, 10, 50, 300])
def test_few_clusters_are_judged_by_students_distribution(freedom):
    stats = pytest.importorskip("scipy.stats")
    assert student_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=2e-3)


CASES = [  # right answers and questions of each picture
    ([3, 1, 0, 2, 3], [3, 2, 4, 2, 5]),
    ([1] * 30 + [0] * 10, [1] * 40),
    ([4] * 18 + [3, 0], [4] * 20),
    ([0] * 24 + [2], [3] * 25),
    ([0.5, 0.25, 1.0, 0.0], [1, 1, 1, 1]),
    ([5, 0] * 30, [5] * 60),
    ([2, 3], [4, 5]),
    ([1], [4]),
    ([6, 6, 6], [6, 6, 6]),
    ([0, 0], [6, 3]),
]


@pytest.mark.parametrize(("right", "asked"), CASES)
def test_the_interval_is_the_exact_one_for_the_effective_number_of_questions(right, asked):
    """Korn and Graubard's, with the design effect and its largest mixed in the proportion of rare answers to 3."""
    stats = pytest.importorskip("scipy.stats")
    clusters, n, p = len(asked), sum(asked), sum(right) / sum(asked)
    rare = min(sum(right), n - sum(right))
    student, effect = 1.959964, n / clusters
    if clusters > 1 and rare:
        variance = clusters / (clusters - 1) * sum((r - p * m) ** 2 for r, m in zip(right, asked)) / n**2
        estimated = max(1, variance / (p * (1 - p) / n))
        effect = (rare * estimated + 3 * n / clusters) / (rare + 3)
    if rare:
        student = stats.t.ppf(0.975, max(1, clusters - 1))
    size = n / effect * (1.959964 / student) ** 2
    x = p * size
    low = stats.beta.ppf(0.025, x, size - x + 1) if x else 0.0
    high = stats.beta.ppf(0.975, x + 1, size - x) if size - x > 1e-9 else 1.0
    alone = 0.025 ** (1 / clusters)
    expected = [min(low, alone), max(high, 1 - alone)]
    low, high = interval(np.array(right, dtype=float), np.array(asked, dtype=float))
    assert [float(low), float(high)] == pytest.approx(expected, abs=1e-3)


def test_wrong_and_right_exchanged_turn_the_interval_round():
    right, asked = np.array([3.0, 0, 2, 1]), np.array([4.0, 2, 2, 3])
    low, high = interval(right, asked)
    other_low, other_high = interval(asked - right, asked)
    assert (low, high) == pytest.approx((1 - other_high, 1 - other_low), abs=1e-4)


def test_the_ends_of_an_interval_and_what_they_could_tell_apart():
    estimate = Estimate(0.6, 0.5, 0.8, 10)
    assert estimate.interval == [0.5, 0.8]
    assert estimate.smallest_effect == pytest.approx((1.959964 + 0.841621) * sqrt(2) * 0.3 / (2 * 1.959964))
