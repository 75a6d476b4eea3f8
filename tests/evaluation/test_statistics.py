import numpy as np
import pytest

from chiasm.evaluation.statistics import Estimate, clustered, commonest, wilson


def test_wilson_agrees_with_the_published_example():
    # 15 of 148 right: Newcombe 1998, method 3
    low, high = wilson(15, 148)
    assert (round(low, 4), round(high, 4)) == (0.0624, 0.1605)


def test_wilson_of_nothing_is_ignorance():
    assert wilson(0, 0) == (0.0, 1.0)


def test_wilson_never_leaves_the_unit_interval():
    assert wilson(0, 5)[0] == 0.0
    assert wilson(5, 5)[1] == 1.0


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
    assert repeated.interval == pytest.approx(alone.interval)
    assert repeated.n == 600


def test_interval_is_the_same_every_time():
    values = np.random.default_rng(1).integers(0, 2, 60).astype(float).tolist()
    assert clustered(values, range(60)) == clustered(values, range(60))


def test_all_right_is_not_certainty():
    estimate = clustered([1.0] * 40, [i // 2 for i in range(40)])
    assert estimate.value == 1.0
    assert estimate.interval == pytest.approx(wilson(20, 20))


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
