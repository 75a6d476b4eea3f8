"""Where DualFocus looks a second time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chiasm.errors import DataError
from chiasm.views import Size
from chiasm.views.focus import Focus


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


@given(
    st.tuples(st.integers(2, 20_000), st.integers(2, 20_000)),
    st.lists(st.integers(0, 100), min_size=4, max_size=4, unique=True),
)
def test_the_crop_lies_in_the_image_and_holds_the_box(size, cents):
    height, width = size
    left, right, top, bottom = sorted(cents[:2]) + sorted(cents[2:])
    box = (left / 100, top / 100, right / 100, bottom / 100)
    x1, y1, x2, y2 = Focus.of(Size(height, width), box).crop
    assert 0 <= x1 < x2 < width
    assert 0 <= y1 < y2 < height
    assert x1 <= box[0] * width
    assert y2 >= min(box[3] * height, height - 1) - 1
