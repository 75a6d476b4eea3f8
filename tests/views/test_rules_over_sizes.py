"""What the rules of views say holds over ten thousand sizes, of one pixel and of 20,000 x 20 too."""

import random
from fractions import Fraction
from functools import cache
from math import ceil, exp, log

import numpy as np
import pytest

from chiasm import parts
from chiasm.views import Size

SIZES = [Size(1, 1), Size(20, 20000), Size(20000, 20), Size(1, 20000), Size(20000, 1), Size(3, 1)]
GRIDS_OF_TWENTY = [(h, w) for h in range(1, 21) for w in range(1, 21) if h * w <= 20 and max(h, w) < 12]


@cache
def sizes(count=10000):
    """As many small ones as large ones, of every form."""
    dice = random.Random(0)
    return [
        *SIZES,
        *(Size(*(round(exp(dice.uniform(0, log(20000)))) for _ in range(2))) for _ in range(count)),
    ]


def views(name, **options):
    marked = parts.lookup("views", name).marked
    return parts.build("views", {"type": name, **options}, *([8] if marked else []))


def test_anchors_are_the_grid_of_the_largest_overlap_in_form_and_then_in_size():
    """UReader (arXiv 2310.05126): 100 times the overlap with the image at the grid's width, its height cut to whole
    pixels, and once that with the image as it is."""
    cut = views("anchors")
    heights, widths = (224 * np.array(each, float) for each in zip(*cut.grids, strict=True))
    assert sorted(cut.grids) == sorted(set(GRIDS_OF_TWENTY))

    def overlap(height, width):
        shared = np.minimum(heights, height) * np.minimum(widths, width)
        return shared / (heights * widths + height * width - shared)

    for size in sizes():
        scaled = np.floor(np.float32(size.height / size.width) * np.float32(widths))
        score = 100 * overlap(scaled, widths) + overlap(size.height, size.width)
        assert score[cut.nearest(size)] > score.max() - 1e-4, size


@pytest.mark.parametrize("options", [{}, {"tiles": 55}, {"tiles": 24, "enlarge": False, "padding": "end"}])
def test_a_canvas_of_tiles_is_the_longest_that_the_budget_allows(options):
    """4KHD (arXiv 2404.06512): s tiles along the longer side, as many as keep s x ceil(s / ratio) within budget;
    2.5 (arXiv 2407.03320): no more than the longer side fills."""
    cut = views("hd_tiles", **options)
    for size in sizes(3000):
        canvas = cut.canvas(size)
        long, short = max(size), min(size)
        count, across = max(canvas.size) // 336, min(canvas.size) // 336
        filled = count == ceil(long / 336) and not cut.enlarge
        fits = [s for s in (count, count + 1) if s * ceil(Fraction(s * short, long)) <= cut.tiles]
        assert fits == [count] or filled or (count == 1 and not fits)
        assert count * across <= max(cut.tiles, count)
        assert max(canvas.picture) == count * 336
        assert abs(min(canvas.picture) - max(1, count * 336 * Fraction(short, long))) <= 1
        assert 0 <= min(canvas.size) - min(canvas.picture) < 336


def merit(canvas, size):
    """Pixels of the image that a canvas can show, and those of its own that are not wasted (LLaVA-NeXT)."""
    scale = min(Fraction(canvas.width, size.width), Fraction(canvas.height, size.height))
    shown = min(int(size.width * scale) * int(size.height * scale), size.width * size.height)
    return shown, shown - canvas.width * canvas.height


def test_the_canvas_of_any_resolution_shows_most_and_wastes_least():
    cut = views("any_resolution")
    for size in sizes(3000):
        plan = cut.enlarge(size)
        shown, unwasted = merit(plan.canvas, size)
        best = max(merit(canvas, size) for canvas in cut.resolutions)
        # Quotients are floats, which may lose a row or a column of pixels where they are whole.
        assert shown >= best[0] - sum(plan.canvas)
        assert unwasted >= best[1] - sum(plan.canvas) or shown > best[0]
        height, width = plan.picture
        assert plan.canvas.height in (height, height + plan.top * 2, height + plan.top * 2 + 1)
        assert height == plan.canvas.height or width == plan.canvas.width


def test_seed_xs_canvas_is_never_larger_than_that_of_the_nearest_form():
    """arXiv 2404.14396: of the canvas that shows most and the one of the nearest aspect ratio, the smaller."""
    cut = views("seed_x_tiles")
    for size in sizes(1000):
        own = Fraction(size.height, size.width)

        def distance(canvas, own=own):
            ratio = Fraction(canvas.height, canvas.width)
            return max(ratio, own) / min(ratio, own)

        canvas = cut.canvas(size)
        least = min(map(distance, cut.canvases))
        nearest = [each for each in cut.canvases if distance(each) <= least * (1 + Fraction(1, 10**9))]
        area = canvas.height * canvas.width
        assert area <= max(each.height * each.width for each in nearest)
        assert (
            canvas in nearest
            or merit(canvas, size)[0] >= max(merit(each, size)[0] for each in nearest) - 4000
        )


def test_a_letterbox_is_filled_by_the_longer_side():
    """arXiv 2403.05525: the longer side becomes the square's, the shorter is cut to whole pixels, 14 at least."""
    cut = views("letterbox")
    for size in sizes():
        (height, width), left, top = cut.lay(size)
        assert max(height, width) == 384
        exact = Fraction(384 * min(size), max(size))
        assert min(height, width) in {max(14, int(exact)), max(14, int(exact) - (exact == int(exact)))}
        assert (top, left) == ((384 - height) // 2, (384 - width) // 2)


def test_an_image_in_its_own_size_is_shrunk_into_the_limits_and_no_more():
    """Fuyu: at most 1080 x 1920 pixels, filled up to patches of 30."""
    cut = views("native")
    for size in sizes():
        height, width = cut.shrink(size)
        if size.height <= 1080 and size.width <= 1920:
            assert (height, width) == size
            continue
        scale = min(Fraction(1080, size.height), Fraction(1920, size.width))
        assert all(
            abs(side - max(1, scale * own)) <= 1 for side, own in zip((height, width), size, strict=True)
        )
        assert height <= 1080
        assert width <= 1920
        (view,) = cut.split(size)
        assert all(
            side <= filled < side + 30 and filled % 30 == 0
            for side, filled in zip((height, width), view.size)
        )
