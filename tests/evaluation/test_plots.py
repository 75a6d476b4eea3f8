"""The drawings of the report, place by place: what a reader measures with a ruler is what was measured."""

import re

import numpy as np
import pytest

from chiasm.evaluation import plots

SCORES = {"score": 0.75, "ci": [0.5, 1.0], "commonest": 0.25, "shuffled": 0.3, "blind": 0.2}


def test_a_score_lies_between_its_controls_on_a_line_of_200_units():
    drawn = plots.score_plot(SCORES)
    for mark in (
        '<path class="axis" d="M4 14H204"/>',
        *(f'<path class="grid" d="M{x}.0 6V22"/>' for x in (4, 54, 104, 154, 204)),
        '<path class="commonest" d="M54.0 7V21"/>',
        '<path class="shuffled" d="M64.0 9.4L68.6 14L64.0 18.6L59.4 14Z"/>',
        '<circle class="blind" cx="44.0" cy="14" r="3.6"/>',
        '<path class="interval" d="M104.0 14H204.0"/>',
        '<circle class="score" cx="154.0" cy="14" r="4.4"/>',
        'aria-label="score 75.0%, 95% interval 50.0% to 100.0%"',
    ):
        assert mark in drawn
    alone = plots.score_plot({"score": 0.5, "ci": [0.4, 0.6]})
    assert not any(f'class="{control}"' in alone for control in ("commonest", "shuffled", "blind"))


def test_a_share_beyond_the_line_is_drawn_at_its_end():
    assert [plots._x(share) for share in (-0.1, 0, 0.5, 1, 1.1)] == [4, 4, 104, 204, 204]


@pytest.mark.parametrize("kind", ["score", "blind", "shuffled", "commonest"])
def test_the_legend_shows_the_marks_of_the_plot(kind):
    mark = plots.legend_mark(kind)
    assert f'class="{kind}"' in mark
    assert mark.startswith('<svg class="mark"')


def test_a_curve_goes_from_edge_to_edge_and_from_its_highest_to_its_lowest():
    """300 x 120, with 44 and 8 units to the left and right, 8 and 20 above and below."""
    drawn = plots.curve("loss", [10, 20, 40], [3.0, 2.0, 1.0])
    assert paths(drawn, "raw") == [(44, 8), (126.7, 54), (292, 100)]
    # of three points the mean spans one to either side: 2.5, 2, 1.5
    assert paths(drawn, "mean") == [(44, 31), (126.7, 54), (292, 77)]
    assert re.findall(r'class="grid" d="M(\d+) ([\d.]+)H(\d+)"', drawn) == [
        ("44", "100.0", "292"), ("44", "54.0", "292"), ("44", "8.0", "292"),
    ]  # fmt: skip
    assert re.findall(r'class="tick" x="(\d+)" y="([\d.]+)" text-anchor="(\w+)">([^<]+)<', drawn) == [
        ("38", "103.5", "end", "1"), ("38", "57.5", "end", "2"), ("38", "11.5", "end", "3"),
        ("44", "115", "start", "10"), ("292", "115", "end", "40"),
    ]  # fmt: skip
    assert 'aria-label="loss: from 3 to 1"' in drawn
    assert 'viewBox="0 0 300 120"' in drawn


def test_one_step_is_a_point_at_the_left():
    assert paths(plots.curve("loss", [7], [2.0]), "raw") == [(44, 54)]


def test_names_are_escaped_in_every_drawing():
    for drawn in (plots.curve("<b>", [1, 2], [1, 2]), plots.scatter([("<b>", 4, 1)], "<b>", "<b>")):
        assert "<b>" not in drawn
        assert "&lt;b&gt;" in drawn


def test_outliers_of_a_long_curve_do_not_set_its_scale():
    few, many = np.arange(20.0), np.arange(101.0)
    few[-1] = many[-1] = 1000
    assert plots._range(few) == (0, 1000)
    assert plots._range(many) == (0, 98)
    long = np.arange(21.0)
    long[-1] = 1000
    assert plots._range(long)[1] < 1000
    assert '"M44.0 100.0' in plots.curve("loss", range(101), many)
    assert all(8 <= y <= 100 for _, y in paths(plots.curve("loss", range(101), many), "raw"))


def test_what_hardly_varies_lies_in_the_middle():
    assert plots._range(np.array([5.0, 5.0])) == (4.5, 5.5)
    assert plots._range(np.array([-5.0, -5.0])) == (-5.5, -4.5)
    assert plots._range(np.array([0.0, 0.0])) == (-1, 1)
    assert plots._range(np.array([0.0, 1e-6])) == (0, 1e-6)


def test_a_long_log_is_averaged_to_240_points_or_fewer():
    x, y = plots._thinned(np.arange(240.0), np.arange(240.0) ** 2)
    assert (len(x), x[1], y[2]) == (240, 1, 4)
    x, y = plots._thinned(np.arange(481.0), 2 * np.arange(481.0))
    assert len(x) == 161
    assert x.tolist() == [*np.arange(1.0, 479, 3), 480]
    assert y.tolist() == (2 * x).tolist()


def test_a_running_mean_spans_eight_hundredths_of_the_curve():
    y = np.zeros(200)
    y[100] = 17
    mean = plots._running_mean(y)  # 8 to either side
    assert mean[92:109].tolist() == [1] * 17
    assert mean[91] == mean[109] == 0
    y[:] = 0
    y[0] = 18
    assert plots._running_mean(y)[0] == 2  # of the nine that there are
    assert plots._running_mean(y[::-1])[-1] == 2


def test_points_lie_between_powers_of_two_and_as_high_as_they_are_good():
    """640 x 360 less the margins: 454 units from 4 to 16 bits, 300 from 20.3 dB to 17.7."""
    drawn = plots.scatter([("one", 4, 20.0), ("two", 8, 18.0), ("three", 16, 19.0)], "bits", "dB")
    dots = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="5"', drawn)
    assert dots == [("56.0", "50.6"), ("283.0", "281.4"), ("510.0", "166.0")]
    names = re.findall(r'<text class="name" x="([\d.]+)" y="([\d.]+)">(\w+)<', drawn)
    assert names == [("65.0", "54.6", "one"), ("292.0", "285.4", "two"), ("519.0", "170.0", "three")]
    assert re.findall(r'<path d="M([\d.]+) 16V316"', drawn) == ["56.0", "283.0", "510.0"]
    assert re.findall(r'x="([\d.]+)" y="332" text-anchor="middle">(\w+)<', drawn) == [
        ("56.0", "4"), ("283.0", "8"), ("510.0", "16"),
    ]  # fmt: skip
    assert re.findall(r'<path d="M56 ([\d.]+)H510"', drawn) == ["316.0", "241.0", "166.0", "91.0", "16.0"]
    assert re.findall(r'x="48" y="([\d.]+)" text-anchor="end">([\d.]+)<', drawn) == [
        ("320.0", "17.7"), ("245.0", "18.4"), ("170.0", "19.0"), ("95.0", "19.6"), ("20.0", "20.3"),
    ]  # fmt: skip
    assert '<text x="283.0" y="352" text-anchor="middle">bits<' in drawn
    assert 'transform="rotate(-90 14 166.0)">dB<' in drawn
    assert '<rect width="640" height="360" fill="#fff"/>' in drawn


def test_a_point_alone_has_an_octave_and_half_a_decibel_around_it():
    drawn = plots.scatter([("one", 0.0, 20.0)], "bits", "dB")
    assert re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', drawn) == [("56.0", "166.0")]
    assert re.findall(r'text-anchor="end">([\d.]+)<', drawn) == ["19.8", "19.9", "20.0", "20.1", "20.2"]
    assert re.findall(r'y="332" text-anchor="middle">(\w+)<', drawn) == ["1", "2"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (99.96, "100"), (100, "100"), (100.4, "100"), (9_999, "9,999"), (9_999.4, "9,999"), (10_000, "10k"),
        (999_400, "999k"), (1e6, "1M"), (1.5e9, "1.5G"), (2e12, "2T"), (-12_345, "-12.3k"), (-0.5, "-0.5"),
        (2.5, "2.5"), (1e-3, "0.001"), (9.9e-4, "9.9e-4"), (1e-12, "1.0e-12"), (99, "99"), (1.234, "1.23"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits_and_a_unit(value, said):
    assert plots.number(value) == said


def paths(drawn, name):
    (found,) = re.findall(rf'class="{name}" d="M([^"]+)"', drawn)
    return [tuple(map(float, point.split())) for point in found.split("L")]
