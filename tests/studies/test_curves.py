"""Scores over amounts of data: numbers by hand, and how often an interval holds what was planted."""

import numpy as np
import pytest

from chiasm.studies.curves import crossing, data_curve, exchange, exponent, fieller

SIZES = (500, 1000, 2000, 4000)
DOUBLINGS = np.arange(4)


def planted(gain, slope=0.05, seeds=5, spread=0.0, tilt=0.0, rng=None):
    """Scores of an arm and the baseline, whose lines have these slopes."""
    rng = rng or np.random.default_rng(0)
    noise = spread * rng.standard_normal((2, seeds, 4))
    base = 0.4 + slope * DOUBLINGS + noise[0]
    return 0.4 + gain + (slope + tilt) * DOUBLINGS + noise[1], base


def test_a_gain_is_worth_as_much_data_as_gives_it():
    arm, base = planted(gain=0.10)
    found = exchange(SIZES, arm, base)
    assert found.rate == pytest.approx(4)  # two doublings of 5 points
    assert found.measured
    assert exchange(SIZES, *planted(gain=0.25)).measured is False  # five doublings; three were measured
    assert exchange(SIZES, *planted(gain=-0.05)).rate == pytest.approx(0.5)


def test_the_interval_holds_the_planted_rate_in_95_of_100():
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(300):
        found = exchange(SIZES, *planted(0.05, spread=0.02, rng=rng))
        held += found.low <= 2 <= found.high
    assert 0.92 <= held / 300 <= 0.98


def test_where_more_data_does_not_help_there_is_no_rate():
    assert exchange(SIZES, *planted(0.1, slope=-0.01)) is None
    base = 0.4 + np.array([[0.05], [-0.04], [0.01]]) * DOUBLINGS  # more data helps some seeds and harms one
    found = exchange(SIZES, base + 0.1, base)
    assert (found.low, found.high) == (0, np.inf)


def test_a_ratio_of_means_has_no_end_where_the_lower_may_be_none():
    assert fieller(np.array([1.0, 1.1, 0.9]), np.array([0.1, -0.1, 0.05])) == (-np.inf, np.inf)
    low, high = fieller(np.array([2.0, 2.1, 1.9, 2.0]), np.array([1.0, 1.02, 0.98, 1.0]))
    assert low < 2 < high < 2.3


def test_two_lines_cross_where_they_are_equal():
    arm, base = planted(gain=-0.03, tilt=0.02, spread=0.001)
    found = crossing(SIZES, arm, base)
    assert found.size == pytest.approx(500 * 2**1.5, rel=0.1)
    assert found.low < found.size < found.high
    assert found.ahead
    assert crossing(SIZES, *planted(gain=0.05, tilt=0.02, spread=0.001)) is None  # before the first size


def test_no_exponent_from_fewer_than_five_sizes():
    five = (100, 200, 400, 800, 1600)
    scores = 1 - 2.0 * np.asarray(five, float) ** -0.3 * np.array([[1.0], [1.01], [0.99]])
    found = exponent(five, scores)
    assert found.value == pytest.approx(0.3)
    assert found.r == pytest.approx(-1)
    assert exponent(five[:4], scores[:, :4]) is None


def test_a_band_holds_its_line_and_narrows_with_the_spread():
    wide, narrow = (data_curve(SIZES, planted(0, spread=s)[1]) for s in (0.05, 0.005))
    for each in (wide, narrow):
        assert (each.low <= each.line).all()
        assert (each.line <= each.high).all()
    assert (narrow.high - narrow.low).max() < (wide.high - wide.low).min()
    assert narrow.slope == pytest.approx(0.05, abs=0.01)
