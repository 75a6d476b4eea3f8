"""Image heads of one piece, as they were before orders and alphabets: converted with their options and weights."""

from copy import deepcopy

import pytest
import torch

from chiasm import parts
from chiasm.errors import OutdatedError
from chiasm.model import Model
from chiasm.recipe import load_recipe
from chiasm.recipe.forms import renamed, renewed, slot_today
from tiny_recipe import TINY

NETWORKS = {"depth": 1, "heads": 4, "hidden": 48}
# The older spec, today's order and alphabet, and the names that its weights had.
OLDER = {
    "next_token": (
        {"unconditional": 0.2},
        {"type": "raster", "unconditional": 0.2},
        {"type": "own"},
        ["codes.weight", "cells.weight", "output.weight"],
    ),
    "next_token_mlp": (
        {"hidden": 16, "depth": 1},
        {"type": "raster", "cells": False},
        {"type": "mlp", "hidden": 16, "depth": 1},
        ["codes.weight", "adapter.0.weight", "adapter.0.bias"]
        + [f"output.{i}.{name}" for i in (0, 2) for name in ("weight", "bias")],
    ),
    "llamagen": (
        {"guided_codes": 3},
        {"type": "raster", "cells": False, "guided_codes": 3},
        {"type": "own", "deviation": 0.0},
        ["codes.weight", "output.weight"],
    ),
    "factorised": (
        {"bits": [1, 3], "top_ks": [0, 5], **NETWORKS},
        {"type": "raster", "cells": False},
        {"type": "factorised", "bits": [1, 3], "top_ks": [0, 5], **NETWORKS},
        [f"{kind}.{i}.weight" for kind in ("tables", "outputs") for i in (0, 1)]
        + ["norm.weight", "layers.0.query.weight"],
    ),
    "shared_next_token": (
        {"first": 3, "counted_as": "text"},
        {"type": "raster", "cells": False},
        {"type": "shared", "first": 3, "counted_as": "text"},
        [],
    ),
    "masked": (
        {"steps": 5},
        {"type": "masked", "steps": 5},
        {"type": "own"},
        ["codes.weight", "cells.weight", "output.weight"],
    ),
    "shared_masked": (
        {"first": 3, "before": [1, 2], "before_read": None, "behind": None, "against": "codes"},
        {"type": "masked", "cells": False, "steps": 18, "before": [1, 2], "before_read": [], "behind": []},
        {"type": "shared", "first": 3, "against": "codes"},
        [],
    ),
    "variable_next_token": (
        {"first": 3, "end": 2, "stray": [1], "shortest": 4},
        {"type": "variable", "shortest": 4},
        {"type": "shared", "first": 3, "end": 2, "stray": [1]},
        [],
    ),
    "next_scale": (
        {"ramp": False},
        {"type": "scales", "ramp": False},
        {"type": "own", "bias": True, "deviation": 3.6e-4},
        ["read.weight", "read.bias", "levels.weight", "cells.weight", "output.weight", "output.bias"],
    ),
}


@pytest.fixture(params=OLDER)
def older(request):
    """The recipe as it was, and what of it is known today."""
    spec, order, alphabet, names = OLDER[request.param]
    raw = deepcopy(TINY)
    del raw["model"]["heads"]
    raw["model"] |= parts.lookup("order", order["type"]).example_neighbours()
    raw["model"]["image_head"] = {"type": request.param, **spec}
    for stage in raw["stages"]:
        stage["train"] = {
            key.replace("heads.image", "image_head"): rate for key, rate in stage["train"].items()
        }
    return raw, {**order, "alphabet": alphabet}, names


def test_it_is_refused_by_the_command_that_converts_it(older):
    with pytest.raises(OutdatedError, match=r"of an older form .*: chiasm upgrade FILE"):
        load_recipe(older[0])


def test_it_has_its_options_in_an_order_and_an_alphabet(older):
    raw, today, _ = older
    recipe, changes = renewed(raw)
    assert recipe["model"]["heads"] == {"image": today}
    assert "image_head" not in recipe["model"]
    assert "train.image_head -> train.heads.image" in changes
    assert load_recipe(recipe).stages[1].train["heads.image"] == TINY["stages"][1]["train"]["heads.image"]
    assert renewed(recipe) == (recipe, [])


def test_its_weights_have_todays_names(older):
    raw, _, names = older
    with torch.device("meta"):
        model = Model(load_recipe(renewed(raw)[0]).model, texts=["a red apple"])
    today = renamed(raw["model"])
    assert {today(f"image_head.{name}") for name in names} <= {name for name, _ in model.named_parameters()}
    assert today("language.head.weight") == "language.head.weight"
    if "factorised" not in raw["model"]["image_head"]["type"]:
        assert len(names) == len(list(model.image_head.parameters()))


def test_an_overlay_that_names_no_type_is_converted_too():
    raw = {
        "model": {"image_head": {"type": "next_token_mlp", "hidden": 64}},
        "tiny": {"model": {"image_head": {"hidden": 16, "unconditional": 0.0}}},
    }
    recipe, changes = renewed(raw)
    assert recipe["tiny"]["model"] == {"heads": {"image": {"alphabet": {"hidden": 16}, "unconditional": 0.0}}}
    assert "tiny.model.image_head: hidden -> alphabet.hidden" in changes
    # One laid over a recipe that is of today's form already.
    over = {"model": {"image_head": {"hidden": 32}}}
    assert renewed(over, recipe)[0] == {"model": {"heads": {"image": {"alphabet": {"hidden": 32}}}}}
    assert slot_today("image_head") == "heads.image"


@pytest.mark.parametrize("kind", ["lavit_diffusion", "lavit_diffusion_sd15"])
def test_the_networks_of_lavits_decoders_have_other_names(kind):
    rename = renamed({"image_decoder": {"type": kind}})
    assert rename("image_decoder.diffusion.unet.conv_in.weight") == (
        "image_decoder.denoising.denoiser.inner.conv_in.weight"
    )
    assert rename("image_decoder.diffusion.vae.a") == "image_decoder.denoising.autoencoder.inner.a"
    assert rename("image_decoder.denoising.denoiser.inner.a") == "image_decoder.denoising.denoiser.inner.a"
    assert renamed({"image_decoder": {"type": "tokenizer"}})("image_decoder.diffusion.unet.a") == (
        "image_decoder.diffusion.unet.a"
    )
