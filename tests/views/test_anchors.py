"""UReader's and DocOwl-1.5's crops: the nearest grid in form, then in size, and the names of crops."""

import random

import pytest

from chiasm import parts
from chiasm.errors import RecipeError
from chiasm.views import Size
from chiasm.views.anchors import FOUR, NINE, TWENTY


def views(**options):
    return parts.build("views", {"type": "anchors", "size": 10, **options})


def test_the_whole_picture_comes_first_also_before_a_single_crop():
    whole, crop = views().split(Size(10, 10))
    assert (whole.box, whole.size) == (crop.box, crop.size)
    assert (whole.row, whole.column, crop.row, crop.column) == (11, 11, 0, 0)
    assert len(views(overview=False).split(Size(10, 10))) == 1


def test_of_grids_of_one_form_the_one_nearest_in_size_is_taken():
    cut = views()
    assert [cut.grids[cut.nearest(Size(side, side))] for side in (10, 20, 30, 40, 400)] == [
        (1, 1), (2, 2), (3, 3), (4, 4), (4, 4),
    ]  # fmt: skip


def test_crops_lie_row_by_row():
    split = views().split(Size(20, 30))
    assert [view.box for view in split[1:3]] == [(0, 0, 10, 10), (10, 0, 20, 10)]
    assert [(view.row, view.column) for view in split[1:]] == [(r, c) for r in range(2) for c in range(3)]


def test_named_crops_have_their_names_before_them():
    cut = views(named=True)
    order = cut.arrange(Size(10, 20), [(1, 2)] * 3)
    text = "".join("?" if index >= 0 else cut.words[-1 - index] for index in order)
    assert text == "<global_img>??<crop_img_row0_col0>??<crop_img_row0_col1>??"
    assert [index for index in order if index >= 0] == list(range(6))


@pytest.mark.parametrize("grids", [FOUR, NINE, TWENTY])
def test_no_other_grid_is_clearly_nearer_in_form(grids):
    """By the description, without its rounding: pictures are compared at the width of each grid."""

    def overlap(size, rows, columns):
        scaled = size.height / size.width * columns
        shared = min(rows, scaled)
        return shared / (rows + scaled - shared)

    random.seed(0)
    cut = views(size=448, grids=grids)
    sizes = [Size(1, 1), Size(20, 20000), Size(20000, 20)]
    sizes += [Size(random.randint(20, 4000), random.randint(20, 4000)) for _ in range(3000)]
    for size in sizes:
        chosen = cut.grids[cut.nearest(size)]
        assert overlap(size, *chosen) > max(overlap(size, *grid) for grid in grids) - 0.01


def test_grids_are_needed():
    with pytest.raises(RecipeError, match="a grid"):
        views(grids=[])
