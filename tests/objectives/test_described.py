"""The pictures with words that an objective is shown."""

import pytest
import torch
from small import raw

from chiasm import parts
from chiasm.data.corpus import corpus
from chiasm.errors import DataError
from chiasm.model import Model
from chiasm.recipe import load_recipe
from chiasm.training.batches import DescribedBatches, descriptions


def batches(**changes):
    recipe = raw("contrastive")
    recipe["model"] |= changes
    recipe["data"]["world"] |= {"tasks": {"name": 1, "caption": 1, "draw": 1, "words": 1}}
    recipe = load_recipe(recipe)
    model = Model(recipe.model, texts=corpus(recipe))
    sources = {"world": parts.build("data", recipe.data["world"])}
    return DescribedBatches(model.contract, sources, recipe.stages[0], seed=0), sources["world"]


def test_only_what_shows_a_picture_and_then_says_something_is_taken():
    _, world = batches()
    found = descriptions(world[0])
    assert len(found) == 2  # the name and the caption; neither what is drawn nor what has no picture
    assert len(found[0].labels) == 1
    assert all(name in found[1].text for name in found[1].labels)


def test_a_batch_is_what_the_encoder_sees_and_can_be_found_again():
    made, _ = batches()
    made.next()
    state = made.state()
    batch = made.next()
    assert batch.pixels.shape == (6, 3, 32, 32)
    assert len(batch) == len(batch.texts) == len(batch.labels) == 6
    made.restore(state)
    again = made.next()
    assert torch.equal(again.pixels, batch.pixels)
    assert again.texts == batch.texts


def test_all_labels_of_the_data_are_found():
    made, world = batches()
    assert set(made.labels()) <= {emoji.english for emoji in world.emoji}
    assert made.labels() == sorted(set(made.labels()))


def test_views_of_several_sizes_are_refused():
    made, world = batches()
    picture = descriptions(world[0])[0].picture
    made.size = type(made.size)(64, 64)
    with pytest.raises(DataError, match="an objective needs views of one size"):
        made._view(picture)
