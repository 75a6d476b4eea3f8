"""A stage that trains the image decoder: better images of the same codes."""

import pytest
import torch
from rich.console import Console
from test_tokenizer_alone import raw

import chiasm
from chiasm.distribution.processes import Ranks
from chiasm.errors import RecipeError
from chiasm.parts import build
from chiasm.recipe import load_recipe
from chiasm.recipe.checkpoints import read_parts, training_checkpoints
from chiasm.storage.cache import default_folder
from chiasm.tokenizers.vae import EXAMPLE_VAE
from chiasm.training import loop, train
from chiasm.training.loop import Training
from chiasm.training.optimiser import build_optimiser, table
from chiasm.training.prepare_images import _images
from chiasm.training.train import build_model
from chiasm.training.usable import stage_batches

QUIET = Console(quiet=True)


def recipe():
    codes = raw()["stages"][0]
    pixels = {**codes, "name": "pixels", "train": {"image_decoder": 1e-2}}
    return load_recipe(raw(stages=[codes, pixels]))


def decodes(name):
    return name.startswith("image_tokenizer.decoder.")


def test_the_decoder_learns_and_all_that_makes_codes_stays_as_it_was(tmp_path):
    codes = train(load_recipe(raw()), tmp_path / "codes", console=QUIET)
    both = train(recipe(), tmp_path / "both", console=QUIET)
    old, new = (chiasm.load(folder).state_dict() for folder in (codes, both))
    assert {name for name in old if not torch.equal(old[name], new[name])} == {
        name for name in old if decodes(name)
    }


def test_what_learns_of_it_is_said():
    whole = recipe()
    model, stage = build_model(whole), whole.stages[1]
    model.train_only(stage.train)
    learns = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learns == {name for name, _ in model.named_parameters() if decodes(name)}
    groups = build_optimiser(model, stage).param_groups
    assert {p for group in groups for p in group["params"]} == set(model.image_tokenizer.decoder.parameters())
    rows = {row.slot: row for row in table(model, stage)}
    assert rows["image_decoder"].trained == sum(p.numel() for p in model.image_tokenizer.decoder.parameters())
    assert rows["image_decoder"].rate == 1e-2
    assert rows["image_decoder"].parameters == rows["image_decoder"].trained
    assert rows["image_tokenizer"].trained == 0
    modes = {name: module.training for name, module in model.image_tokenizer.named_children()}
    assert (modes["decoder"], modes["encoder"], modes["quantizer"]) == (True, False, False)


def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path, monkeypatch):
    whole = train(recipe(), tmp_path / "whole", console=QUIET)
    step = Training._step

    def stopping(self, *args):
        if (self.position.stage, self.position.step) == (1, 3):
            raise RuntimeError("killed")
        step(self, *args)

    monkeypatch.setattr(Training, "_step", stopping)
    with pytest.raises(RuntimeError):
        train(recipe(), tmp_path / "killed", console=QUIET)
    monkeypatch.setattr(Training, "_step", step)
    killed = train(recipe(), tmp_path / "killed", console=QUIET)
    one, other = (chiasm.load(each).state_dict() for each in (whole, killed))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    last = training_checkpoints(killed)[-1]
    assert "image_tokenizer" not in read_parts(last).get("frozen", {})  # a part of it has learnt


def diffusion(**source):
    """A decoder that diffuses in a frozen autoencoder's latents, conditioned on half as large images."""
    return load_recipe(
        raw(
            model={
                "image_tokenizer": {"type": "pixels", "size": 8, "patch_size": 4},
                "image_decoder": {
                    "type": "diffusion",
                    "size": 16,
                    "autoencoder": {"type": "vae", "size": 16, "config": EXAMPLE_VAE},
                    "denoiser": {"type": "dit", "width": 32, "depth": 1, "heads": 2, "patch_size": 1},
                    "conditioner": {"type": "linear"},
                    "scheduler": {"type": "flow"},
                },
            },
            stages=[{**raw()["stages"][0], "train": {"image_decoder": 1e-2}, "accumulate": 2}],
            data={"squares": {"type": "test_squares", **source}},
        )
    )


def test_what_stays_of_its_images_is_computed_once_and_gives_the_same_bit_for_bit(tmp_path, monkeypatch):
    folders = [train(diffusion(), tmp_path / "cached", console=QUIET, device="cpu")]
    caches = {kind: sum(1 for _ in (default_folder() / kind).iterdir()) for kind in ("codes", "latents")}
    assert caches == {"codes": 1, "latents": 1}
    monkeypatch.setattr(loop, "prepared_images", lambda *_, **__: None)
    folders.append(train(diffusion(), tmp_path / "without", console=QUIET, device="cpu"))
    weights = [(folder / "final" / "model.safetensors").read_bytes() for folder in folders]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(("groups", "batches"), [(5, 3), (400, 12)], ids=["all of its data", "a part of it"])
def test_only_images_that_the_stage_gets_to_are_computed(groups, batches):
    whole = diffusion(groups=groups)
    sources = {name: build("data", spec) for name, spec in whole.data.items()}
    stage, model = whole.stages[0], build_model(whole)
    packed, again = (stage_batches(model, sources, stage, 0, Ranks()) for _ in range(2))
    expected = {image.key for _ in range(batches) for image in again.pack()}
    assert set(_images(packed, sources, stage, Ranks())) == expected


def test_it_is_trained_in_a_stage_of_its_own():
    stages = [{**raw()["stages"][0], "train": {"image_tokenizer": 1e-3, "image_decoder": 1e-3}}]
    with pytest.raises(
        RecipeError, match=r"trains the image \w+ beside image_\w+; give it a stage of its own"
    ):
        load_recipe(raw(stages=stages))
