"""Latents of a frozen autoencoder, in which the decoder of a head's conditions works, are computed once."""

import copy
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from toy import raw

from chiasm.data.picture_reader import PictureReader
from chiasm.distribution.processes import Ranks
from chiasm.errors import ChiasmError
from chiasm.parts import build
from chiasm.recipe import load_recipe
from chiasm.storage.cache import default_folder
from chiasm.tokenizers.vae import EXAMPLE_VAE
from chiasm.training import loop, train
from chiasm.training.batches import DocumentBatches
from chiasm.training.prepare import code_cache, prepared
from chiasm.training.train import build_model
from tiny_recipe import TINY

QUIET = Console(quiet=True)
DECODER = {
    "type": "diffusion",
    "size": 16,
    "autoencoder": {"type": "vae", "size": 16, "config": EXAMPLE_VAE | {"shift_factor": 0.1}},
    "denoiser": {"type": "dit", "width": 32, "depth": 1, "heads": 2, "patch_size": 1},
    "conditioner": {"type": "vectors"},
    "scheduler": {"type": "flow"},
    "steps": 2,
}
QUERIES = {"type": "queries", "grid": [1, 4], "alphabet": {"type": "condition"}}
CAPTION = {"type": "caption", "alphabet": {"type": "words"}}
WORDS = {"type": "words", "length": 12, "width": 16, "depth": 1, "heads": 2}


def recipe(tasks=("captioned",), head=QUERIES, **decoder):
    """A model that has an encoder, whose features are cached too, only where it changes images."""
    changed = copy.deepcopy(raw())
    if not decoder.get("edits"):
        for slot in ("views", "encoder", "connector"):
            del changed["model"][slot]
    del changed["model"]["image_tokenizer"]
    changed["model"] |= {"heads": {"image": head}, "image_decoder": DECODER | decoder}
    world = {"drawn_canvas": 16, "scenes": 12, "tasks": dict.fromkeys(tasks, 1)}
    changed["data"] = {"squares": TINY["data"]["world"] | world}
    train = {"language": 2e-3, "heads.image": 2e-3, "image_decoder": 2e-3}
    changed["stages"] = [changed["stages"][1] | {"train": train, "steps": 4, "rows": 1, "accumulate": 2}]
    return load_recipe(changed)


def batches(made, cached=True):
    stage, model = made.stages[0], build_model(made)
    model.train_only(stage.train)
    sources = {name: build("data", spec) for name, spec in made.data.items()}
    reader = PictureReader(model.contract)
    if cached:
        reader = prepared(model, sources, stage, seed=0, ranks=Ranks(), bf16=False, console=QUIET)
    return model, DocumentBatches(model.contract, sources, stage, seed=0, reader=reader)


@pytest.mark.parametrize(
    ("head", "conditioner"), [(QUERIES, {"type": "vectors"}), (CAPTION, WORDS)], ids=["queries", "caption"]
)
def test_training_from_the_cache_ends_bit_for_bit_as_without(head, conditioner, tmp_path, monkeypatch):
    made = recipe(head=head, conditioner=conditioner)
    cached = train(made, tmp_path / "cached", console=QUIET, device="cpu")
    assert list((default_folder() / "latents").iterdir())
    monkeypatch.setattr(loop, "prepared", lambda model, *_, **__: PictureReader(model.contract))
    without = train(made, tmp_path / "without", console=QUIET, device="cpu")
    weights = [(folder / "final" / "model.safetensors").read_bytes() for folder in (cached, without)]
    assert weights[0] == weights[1]


def test_the_source_of_a_change_is_cached_too():
    made = recipe(["instructed"], edits=True)
    written = []
    for cached in (True, False):
        model, each = batches(made, cached)
        batch = each.next()
        written.append(batch.written.image)
    vectors, pixels = written
    assert (vectors.encoded, pixels.encoded) == (True, False)
    autoencoder = model.image_decoder.autoencoder.eval()
    for own, image in ((vectors.targets, pixels.targets), (vectors.sources, pixels.sources)):
        torch.testing.assert_close(own, autoencoder.encode(image))
    losses = []
    for image in written:
        torch.manual_seed(0)
        batch.written.image = image
        losses.append(model.losses(batch)["diffusion"].sum)
    torch.testing.assert_close(*losses)


def test_other_weights_and_other_options_have_a_cache_of_their_own():
    made = recipe()
    config = EXAMPLE_VAE | {"scaling_factor": 0.5}
    other = recipe(autoencoder=DECODER["autoencoder"] | {"config": config})
    models = [build_model(each) for each in (made, other)]
    models[1].load_state_dict(models[0].state_dict())
    folders = [code_cache(model).folder for model in models]
    with torch.no_grad():
        next(models[0].image_decoder.autoencoder.parameters()).add_(1e-3)
    folders.append(code_cache(models[0]).folder)
    with torch.no_grad():
        next(models[0].language.parameters()).add_(1.0)  # which makes no latents
    assert code_cache(models[0]).folder == folders[-1]
    assert len(set(folders)) == 3
    assert {folder.parent.name for folder in folders} == {"latents"}


def test_what_is_neither_pixels_nor_latents_of_its_own_is_an_error():
    model, each = batches(recipe(), cached=False)
    batch = each.next()
    count = len(batch.written.image.targets)
    batch.written.image = replace(batch.written.image, targets=torch.zeros(count, 2, 2, 5))
    with pytest.raises(ChiasmError, match=r"takes images of three channels, .* not \(\d+, 2, 2, 5\)"):
        model.losses(batch)
