"""Reading through a tower: what is predicted from what, and which tower learns by it."""

import pytest
import torch
from small import VIT, raw

from chiasm import parts
from chiasm.errors import RecipeError
from chiasm.model import Model
from chiasm.objectives import Described, Setting
from chiasm.objectives.reading import Reading
from chiasm.recipe import load_recipe
from chiasm.sequence.layout import Layout
from chiasm.views import Size

TEXTS = ("a cat", "two dogs at the top left", "sun")


@pytest.fixture(scope="module")
def model():
    recipe = raw("contrastive")
    recipe["model"]["encoder"] = {"type": "hybrid", "encoders": [VIT, VIT], "sizes": [None, None]}
    return Model(load_recipe(recipe).model, texts=TEXTS)


def reading(model, **options):
    options = {**Reading.example(), "tower": 1, **options}
    setting = Setting(model, Size(32, 32), list)
    return parts.build("objective", {"type": "reading", **options}, setting).eval()


def batch(texts=TEXTS):
    torch.manual_seed(0)
    return Described(torch.rand(len(texts), 3, 32, 32), texts, (("cat",),) * len(texts))


def test_the_text_is_predicted_word_by_word_behind_the_image(model):
    """By hand for one text: begin, image, words; each position from the image's last on predicts the next word."""
    objective, one = reading(model), batch(("a cat",))
    language, words = objective.language, objective.language.tokenizer
    ids = [*words.encode_plain("a cat"), words.end]
    visual = objective.connector(model.encoder.encoders[1](one.pixels).flatten(1, 2))
    begin, text = (language.embed(torch.tensor([each])) for each in ([words.begin], ids[:-1]))
    row = torch.cat([begin, visual, text], 1)
    hidden = language(row, Layout.causal(1, row.shape[1]))
    logits = language.logits(hidden[0, visual.shape[1] :])
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(ids))
    torch.testing.assert_close(objective.losses(model, one)["reading"].mean, expected, atol=1e-5, rtol=1e-5)


def test_a_text_beside_longer_ones_counts_as_it_does_alone(model):
    objective, together = reading(model), batch()
    alone = [
        objective.losses(
            model, Described(together.pixels[i : i + 1], TEXTS[i : i + 1], together.labels[i : i + 1])
        )
        for i in range(3)
    ]
    loss = objective.losses(model, together)["reading"]
    torch.testing.assert_close(loss.sum, sum(each["reading"].sum for each in alone))
    assert float(loss.count) == objective.terms(together)["reading"]


def test_one_tower_learns_and_the_other_stays(model):
    model.train_only(["encoder"])
    reading(model).losses(model, batch())["reading"].mean.backward()
    first, second = model.encoder.encoders
    assert all(parameter.grad is None for parameter in first.parameters())
    assert all(parameter.grad is not None for parameter in second.parameters())


def test_texts_beyond_the_context_are_counted(model):
    objective = reading(model, context=6)
    objective.losses(model, batch())
    assert objective.cut_texts == sum(
        len(objective.language.tokenizer.encode_plain(text)) > 5 for text in TEXTS
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [({"tower": 2}, "tower 2 of an encoder 'hybrid'"), ({"context": 49}, "context is 64")],
)
def test_what_does_not_fit_is_refused(model, options, words):
    with pytest.raises(RecipeError, match=words):
        reading(model, **options)
