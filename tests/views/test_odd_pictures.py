"""Pictures of one pixel and of 20,000 x 20 through every views part and encoder, and to an answer."""

import resource

import numpy as np
import pytest
import torch
from PIL import Image

from chiasm import parts
from chiasm.data.corpus import corpus
from chiasm.data.cut import cut
from chiasm.model import Model
from chiasm.recipe import load_recipe
from chiasm.views import Size

SIZES = [Size(1, 1), Size(20, 20000), Size(20000, 20), Size(1, 20000), Size(3, 1)]
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
         "image_size": 32, "patch_size": 8}  # fmt: skip
ENCODERS = {
    "clip": {"type": "transformers", "config": {**SMALL, "model_type": "clip_vision_model"}},
    "siglip_native": {"type": "siglip_native", "config": {**SMALL, "model_type": "siglip_vision_model"}},
    "patches": {"type": "patches", "patch_size": 8},
    "vit": {"type": "vit", "patch_size": 8, "width": 16, "depth": 1, "heads": 2, "size": 32},
    "eva": {"type": "eva", "size": 32, "patch_size": 8, "width": 16, "depth": 1, "heads": 2, "hidden": 16},
    "sam": {"type": "sam", "size": 32, "patch_size": 8, "width": 16, "depth": 1, "heads": 2, "hidden": 16,
            "window": 2, "global_layers": [0], "neck": 8},
    "efficientnet_lite": {"type": "efficientnet_lite"},
}  # fmt: skip
VIEWS = {
    "any_resolution": {"size": 32, "resolutions": [(32, 64), (64, 32)]},
    "bounded": {"longest": 64, "shortest": 16, "patch": 8},
    "hd_tiles": {"size": 32, "tiles": 4},
    "letterbox": {"size": 32, "shortest": 2},
    "native": {"height": 64, "width": 96, "patch": 8},
    "whole": {"size": 32},
}


def picture(size):
    return Image.fromarray(np.full((size.height, size.width, 3), 128, np.uint8))


def views(name, **options):
    marked = parts.lookup("views", name).marked
    return parts.build("views", {"type": name, **options}, *([8] if marked else []))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", parts.names("views"))
def test_every_views_part_cuts_it_in_its_published_sizes_and_little_memory(name, size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made = views(name).split(size)
    assert 1 <= len(made) <= 64
    for view in made:
        assert cut(picture(size), view).shape == (3, *view.size)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 300, f"{grown:.0f} MiB"


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_reads_its_views(encoder, name, size):
    part = parts.build("encoder", ENCODERS[encoder]).eval()
    for view in views(name, **VIEWS[name]).split(size)[:2]:
        pixels = cut(picture(size), view)[None]
        with torch.no_grad():
            made = part(pixels)
        assert made.shape == (1, *part.grid(*view.size), part.width)
        assert bool(made.isfinite().all())


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", VIEWS)
def test_a_model_answers_about_it(tiny, name, size):
    for slot in ("image_tokenizer", "heads"):
        del tiny["model"][slot]
    tiny["stages"] = []
    tiny["model"]["views"] = {"type": name, **VIEWS[name]}
    tiny["model"]["connector"] = {"type": "pixel_shuffle" if name == "hd_tiles" else "mlp"}
    recipe = load_recipe(tiny)
    model = Model(recipe.model, texts=corpus(recipe)).eval()
    answer = model.chat([{"role": "user", "content": [picture(size), "What is it?"]}], tokens=2)
    assert isinstance(str(answer), str)
