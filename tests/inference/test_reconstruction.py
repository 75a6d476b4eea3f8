"""What an image tokenizer makes of an image: as one image, or as one for each scale."""

import numpy as np
import pytest
import torch
from PIL import Image

from chiasm.data.files import PictureInMemory
from chiasm.errors import ChiasmError
from chiasm.inference.reconstruction import reconstruct
from chiasm.model import Model
from chiasm.recipe import load_recipe


@pytest.fixture
def picture():
    noise = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    return PictureInMemory(Image.fromarray(noise))


def test_codes_make_an_image_again(tiny_model, picture):
    model = tiny_model[0]
    made = reconstruct(model, picture)
    assert made.original.size == (32, 32)
    assert made.target.shape == model.image_tokenizer.space.grid
    (decoded,) = made.decoded
    pixels = model.image_decoder.decode(made.target[None])[0].clamp(0, 1)
    assert np.abs(np.asarray(decoded.image) / 255 - pixels.detach().permute(1, 2, 0).numpy()).max() < 1 / 255
    error = np.mean((np.asarray(decoded.image) / 255 - np.asarray(made.original) / 255) ** 2)
    assert decoded.psnr == pytest.approx(-10 * np.log10(error), abs=0.1)


def test_scales_make_one_image_each_the_last_of_all_codes(picture):
    torch.manual_seed(0)
    model = Model(load_recipe("var", tiny=True).model).eval()
    made = reconstruct(model, picture)
    scales = model.image_tokenizer.space.scales
    assert [each.positions for each in made.decoded] == [
        sum(rows * columns for rows, columns in scales[: i + 1]) for i in range(len(scales))
    ]
    assert made.decoded[-1].positions == made.target.numel()
    assert len({each.image.tobytes() for each in made.decoded}) > 1


def test_a_model_without_an_image_tokenizer_is_refused(tiny, picture):
    for slot in ("image_tokenizer", "heads"):
        del tiny["model"][slot]
    tiny["stages"] = [{**tiny["stages"][1], "train": {"connector": 1e-3, "language": 1e-3}}]
    model = Model(load_recipe(tiny).model, texts=["a text"])
    with pytest.raises(ChiasmError, match="no image tokenizer"):
        reconstruct(model, picture)
