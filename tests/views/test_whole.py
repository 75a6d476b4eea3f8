import time

import numpy as np
import pytest
import torch
from PIL import Image

from chiasm import parts
from chiasm.data.cut import GREY, cut
from chiasm.views import Size, View


def whole(**options):
    return parts.build("views", {"type": "whole", **options})


def noise(height, width, mode="RGB"):
    channels = {"RGB": (3,), "L": (), "RGBA": (4,)}[mode]
    return Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (height, width, *channels), dtype=np.uint8), mode
    )


def pixels(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize(
    ("fit", "size", "box"),
    [
        ("stretch", Size(60, 100), (0, 0, 100, 60)),
        ("pad", Size(60, 100), (0, -20, 100, 80)),
        ("pad", Size(100, 61), (-19, 0, 81, 100)),
        ("crop", Size(60, 100), (20, 0, 80, 60)),
        ("crop", Size(101, 60), (0, 20, 60, 80)),
        ("pad", Size(7, 7), (0, 0, 7, 7)),
    ],
)
def test_the_box_of_each_fit(fit, size, box):
    assert whole(size=32, fit=fit).split(size) == [View(box=box, size=Size(32, 32))]


@pytest.mark.parametrize("size", [(60, 100), (100, 60), (33, 90), (90, 33), (50, 50)])
def test_padding_is_that_of_llava(size):
    """expand2square of LLaVA-1.5 (arXiv 2310.03744): paste on a square canvas, then resize it."""
    picture = noise(*size)
    side = max(size)
    canvas = Image.new("RGB", (side, side), GREY)
    canvas.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    expected = pixels(canvas.resize((24, 24), Image.Resampling.BICUBIC))
    made = cut(picture, whole(size=24, fit="pad").split(Size(*size))[0])
    assert (
        made - expected
    ).abs().max() <= 1.01 / 255  # PIL's other order of axes rounds by one level at most


def test_stretching_is_a_plain_bicubic_resize():
    picture = noise(60, 100)
    expected = pixels(picture.resize((24, 24), Image.Resampling.BICUBIC))
    assert torch.equal(cut(picture, whole(size=24, fit="stretch").split(Size(60, 100))[0]), expected)


def test_a_view_of_the_pictures_own_size_is_the_picture():
    picture = noise(32, 32)
    assert torch.equal(cut(picture, whole(size=32).split(Size(32, 32))[0]), pixels(picture))


def test_a_crop_takes_the_middle():
    picture = noise(32, 64)
    assert torch.equal(
        cut(picture, whole(size=32, fit="crop").split(Size(32, 64))[0]), pixels(picture)[..., 16:48]
    )


def test_shrinking_is_antialiased():
    stripes = Image.fromarray(np.tile(np.array([0, 255], dtype=np.uint8), (64, 32)), "L")
    made = cut(stripes, whole(size=8).split(Size(64, 64))[0])
    assert (made - 0.5).abs().max() < 0.05


def test_what_lies_beyond_the_picture_has_the_padding_colour():
    black = Image.new("RGB", (10, 40))
    made = cut(black, whole(size=40, fit="pad").split(Size(40, 10))[0], padding=(255, 0, 0))
    assert made[:, :, 0].mean(-1).tolist() == [1, 0, 0]
    assert made[:, :, 20].max() == 0


@pytest.mark.parametrize("mode", ["L", "RGBA", "RGB", "P", "LA", "1"])
def test_pictures_of_every_mode_become_rgb_between_zero_and_one(mode):
    made = cut(noise(20, 30).convert(mode), whole(size=16).split(Size(20, 30))[0])
    assert made.shape == (3, 16, 16)
    assert made.dtype == torch.float32
    assert made.min() >= 0
    assert made.max() <= 1


def test_what_is_transparent_is_white():
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert cut(clear, whole(size=8).split(Size(8, 8))[0]).min() == 1


def test_a_long_thin_picture_needs_no_square_canvas_of_its_length():
    started = time.process_time()
    for size in (Size(20000, 4), Size(4, 20000)):
        picture = Image.new("RGB", (size.width, size.height), (255, 255, 255))
        assert cut(picture, whole(size=16).split(size)[0]).shape == (3, 16, 16)
    assert time.process_time() - started < 5


def test_a_view_may_be_any_part_of_the_picture():
    picture = noise(40, 40)
    made = cut(picture, View(box=(8, 16, 24, 32), size=Size(16, 16)))
    assert torch.equal(made, pixels(picture)[:, 16:32, 8:24])
    assert cut(picture, View(box=(-3.5, 10.25, 60, 20), size=Size(5, 9))).shape == (3, 5, 9)
