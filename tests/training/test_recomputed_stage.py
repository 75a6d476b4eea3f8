"""A stage with `recompute: true` ends with the weights that it ends with without."""

import io
import json
from copy import deepcopy

import pytest
from rich.console import Console

from chiasm.errors import RecipeError
from chiasm.recipe import load_recipe
from chiasm.training import train
from tiny_recipe import TINY


def test_it_trains_to_the_same_weights_bit_for_bit_and_says_what_it_does(tmp_path):
    said, weights = io.StringIO(), []
    for recompute in (False, True):
        raw = deepcopy(TINY)
        raw["stages"] = [stage | {"steps": 2, "recompute": recompute} for stage in raw["stages"]]
        folder = tmp_path / str(recompute)
        train(load_recipe(raw), folder, console=Console(file=said, width=200), device="cpu")
        weights.append((folder / "final" / "model.safetensors").read_bytes())
        assert [json.loads(line)["skipped"] for line in (folder / "metrics.jsonl").open()] == [False] * 4
    assert weights[0] == weights[1]
    assert said.getvalue().count("layers are computed again in the backward pass") == 2


def test_without_layers_it_is_an_error_that_names_the_stage(tmp_path):
    tokenizer = {"type": "pixels", "size": 16, "patch_size": 8}
    raw = deepcopy(TINY)
    decoder = {"type": "diffusion", "size": 16, "denoiser": {"type": "dit", "width": 32, "depth": 1, "heads": 2},
               "conditioner": {"type": "linear"}, "scheduler": {"type": "flow"}, "steps": 2}  # fmt: skip
    raw["model"] = {"image_tokenizer": tokenizer, "image_decoder": decoder}
    raw["stages"] = [{"name": "paint", "train": {"image_decoder": 1e-3}, "data": {"world": 1.0}, "steps": 1,
                      "rows": 2, "recompute": True}]  # fmt: skip
    with pytest.raises(
        RecipeError, match="stage 'paint' has recompute: true, but the model has no stack of layers"
    ):
        train(load_recipe(raw), tmp_path / "run", console=Console(quiet=True), device="cpu")
