"""LLaVA-1.6's tiles: which canvas, which boxes, and what the language model reads of them."""

import pytest
import torch
from PIL import Image

from chiasm import parts
from chiasm.data.cut import cut
from chiasm.data.documents import document
from chiasm.data.picture_reader import PictureReader
from chiasm.data.sample import Message, Picture, Sample
from chiasm.errors import RecipeError
from chiasm.model import Model
from chiasm.recipe import load_recipe
from chiasm.sequence import pack
from chiasm.views import Size

SMALL = {"type": "any_resolution", "size": 16, "resolutions": [(16, 32), (32, 16), (32, 32)]}


def views(**options):
    return parts.build("views", {**SMALL, **options}, 8)


def test_a_wide_picture_takes_the_wide_canvas():
    plan = views().enlarge(Size(10, 40))
    assert (plan.canvas, plan.picture, plan.left, plan.top) == (Size(16, 32), Size(8, 32), 0, 4)


def test_tiles_stand_behind_the_whole_picture_row_by_row():
    split = views().split(Size(40, 40))
    assert len(split) == 5
    assert split[0].box == (0, 0, 40, 40)
    assert [(view.row, view.column) for view in split[1:]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert split[4].box == (20, 20, 40, 40)


def test_rows_of_the_mosaic_run_across_tiles_and_end_with_the_marker():
    order = views(resolutions=[(16, 32)]).arrange(Size(16, 32), [(2, 2)] * 3)
    assert list(order) == [0, 1, 2, 3, 4, 5, 8, 9, -1, 6, 7, 10, 11, -1]


def test_padding_is_not_read():
    order = list(views(resolutions=[(16, 32)]).arrange(Size(8, 32), [(4, 4)] * 3))
    assert len(order) == 16 + 2 * (8 + 1)  # the middle two of four rows


@pytest.mark.parametrize(("arrangement", "count"), [("tiles", 12), ("mosaic", 12), ("unpadded", 14)])
def test_arrangements(arrangement, count):
    built = views(resolutions=[(16, 32)], arrangement=arrangement)
    assert len(built.arrange(Size(16, 32), [(2, 2)] * 3)) == count
    assert (built.markers is not None) == (arrangement == "unpadded")


@pytest.mark.parametrize("size", [Size(1, 1), Size(20, 20000), Size(20000, 20), Size(3, 1)])
def test_extreme_pictures_are_cut(size):
    picture = Image.new("RGB", (size.width, size.height), "red")
    built = views()
    tiles = [cut(picture, view) for view in built.split(size)]
    assert all(tile.shape == (3, 16, 16) for tile in tiles)
    assert len(built.arrange(size, [(2, 2)] * len(tiles))) >= 4


def test_what_lies_beyond_the_picture_is_black():
    built = views(resolutions=[(16, 32)])
    tile = cut(Image.new("RGB", (32, 8), "white"), built.split(Size(8, 32))[1])
    assert tile[:, 0].max() == 0
    assert tile[:, 8].min() == 1


def test_a_canvas_that_tiles_do_not_fill_is_refused():
    with pytest.raises(RecipeError, match="20x32 into 16x16"):
        views(resolutions=[(20, 32)])


class Plain(Picture):
    def __init__(self, size):
        self.key, self.size = f"{size}", size

    def open(self):
        return Image.new("RGB", (self.size.width, self.size.height), "red")


def test_the_model_reads_markers_where_rows_end_and_learns_them(tiny):
    tiny["model"] = {**tiny["model"], "views": SMALL}
    tiny["stages"] = [{**tiny["stages"][1], "train": {"views": 1e-3, "connector": 1e-3}}]
    model = Model(load_recipe(tiny).model, texts=["a picture"])
    sample = Sample("wide", (Message("user", (Plain(Size(16, 32)), "what?")), Message("assistant", ("red",))))
    made = document(model.contract, sample)
    tokens = made.slots[0].length
    assert tokens == model.contract.read_tokens(Size(16, 32), "it") == 4 + 2 * (4 + 1)
    batch, slots = pack([[made]])
    batch = PictureReader(model.contract).attach(batch, slots)
    visual = model.encode_images(batch.read)[batch.read.sources]
    ends = (visual == model.views.markers[0]).all(1).nonzero().flatten().tolist()
    assert ends == [8, 13]
    model.losses(batch)["text"].mean.backward()
    assert model.views.markers.grad.abs().sum() > 0
    assert "views.markers" in model.state_dict()
    assert torch.isfinite(model.views.markers.grad).all()
