"""InternVL's tiles against the description of them: the closest ratio, and on a tie the size of the picture."""

import random
from fractions import Fraction

import pytest

from chiasm import parts
from chiasm.errors import RecipeError
from chiasm.views import Size


def views(**options):
    return parts.build("views", {"type": "ratio_tiles", "size": 10, **options})


def test_a_single_tile_has_no_thumbnail_behind_it():
    (view,) = views().split(Size(6, 6))
    assert (view.box, view.size) == ((0, 0, 6, 6), (10, 10))


def test_tiles_come_row_by_row_and_the_whole_picture_last():
    split = views().split(Size(20, 30))
    assert [(view.row, view.column) for view in split[:-1]] == [(r, c) for r in range(2) for c in range(3)]
    assert split[1].box == (10, 0, 20, 10)
    assert split[-1].box == (0, 0, 30, 20)
    assert len(views(thumbnail=False).split(Size(20, 30))) == 6


@pytest.mark.parametrize(("side", "tiles"), [(14, 1), (15, 4), (22, 9), (100, 9)])
def test_of_grids_that_are_equally_close_the_largest_is_taken_that_the_picture_half_fills(side, tiles):
    assert len(views(thumbnail=False).split(Size(side, side))) == tiles


def test_the_grid_is_as_close_as_any_other_over_ten_thousand_sizes():
    random.seed(0)
    sizes = [Size(1, 1), Size(20, 20000), Size(20000, 20)]
    sizes += [Size(random.randint(1, 4000), random.randint(1, 4000)) for _ in range(10000)]
    for tiles in (1, 6, 12, 40):
        cut = views(tiles=tiles)
        ratios = {Fraction(c, r) for r in range(1, tiles + 1) for c in range(1, tiles // r + 1)}
        for size in sizes[:: 1 if tiles == 12 else 20]:
            rows, columns = cut.grid(size)
            wanted = Fraction(size.width, size.height)
            distance = min(abs(wanted - ratio) for ratio in ratios)
            assert rows * columns <= tiles
            assert abs(wanted - Fraction(columns, rows)) - distance < Fraction(1, 10**12)


def test_fewer_tiles_than_the_fewest_are_never_made():
    assert {len(views(fewest=3, tiles=6, thumbnail=False).split(Size(h, 9))) for h in (1, 9, 99)} <= {
        3,
        4,
        5,
        6,
    }
    with pytest.raises(RecipeError, match="at least 7 and at most 6"):
        views(fewest=7, tiles=6)
