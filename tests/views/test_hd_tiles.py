"""InternLM-XComposer2-4KHD's canvas: how large, where padded, and what is read of it."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from chiasm import parts
from chiasm.data.cut import cut
from chiasm.errors import RecipeError
from chiasm.model import Model
from chiasm.recipe import load_recipe
from chiasm.views import Size
from chiasm.views.hd_tiles import WHITE


def views(**options):
    return parts.build("views", {"type": "hd_tiles", "size": 10, "tiles": 4, **options}, 8)


def test_small_pictures_are_enlarged_to_the_budget_or_not():
    assert views().canvas(Size(3, 3)).size == Size(20, 20)
    assert views(enlarge=False).canvas(Size(3, 3)).size == Size(10, 10)


@pytest.mark.parametrize(("padding", "top", "bottom"), [("both", 2, 3), ("end", 0, 5)])
def test_padding_completes_the_shorter_side(padding, top, bottom):
    plan = views(tiles=6, padding=padding).canvas(Size(12, 24))  # 30 x 15 on 30 x 20
    assert (plan.size, plan.picture, plan.top, plan.bottom) == (Size(20, 30), Size(15, 30), top, bottom)


def test_a_tall_picture_is_planned_lying_down():
    lying, tall = views(tiles=6).canvas(Size(12, 24)), views(tiles=6).canvas(Size(24, 12))
    assert tall.size == lying.size[::-1]
    assert tall.picture == lying.picture[::-1]
    assert (tall.left, tall.top) == (lying.top, lying.left)


def test_the_overview_shows_the_padding_in_white_and_comes_first():
    split = views(tiles=6).split(Size(12, 24))
    assert len(split) == 1 + 3 * 2
    assert split[0].padding == WHITE
    assert split[0].box == (0, -2 * 0.8, 24, 18 * 0.8)


def test_rows_end_with_a_marker_and_a_separator_stands_between():
    order = views(tiles=2).arrange(Size(10, 20), [(1, 2)] * 3)
    assert list(order) == [0, 1, -1, -2, 2, 3, 4, 5, -1]


def test_markers_pass_through_the_connector(tiny):
    tiny["model"]["views"] = {"type": "hd_tiles", "size": 16, "tiles": 1}
    tiny["model"]["connector"] = {"type": "pixel_shuffle", "norm": False}
    recipe = load_recipe(tiny)
    model = Model(recipe.model, texts=["a b"])
    assert model.views.markers.shape == (2, 4 * model.encoder.width)
    torch.nn.init.normal_(model.views.markers)
    assert model.connector.layers(model.views.markers).shape == (2, model.language.width)


def test_a_connector_that_makes_no_token_of_a_square_is_refused(tiny):
    from chiasm.connectors import Connector

    assert Connector.block(parts.build("connector", {"type": "mlp"}, 4, 4)) == 1
    assert parts.build("connector", {"type": "pixel_shuffle", "factor": 3}, 4, 4).block() == 3
    with pytest.raises(RecipeError, match="one token grid"):
        views().arrange(Size(10, 20), [(1, 2), (2, 2)])


@pytest.mark.parametrize(("height", "width"), [(60, 60), (45, 90), (90, 45)])
def test_pictures_that_fill_their_canvas_are_cut_as_the_original_cuts_them(height, width):
    """Resize bilinearly, cut into tiles; the overview is the canvas interpolated without antialiasing."""
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
    picture = Image.fromarray(pixels.numpy())
    part = views(tiles=9)
    canvas = part.canvas(Size(height, width)).size
    resized = picture.resize((canvas.width, canvas.height), Image.Resampling.BILINEAR)
    large = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255
    tiles = large.unfold(1, 10, 10).unfold(2, 10, 10).permute(1, 2, 0, 3, 4).flatten(0, 1)
    made = [cut(picture, view) for view in part.split(Size(height, width))]
    overview = functional.interpolate(large[None], (10, 10), mode="bicubic")[0].clamp(0, 1)
    assert torch.allclose(made[0], overview, atol=1.01 / 255)
    assert torch.allclose(torch.stack(made[1:]), tiles, atol=1.01 / 255)
