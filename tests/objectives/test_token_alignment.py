"""Visual tokens that learn to lie near the words for what they show."""

import pytest
import torch
from small import raw
from torch.nn import functional

from chiasm import parts
from chiasm.data.corpus import corpus
from chiasm.errors import RecipeError
from chiasm.model import Model
from chiasm.objectives import Described, Setting
from chiasm.objectives.token_alignment import told_apart
from chiasm.recipe import load_recipe
from chiasm.views import Size

NAMES = ["cat", "dog", "sun"]


def model_with(**connector):
    spec = raw("token_alignment")
    spec["model"]["encoder"] = {"type": "patches", "patch_size": 8}
    spec["model"]["connector"] = connector
    recipe = load_recipe(spec)
    return Model(recipe.model, texts=corpus(recipe))


@pytest.fixture(scope="module")
def model():
    return model_with(type="mlp")


def aligned(model, names=NAMES, **options):
    setting = Setting(model, Size(32, 32), lambda: names)
    return parts.build("objective", {"type": "token_alignment", **options}, setting)


def test_each_name_is_told_from_those_that_are_not_there_by_its_likest_tokens(model):
    objective = aligned(model, temperature=0.5)
    batch = Described(torch.rand(2, 3, 32, 32), ("cat, sun", "dog"), (("cat", "sun"), ("dog",)))
    loss = objective.losses(model, batch)["alignment"]
    embedded = [
        model.language.embed(torch.tensor(model.language.tokenizer.encode_plain(f" {name}"))).mean(0)
        for name in NAMES
    ]
    tokens = model.connector(model.encode(batch.pixels))
    cosines = functional.cosine_similarity(tokens[:, :, None], torch.stack(embedded), dim=-1)
    cat, dog, sun = (torch.logsumexp(cosines[..., i] / 0.5, 1) for i in range(3))

    def of(right, *wrong):
        return functional.cross_entropy(torch.stack([right, *wrong])[None], torch.tensor([0]))

    expected = of(cat[0], dog[0]) + of(sun[0], dog[0]) + of(dog[1], cat[1], sun[1])
    torch.testing.assert_close(loss.sum, expected, rtol=1e-4, atol=1e-5)
    assert float(loss.count) == objective.terms(batch)["alignment"] == 3


def test_an_image_with_every_name_teaches_nothing_and_breaks_nothing():
    logits = torch.randn(1, 3, requires_grad=True)
    told_apart(logits, torch.ones(1, 3, dtype=torch.bool)).sum().backward()
    assert torch.equal(logits.grad, torch.zeros(1, 3))


def test_words_stay_as_they_are_and_tokens_come_to_lie_near_their_own():
    """Three colours, each at another place of every image, which nothing tells."""
    torch.manual_seed(0)
    model = model_with(type="mlp")
    model.train_only(["connector"])
    words = model.language.inner.get_input_embeddings().weight.clone()
    objective = aligned(model)
    optimiser = torch.optim.AdamW(model.connector.parameters(), lr=3e-3)
    colours = torch.eye(3)

    def images(n):
        shown = torch.rand(n, 4).argsort(1)[:, :2]  # of 4 cells, those with the two things
        what = torch.rand(n, 3).argsort(1)[:, :2]
        pixels = torch.full((n, 3, 32, 32), 0.5)
        for i in range(n):
            for cell, name in zip(shown[i].tolist(), what[i].tolist(), strict=True):
                y, x = 16 * (cell // 2), 16 * (cell % 2)
                pixels[i, :, y : y + 16, x : x + 16] = colours[name][:, None, None]
        labels = tuple(tuple(NAMES[name] for name in row) for row in what.tolist())
        return Described(pixels, tuple(map(", ".join, labels)), labels), shown, what

    for _ in range(120):
        loss = objective.losses(model, images(16)[0])["alignment"].mean
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    batch, shown, what = images(40)
    tokens = functional.normalize(model.connector(model.encode(batch.pixels)), dim=-1)
    likest = (tokens @ objective.words.T).argmax(-1).view(40, 4, 4)  # names, by patches of 8 pixels
    right = [
        likest[i, 2 * (cell // 2), 2 * (cell % 2)].item() == name
        for i in range(40)
        for cell, name in zip(shown[i].tolist(), what[i].tolist(), strict=True)
    ]
    assert sum(right) > 0.9 * len(right)
    assert torch.equal(model.language.inner.get_input_embeddings().weight, words)


def test_a_name_of_several_tokens_has_their_mean_and_chinese_stands_without_a_space(model):
    objective = aligned(model, ["top left", "猫", "café"])
    for row, text in zip(objective.words, (" top left", "猫", " café"), strict=True):
        ids = model.language.tokenizer.encode_plain(text)
        assert len(ids) > 1
        mean = model.language.embed(torch.tensor(ids)).mean(0)
        torch.testing.assert_close(row, functional.normalize(mean, dim=0))


def test_data_without_labels_and_connectors_that_are_told_places_are_refused(model, monkeypatch):
    with pytest.raises(RecipeError, match="'token_alignment' needs labels, but the data names 1"):
        aligned(model, ["one"])
    with pytest.raises(RecipeError, match="needs names, but a label of the data is empty"):
        aligned(model, ["", "cat"])
    monkeypatch.setattr(model.connector, "cells", 4)
    with pytest.raises(RecipeError, match="has 'mlp', which is told the places of views"):
        aligned(model)
