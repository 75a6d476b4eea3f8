"""Frozen parts are asked once: what is computed, what is found, and that only what is seen is computed."""

import pytest
import torch
from rich.console import Console
from toy import Squares, toy

from chiasm.data.documents import PictureReader
from chiasm.training.batches import DocumentBatches
from chiasm.training.distribution import Ranks
from chiasm.training.prepare import feature_cache, prepared, stage_pictures
from chiasm.training.train import build_model

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def built():
    return build_model(toy())


def reader(model, stage, groups=40):
    return prepared(
        model, {"squares": Squares(groups=groups)}, stage, seed=0, ranks=Ranks(), half=False, console=QUIET
    )


def test_cached_batches_give_the_losses_of_pixels(built):
    stage = toy().stages[1]
    built.train_only(stage.train)
    losses = []
    for each in (reader(built, stage), PictureReader(built.contract)):
        batches = DocumentBatches(built.contract, {"squares": Squares()}, stage, seed=0, reader=each)
        made = built.losses(batches.next())
        losses.append({name: float(loss.mean.detach()) for name, loss in made.items()})
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_stage_that_trains_the_encoder_reads_pixels(built):
    stage = toy("stages.learn.train.encoder=1e-3").stages[1]
    made = reader(built, stage)
    assert made.features is None
    assert made.codes is not None


def test_other_weights_have_another_cache(built):
    before = feature_cache(built, False).folder
    assert feature_cache(built, True).folder != before
    with torch.no_grad():
        weight = next(built.encoder.parameters())
        kept = weight.clone()
        weight.view(-1)[0] += 1e-3
        assert feature_cache(built, False).folder != before
        weight.copy_(kept)
    assert feature_cache(built, False).folder == before


def test_only_what_the_stage_will_see_is_computed(built):
    stage = toy("stages.learn.steps=6").stages[1]
    source = Squares(groups=10_000)
    batches = [DocumentBatches(built.contract, {"squares": source}, stage, seed=0) for _ in range(2)]
    pictures, shared = stage_pictures(batches[0], {"squares": source}, stage, Ranks())
    seen = {slot.picture.key for _ in range(6) for _, slot in batches[1].pack()[1]}
    assert not shared
    assert set(pictures.written) | {key.split("/")[0] for key in pictures.read} == seen
