"""Editing: what lies outside the mask keeps its codes, and only what lies inside is drawn."""

import io
from copy import deepcopy

import numpy as np
import pytest
import torch
from PIL import Image

from chiasm import parts
from chiasm.data.corpus import corpus
from chiasm.data.files import PictureInMemory
from chiasm.errors import ChiasmError, DataError
from chiasm.heads import DrawingState, Sampling
from chiasm.inference.drawing import Drawing, decode
from chiasm.inference.editing import cells, edit_of
from chiasm.inference.engine import Engine
from chiasm.inference.reading import CodeReader
from chiasm.model import Model
from chiasm.nn.generators import Generators
from chiasm.recipe import load_recipe
from tiny_recipe import TINY

VECTORS = {"image_tokenizer": {"type": "pixels", "size": 32, "patch_size": 8}}  # 4 x 4 of them
GUIDED = Sampling(guidance=1.5)
FLOW = {"type": "flow", "steps": 2, "depth": 1, "hidden": 8}
MODELS = {
    "raster": ({"type": "raster", "alphabet": {"type": "own"}}, {}),
    "masked": ({"type": "masked", "alphabet": {"type": "own"}, "steps": 3}, {}),
    "raster vectors": ({"type": "raster", "alphabet": {"type": "regression"}}, VECTORS),
    "masked vectors": ({"type": "masked", "alphabet": FLOW, "steps": 3}, VECTORS),
}


def built(order, neighbours=()):
    raw = deepcopy(TINY)
    raw["model"] |= {**dict(neighbours), "heads": {"image": order}}
    if neighbours:
        raw["stages"] = raw["stages"][1:]
    recipe = load_recipe(raw)
    model = Model(recipe.model, texts=corpus(recipe)).eval()
    with torch.no_grad():
        for parameter in (*model.language.parameters(), *model.image_head.parameters()):
            if parameter.ndim > 1:
                parameter.mul_(8)  # so that what is drawn differs
    return model


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return built(*MODELS[request.param])


def picture(seed=0, size=(32, 32)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    return Image.fromarray(pixels)


def mask(*box, size=(32, 32)):
    """Transparent within the box."""
    drawn = Image.new("RGBA", size, (0, 0, 0, 255))
    drawn.paste((0, 0, 0, 0), box)
    return drawn


def drawing(model, image, alpha, seeds=(1, 2), progress=None):
    wanted = edit_of(model, [PictureInMemory(image)], "a dog", alpha)
    prompts = [wanted.prompt] * len(seeds)
    request = Drawing(model, prompts, GUIDED, Generators(seeds), progress, wanted.original)
    return Engine(model).submit(request), wanted.original.redrawn


def test_outside_the_mask_every_code_stays_and_inside_it_new_ones_are_drawn(model):
    image = picture()
    own = CodeReader(model).codes_of(PictureInMemory(image))
    handle, redrawn = drawing(model, image, mask(16, 0, 32, 32))
    assert redrawn.sum() == redrawn.numel() / 2
    images = handle.result()
    assert all(torch.equal(each[~redrawn], own[~redrawn]) for each in images)
    assert any(not torch.equal(each[redrawn], own[redrawn]) for each in images)


def test_under_a_mask_of_all_an_image_is_drawn_as_without_one(model):
    edited = model.edit(picture(), "a dog", mask=mask(0, 0, 32, 32), seed=5)
    assert edited[0].tobytes() == model.generate("a dog", seed=5)[0].tobytes()


def test_an_edit_that_was_stopped_goes_on_where_it_stood(model):
    expected = drawing(model, picture(), mask(0, 0, 32, 20))[0].result()

    class Stopped(DrawingState):
        stopped = False

        def note(self, values, steps):
            super().note(values, steps)
            if not self.stopped:
                self.stopped = True
                raise KeyboardInterrupt

    handle, _ = drawing(model, picture(), mask(0, 0, 32, 20), progress=Stopped(Generators([1, 2])))
    with pytest.raises(KeyboardInterrupt):
        handle.result()
    assert torch.equal(handle.result(), expected)


def test_what_is_drawn_are_the_pixels_of_these_codes(model):
    target = drawing(model, picture(), mask(0, 0, 8, 8), seeds=(3,))[0].result()
    (image,) = model.edit(picture(), "a dog", mask=mask(0, 0, 8, 8), seed=3, guidance=1.5)
    pixels = (decode(model, target, Generators([3]))[0] * 255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(np.asarray(image), pixels)


def test_a_cell_is_drawn_anew_where_any_pixel_of_it_is_transparent():
    pixels = np.zeros((10, 10), bool)
    pixels[0, 0] = pixels[5, 9] = True
    assert cells(pixels, (2, 2)).tolist() == [[True, False], [False, True]]
    assert cells(pixels, (3, 3)).tolist() == [
        [True, False, False],
        [False, False, True],
        [False, False, False],
    ]


def test_without_a_mask_the_image_is_read_before_the_instruction(tiny_model):
    model = tiny_model[0]
    image = PictureInMemory(picture())
    read, words = (edit_of(model, [image], "a dog", alpha).prompt for alpha in (None, mask(0, 0, 8, 8)))
    assert [slot.picture for slot in read.slots] == [image]
    assert words.slots == []
    assert model.edit(image, "a dog", seed=1, count=2)[0].size == (32, 32)


def test_a_model_that_reads_no_images_edits_under_a_mask_alone(model, monkeypatch):
    monkeypatch.setattr(type(model), "sees", False)
    with pytest.raises(ChiasmError, match="image: this model reads no images"):
        model.edit(picture(), "a dog")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Image.new("RGB", (32, 32)), "mask: .* no transparency"),
        (mask(0, 0, 8, 8, size=(16, 32)), "mask: it has 16 x 32 pixels, and the image 32 x 32"),
        (mask(0, 0, 0, 0), "mask: no pixel"),
        (b"no image", "mask: .* not an image"),
        (Image.new("RGBA", (32, 32), (0, 0, 0, 1)), "mask: no pixel"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(tiny_model, wrong, message):
    with pytest.raises(DataError, match=message):
        tiny_model[0].edit(picture(), "a dog", mask=wrong)


def test_a_mask_is_of_one_image(tiny_model):
    with pytest.raises(DataError, match="mask: it is of one image, and there are 2"):
        tiny_model[0].edit([picture(), picture(1)], "a dog", mask=mask(0, 0, 8, 8))


def test_a_mask_may_be_a_file_and_is_turned_as_its_image_is(tiny_model, tmp_path):
    image, alpha, turned = picture(size=(16, 32)), mask(0, 0, 32, 8, size=(32, 16)), Image.Exif()
    turned[0x0112] = 6  # seen after a quarter turn
    for name, each in (("image.png", image), ("mask.png", alpha)):
        each.save(tmp_path / name, exif=turned)
    buffer = io.BytesIO((tmp_path / "mask.png").read_bytes())
    one = tiny_model[0].edit(tmp_path / "image.png", "a dog", mask=str(tmp_path / "mask.png"))
    other = tiny_model[0].edit(image.transpose(Image.Transpose.ROTATE_270), "a dog", mask=buffer.getvalue())
    assert one[0].tobytes() == other[0].tobytes()


@pytest.mark.parametrize("name", ["scales", "variable", "queries", "whole", "u_vit"])
def test_an_order_that_draws_all_of_an_image_refuses_a_mask(tiny_model, name, monkeypatch):
    order = parts.lookup("order", name)
    assert not order.edits
    monkeypatch.setattr(type(tiny_model[0].image_head), "edits", False)
    with pytest.raises(ChiasmError, match=r"mask: the image head .* cannot keep a part of an image"):
        tiny_model[0].edit(picture(), "a dog", mask=mask(0, 0, 8, 8))
