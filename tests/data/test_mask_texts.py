"""Masks in words and back: what each form keeps of a mask, and what is no mask."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from chiasm.data.mask_texts import MASK_TEXTS, filled, outlines, simplified
from chiasm.views import Size

MASKS = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))

# Columns 1 to 4, rows 2 to 5, with a hole of one pixel, of 8 by 8.
RING = np.zeros((8, 8), dtype=bool)
RING[2:6, 1:5] = True
RING[3, 2] = False


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()


def disc(size, radius, down, right):
    ys, xs = np.mgrid[:size, :size] + 0.5
    return (ys - down) ** 2 + (xs - right) ** 2 <= radius**2


@given(MASKS)
def test_outlines_hold_the_whole_mask(mask):
    assert (filled(outlines(mask), Size(*mask.shape)) == mask).all()


def test_on_a_grid_of_pixels_both_forms_say_the_mask_exactly():
    assert MASK_TEXTS["runs"].write(RING, 8) == "2 1 4; 3 1 1; 3 3 2; 4 1 4; 5 1 4"
    assert MASK_TEXTS["polygons"].write(RING, 8) == "1 2 5 2 5 6 1 6; 2 4 3 4 3 3 2 3"
    for form in MASK_TEXTS.values():
        assert (form.read(form.write(RING, 8), 8, Size(8, 8)) == RING).all()


@given(MASKS, st.sampled_from(sorted(MASK_TEXTS)), st.integers(4, 12))
def test_what_is_written_can_be_read_and_is_empty_only_for_an_empty_mask(mask, form, side):
    text = MASK_TEXTS[form].write(mask, side)
    read = MASK_TEXTS[form].read(text, side, Size(*mask.shape))
    assert read is not None
    assert read.shape == mask.shape
    assert (text == "none") == (not mask.any())


@pytest.mark.parametrize("form", MASK_TEXTS)
@pytest.mark.parametrize(("height", "width"), [(96, 96), (60, 120)])
def test_a_finer_grid_says_more_of_a_mask(form, height, width):
    mask = disc(120, 25, 30, 40)[:height, :width] | disc(120, 12, 45, 80)[:height, :width]
    write, read = MASK_TEXTS[form]
    coarse, fine = (overlap(mask, read(write(mask, side), side, Size(height, width))) for side in (8, 32))
    assert 0.5 < coarse < fine
    assert fine > 0.9


def test_a_simplified_outline_has_few_corners():
    (outline,) = outlines(disc(96, 30, 48, 48))
    few = simplified(outline, 2.0)
    assert len(few) <= 16 < len(outline)
    assert overlap(filled([few], Size(96, 96)), disc(96, 30, 48, 48)) > 0.9


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("polygons", ""),
        ("polygons", "nothing"),
        ("polygons", "1 2 5 2"),  # no area
        ("polygons", "1 2 5 2 5 6 1"),  # cut off within a corner
        ("polygons", "1 2 5 2 5 6 1 9"),  # outside
        ("polygons", "1 2 5 2 5 6; 3"),
        ("polygons", "1 2 5 2 5 " + "6" * 5000),
        ("runs", "2 1"),
        ("runs", "2 1 4;"),
        ("runs", "8 1 4"),
        ("runs", "2 5 4"),
        ("runs", "2 1 0"),
        ("runs", "-2 1 4"),
    ],
)
def test_what_is_no_mask_is_not_read(form, text):
    assert MASK_TEXTS[form].read(text, 8, Size(8, 8)) is None
