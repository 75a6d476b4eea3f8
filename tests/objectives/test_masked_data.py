"""Masked data modelling: what is hidden, what may be seen, what is asked for and what is kept."""

import math

import pytest
import torch
from small import BESIDE, OBJECTIVES, raw
from torch.nn import functional

from chiasm import parts
from chiasm.data.corpus import corpus
from chiasm.errors import RecipeError
from chiasm.model import Model
from chiasm.objectives import Described, Setting
from chiasm.objectives.block_masks import block_masks
from chiasm.recipe import load_recipe
from chiasm.views import Size
from tiny_recipe import TINY

SIZE = Size(32, 32)


def made(**slots):
    recipe = raw("masked_data")
    recipe["model"] |= slots
    recipe = load_recipe(recipe)
    torch.manual_seed(0)
    return Model(recipe.model, texts=corpus(recipe))


@pytest.fixture
def model():
    made_now = made()
    made_now.train_only(["connector", "language"])
    return made_now


def build(model, **changes):
    torch.manual_seed(0)
    spec = {"type": "masked_data", **OBJECTIVES["masked_data"], **changes}
    return parts.build("objective", spec, Setting(model, SIZE, list))


def batch(n=7):
    texts = tuple(f"a cat at the top left and {i} dogs" for i in range(n))
    return Described(torch.rand(n, 3, 32, 32), texts, tuple((text,) for text in texts))


def test_as_many_terms_as_promised_and_a_gradient_for_all_that_learns(model):
    objective = build(model)
    losses = objective.losses(model, batch())
    assert {name: float(loss.count) for name, loss in losses.items()} == objective.terms(batch())
    sum(loss.mean for loss in losses.values()).backward()
    learning = [*objective.named_parameters(), *model.language.named_parameters()]
    for name, parameter in (*learning, *model.connector.named_parameters()):
        assert parameter.grad is not None, name
    assert all(parameter.grad is None for parameter in model.image_tokenizer.parameters())
    objective.after_step(model)
    assert {"spread", "rank", "codes"} == set(objective.health())


def test_pictures_that_are_told_apart_no_more_are_noticed(model):
    objective = build(model)
    objective.losses(model, batch())
    objective.after_step(model)
    assert objective.dull == 0
    torch.nn.init.zeros_(model.language.norm.image.weight)
    torch.nn.init.ones_(model.language.norm.image.bias)
    objective.losses(model, batch())
    objective.after_step(model)
    assert objective.dull == 1


@pytest.mark.parametrize(("grid", "count", "least"), [((14, 14), 78, 16), ((3, 3), 4, 2), ((4, 6), 5, 1)])
def test_all_pictures_have_as_many_masked_patches(grid, count, least):
    masks = block_masks(20, grid, count, least)
    assert masks.shape == (20, *grid)
    assert masks.flatten(1).sum(1).tolist() == [count] * 20
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) > 5


def test_masked_patches_lie_in_blocks():
    """A masked patch has far more masked neighbours than one that is masked on its own (40 %)."""
    masks = block_masks(50, (14, 14), 78, 16)
    beside = (masks[:, :, 1:] & masks[:, :, :-1]).sum() / masks[:, :, :-1].sum()
    assert beside > 0.75


def test_the_mask_is_drawn_from_torchs_random_numbers():
    torch.manual_seed(3)
    first = block_masks(4, (4, 4), 6, 2)
    assert not torch.equal(block_masks(4, (4, 4), 6, 2), first)
    torch.manual_seed(3)
    assert torch.equal(block_masks(4, (4, 4), 6, 2), first)


def test_nothing_tells_of_what_is_masked(model):
    """Other pixels in the masked patches, or other words behind the masks: the same hidden states."""
    objective = build(model)
    pixels, masks = torch.rand(2, 3, 32, 32), block_masks(2, (4, 4), 6, 2)
    wide = functional.interpolate(masks[:, None].float(), (32, 32)).bool()
    other = torch.where(wide, torch.rand_like(pixels), pixels)
    assert torch.equal(
        objective._embed_images(model, pixels, masks), objective._embed_images(model, other, masks)
    )
    torch.manual_seed(1)
    texts = objective.texts.hide(model.language, ["a cat and a dog"], paired=True)
    hidden = texts.embeddings[texts.masked]
    assert torch.equal(hidden, objective.texts.token.expand_as(hidden))


def test_words_and_patches_see_all_of_their_document_and_none_of_another(model):
    objective = build(model)
    x = torch.randn(2, 6, 16)
    real = torch.ones(2, 6, dtype=torch.bool)
    real[0, 5] = False
    before = objective._read(model, x, real, 3)
    for place in (0, 2, 4):
        changed = x.clone()
        changed[0, place] = torch.randn(16)
        differs = (objective._read(model, changed, real, 3) != before).any(2)
        assert differs[0, :5].all()
        assert not differs[1].any()
    padded = x.clone()
    padded[0, 5] = torch.randn(16)
    torch.testing.assert_close(objective._read(model, padded, real, 3)[0, :5], before[0, :5])


@pytest.mark.parametrize(("paired", "share"), [(False, 0.15), (True, 0.5)])
def test_the_share_of_words_is_masked_and_never_the_marks(model, paired, share):
    objective = build(model)
    text = "a cat at the top left and a dog at the bottom right"
    tokens = model.language.tokenizer.encode(text)
    texts = objective.texts.hide(model.language, [text, "sun"], paired=paired)
    assert texts.masked.sum(1).tolist()[0] == round(share * len(tokens))
    assert texts.masked[1].sum() >= 1
    assert not texts.masked[:, 0].any()
    assert not texts.masked[0, -1]
    assert not (texts.masked & ~texts.real).any()
    row = [model.language.tokenizer.begin, *tokens, model.language.tokenizer.end]
    expected = torch.tensor(row)[texts.masked[0]]
    assert texts.ids[: len(expected)].tolist() == expected.tolist()


def test_a_tokenizers_own_mask_stands_for_a_word(model):
    model.language.tokenizer.inner.add_special_tokens({"mask_token": "<|end|>"})
    objective = build(model)
    assert objective.texts.token is None
    texts = objective.texts.hide(model.language, ["a cat"], paired=True)
    own = model.language.embed(torch.tensor(model.language.tokenizer.inner.mask_token_id))
    assert torch.equal(texts.embeddings[texts.masked], own.expand(int(texts.masked.sum()), -1))


def test_untrained_it_guesses_and_codes_are_those_of_the_masked_patches(model):
    objective = build(model)
    torch.nn.init.zeros_(objective.out.weight)
    losses = objective.losses(model, batch(3))
    assert float(losses["patches"].mean.detach()) == pytest.approx(math.log(16), rel=1e-5)
    masks, pixels = block_masks(1, (4, 4), 6, 2), torch.rand(1, 3, 32, 32)
    expected = [
        int(code)
        for code, masked in zip(model.image_tokenizer.encode(pixels).flatten(), masks.flatten(), strict=True)
        if masked
    ]
    assert objective._targets(model, pixels, masks).tolist() == expected


def test_what_stands_for_a_patch_is_handed_to_the_connector(model):
    objective = build(model)
    with torch.no_grad():
        objective.mask_token.add_(1.0)
    grid, masked = torch.rand(1, 4, 4, 192), torch.ones(1, 4, 4)
    with_its_own = model.connector(grid, masked, objective.mask_token)
    assert not torch.equal(model.connector(grid, masked), with_its_own)
    objective.hand_over(model)
    assert torch.equal(model.connector(grid, masked), with_its_own)


def test_a_causal_language_model_and_an_encoder_learn_from_it_as_well():
    vit = {"type": "vit", "patch_size": 8, "width": 16, "depth": 1, "heads": 2, "size": 32}
    other = made(language=TINY["model"]["language"], encoder=vit)
    other.train_only(["encoder", "connector", "language"])
    losses = build(other).losses(other, batch())
    sum(loss.mean for loss in losses.values()).backward()
    assert all(parameter.grad is not None for parameter in other.encoder.parameters())


@pytest.mark.parametrize(
    ("slots", "changes", "said"),
    [
        ({"connector": {"type": "mlp"}}, {}, "puts them into the sequence, but the model has the connector 'mlp'"),
        ({"image_tokenizer": {**BESIDE["masked_data"]["image_tokenizer"], "downsample": 16}}, {},
         "a code for each of 4 x 4 patches, but image_tokenizer 'vq' makes 2 x 2"),
        ({}, {"patches": 0.01}, "patches 0.01 of 4 x 4 masks 0 of them"),
        ({}, {"words": 0.0}, "must be above 0 and at most 1"),
        ({}, {"context": 1000}, "context 1000 must be at least 3 and at most 254"),
    ],
)  # fmt: skip
def test_mistakes_are_told(slots, changes, said):
    with pytest.raises(RecipeError, match=said):
        build(made(**slots), **changes)


def test_a_model_without_codes_and_a_batch_without_all_three_are_refused(model):
    with pytest.raises(RecipeError, match="3 rows or more"):
        build(model).losses(model, batch(2))
    model.image_tokenizer = None
    with pytest.raises(
        RecipeError, match="give the model an image_tokenizer, and train it in an earlier stage"
    ):
        build(model)


def test_an_image_tokenizer_without_a_head_needs_an_objective():
    recipe = raw("masked_data")
    load_recipe(recipe)
    recipe["stages"][0] |= {"objective": None, "train": {"language": 1e-3}}
    with pytest.raises(RecipeError, match=r"model lacks heads\.image"):
        load_recipe(recipe)
