"""Where DualFocus looks a second time."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chiasm.errors import DataError
from chiasm.views import Size
from chiasm.views.focus import Focus

ROUNDING = Fraction(1, 100)  # pixels; an edge near 20,000 is 1/500 apart from the next in fp32


def test_a_box_becomes_a_square_with_a_margin():
    # 40 x 20 pixels round (100, 60), so 40 x 40, and 10 more on every side
    focus = Focus.of(Size(200, 200), (0.4, 0.25, 0.6, 0.35), margin=10)
    assert focus.box == pytest.approx((80, 50, 120, 70))
    assert focus.square == pytest.approx((80, 40, 120, 80), abs=1e-4)
    assert focus.enlarged == pytest.approx((70, 30, 130, 90), abs=1e-4)


def test_what_lies_outside_the_image_is_left_out():
    focus = Focus.of(Size(100, 300), (0.0, 0.0, 1.0, 0.1))
    assert focus.square == (0, 0, 299, 99)
    assert focus.crop == (0, 0, 299, 99)


def test_a_point_is_seen_with_its_margin_only_where_it_has_an_extent():
    with pytest.raises(DataError, match="nothing to see"):
        Focus.of(Size(100, 100), (0.5, 0.5, 0.5, 0.5))
    assert Focus.of(Size(100, 100), (0.5, 0.5, 0.5, 0.52)).crop == (24, 25, 76, 77)


def test_an_image_of_one_pixel_has_no_part():
    with pytest.raises(DataError, match="two pixels or more"):
        Focus.of(Size(1, 1), (0.1, 0.1, 0.9, 0.9))


@pytest.mark.parametrize("box", [(0.995, 0.2, 1.0, 0.205), (0.2, 0.995, 0.205, 1.0)])
def test_a_box_within_the_last_pixel_is_cut_off_with_it(box):
    with pytest.raises(DataError, match="begins before the image's last pixel"):
        Focus.of(Size(100, 100), box)


sides = st.integers(2, 20_000)
spans = st.lists(st.integers(0, 100), min_size=2, max_size=2, unique=True).map(sorted)  # in hundredths


@given(height=sides, width=sides, across=spans, down=spans)
def test_the_crop_lies_in_the_image_and_holds_the_box_unless_that_is_cut_off(height, width, across, down):
    left, right = (Fraction(each * width, 100) for each in across)
    top, bottom = (Fraction(each * height, 100) for each in down)
    half = max(right - left, bottom - top) / 2
    behind = max((left + right) / 2 - half - (width - 1), (top + bottom) / 2 - half - (height - 1))
    box = (across[0] / 100, down[0] / 100, across[1] / 100, down[1] / 100)
    try:
        x1, y1, x2, y2 = Focus.of(Size(height, width), box).crop
    except DataError:
        assert behind > -ROUNDING, "the square begins before the last pixel"
        return
    assert behind < ROUNDING, "the square begins at the last pixel, or behind it"
    assert 0 <= x1 < x2 < width
    assert 0 <= y1 < y2 < height
    assert x1 <= left
    assert y1 <= top
    assert x2 >= min(right, width - 1)
    assert y2 >= min(bottom, height - 1)
