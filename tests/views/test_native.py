"""Views of a picture's own aspect ratio: Fuyu's and Idefics2's."""

import numpy as np
import pytest
import torch
from PIL import Image

from chiasm import parts
from chiasm.data.cut import cut
from chiasm.errors import RecipeError
from chiasm.views import Size


def native(**options):
    return parts.build("views", {"type": "native", **options}, 6)


def bounded(**options):
    return parts.build("views", {"type": "bounded", **options})


def test_a_small_picture_keeps_its_pixels_and_is_filled_up_on_the_right_and_below():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (11, 17, 3), np.uint8))
    (view,) = native(patch=8).split(Size(11, 17))
    assert view.size == Size(16, 24)
    made = cut(picture, view)
    expected = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
    torch.testing.assert_close(made[:, :11, :17], expected)
    assert torch.all(made[:, 11:] == 1 / 255)
    assert torch.all(made[:, :, 17:] == 1 / 255)


def test_a_large_picture_is_shrunk_into_both_limits():
    assert native().shrink(Size(1280, 720)) == Size(1080, 607)
    assert native().shrink(Size(28, 2800)) == Size(19, 1920)
    assert native().shrink(Size(2, 20000)) == Size(1, 1920)


def test_each_row_ends_with_the_marker():
    assert list(native().arrange(Size(60, 90), [(2, 3)])) == [0, 1, 2, -1, 3, 4, 5, -1]
    plain = native(row_ends=False)
    assert plain.markers is None
    assert list(plain.arrange(Size(60, 90), [(2, 3)])) == list(range(6))
    with pytest.raises(RecipeError, match="one view, not 2"):
        native().arrange(Size(60, 90), [(2, 3), (2, 3)])


def test_bounds_of_idefics2():
    """Its own examples: the longer side at most, then the shorter at least."""
    views = bounded(longest=980, shortest=378, patch=14)
    assert views.resize(Size(500, 600)) == Size(500, 600)
    assert views.resize(Size(1000, 2000)) == Size(490, 980)
    assert views.resize(Size(2000, 200)) == Size(980, 378)
    (view,) = views.split(Size(500, 600))
    assert view.size == Size(490, 588)
    assert view.box == (0, 0, 588, 490)


@pytest.mark.parametrize("size", [Size(1, 1), Size(20, 20000), Size(20000, 20), Size(3, 1)])
@pytest.mark.parametrize("views", [native(), bounded()])
def test_extreme_pictures_are_cut(views, size):
    picture = Image.new("RGB", (size.width, size.height), "red")
    for view in views.split(size):
        assert cut(picture, view).shape == (3, *view.size)
