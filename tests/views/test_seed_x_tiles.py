"""SEED-X's tiles: which canvas, in which order, and where each view says that it lies."""

import pytest
import torch

from chiasm import parts
from chiasm.data.assembly import Assembly
from chiasm.data.contract import Contract
from chiasm.data.sample import Picture
from chiasm.views import Size

GRIDS = [(1, 1), (2, 1), (3, 1), (1, 2), (1, 3), (4, 1), (1, 4), (2, 2)]


def views(**options):
    return parts.build("views", {"type": "seed_x_tiles", "size": 448, **options}, 8)


def expected_canvas(height, width):
    """The two searches of the original, one after another, in its own words."""
    canvases = [(rows * 448, columns * 448) for rows, columns in GRIDS]
    most, least, fit = 0, float("inf"), None
    for tall, wide in canvases:
        scale = min(wide / width, tall / height)
        effective = min(int(width * scale) * int(height * scale), width * height)
        wasted = tall * wide - effective
        if effective > most or (effective == most and wasted < least):
            most, least, fit = effective, wasted, (tall, wide)
    shape, area, near = float("inf"), float("inf"), None
    for tall, wide in canvases:
        shapes, areas = (tall / wide, height / width), (tall * wide, height * width)
        apart = max(shapes) / min(shapes), max(areas) / min(areas)
        if apart[0] < shape or (apart[0] == shape and apart[1] < area):
            (shape, area), near = apart, (tall, wide)
    return near if fit[0] * fit[1] > near[0] * near[1] else fit


@pytest.mark.parametrize("width", [1, 90, 448, 449, 700, 1344, 3000])
def test_the_canvas_is_the_originals(width):
    for height in (1, 100, 447, 448, 896, 1000, 2700):
        assert views().canvas(Size(height, width)) == expected_canvas(height, width), (height, width)


def test_the_whole_image_follows_its_tiles_each_between_its_markers():
    built = views(grids=[(2, 1)])
    assert [view.box for view in built.split(Size(40, 30))] == [
        (0, 0, 30, 20),
        (0, 20, 30, 40),
        (0, 0, 30, 40),
    ]
    assert built.arrange(Size(40, 30), [(1, 2)] * 3) == [-1, 0, 1, -2, -1, 2, 3, -2, -3, 4, 5, -4]


def test_a_view_says_where_its_centre_lies():
    centres = torch.tensor([[0.25, 0.5], [1.0, 0.0]])
    built = views()
    left, top, right, bottom = built.location.detach()
    expected = torch.stack([(0.25 * left + 0.5 * top + 0.75 * right + 0.5 * bottom) / 2, (left + bottom) / 2])
    torch.testing.assert_close(built.locate(centres).detach(), expected)


class Sized(Picture):
    def __init__(self, size):
        self.key, self.size = f"{size}", size

    def open(self):
        raise AssertionError("counted without pixels")


def test_a_batch_has_the_centres_of_the_views_of_its_images():
    encoder = parts.build("encoder", {"type": "patches", "patch_size": 448})
    connector = parts.build("connector", {"type": "linear"}, encoder.width, 8)
    image = Sized(Size(40, 80))

    def centres(located):
        built = views(grids=[(1, 2)], located=located)
        contract = Contract(None, 64, built, encoder, connector)
        return Assembly(contract, [image])._centres()

    (own,) = centres(True)
    assert own.tolist() == [[0.25, 0.5], [0.75, 0.5], [0.5, 0.5]]
    assert centres(False) is None
