"""What each objective computes, against expectations made by hand."""

import math
from dataclasses import replace

import pytest
import torch
from small import BESIDE, OBJECTIVES, raw
from torch.nn import functional

from chiasm import parts
from chiasm.data.corpus import corpus
from chiasm.errors import RecipeError
from chiasm.model import Model
from chiasm.objectives import Described, Setting
from chiasm.recipe import load_recipe
from chiasm.training.optimiser import learning
from chiasm.views import Size


@pytest.fixture(scope="module")
def model():
    recipe = load_recipe(raw("contrastive"))
    return Model(recipe.model, texts=corpus(recipe))


def build(model, name, **changes):
    setting = Setting(model, Size(32, 32), lambda: ["cat", "dog", "sun"])
    return parts.build("objective", {"type": name, **OBJECTIVES[name], **changes}, setting)


def batch(n=4):
    labels = (("cat",), ("dog", "sun"), ("sun",), ("cat",))[:n]
    return Described(
        torch.rand(n, 3, 32, 32), tuple(f"a {names[0]} {i}" for i, names in enumerate(labels)), labels
    )


@pytest.mark.parametrize("name", sorted(OBJECTIVES.keys() - BESIDE.keys()))
def test_as_many_terms_as_promised_and_a_gradient_for_all_that_learns(model, name):
    model.train_only(["encoder"])
    objective = build(model, name)
    objective.done = 0.5
    losses = objective.losses(model, batch())
    assert {key: float(loss.count) for key, loss in losses.items()} == objective.terms(batch())
    sum(loss.mean for loss in losses.values()).backward()
    for key, parameter in (*objective.named_parameters(), *model.encoder.named_parameters()):
        assert (parameter.grad is not None) == parameter.requires_grad, key
    objective.after_step(model)
    assert {"spread", "rank"} <= set(objective.health())


@pytest.mark.parametrize("name", sorted(OBJECTIVES.keys() - BESIDE.keys()))
def test_an_objective_says_whether_it_has_weights(model, name):
    assert parts.lookup("objective", name).learns == bool(learning(build(model, name)))


def test_contrastive_is_clips_symmetric_cross_entropy(model):
    objective = build(model, "contrastive")
    cosines = torch.rand(5, 5)
    logits, own = cosines / 0.07, torch.arange(5)
    expected = (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2
    torch.testing.assert_close(objective.terms_of(cosines, cosines.T, own).mean(), expected)


def test_the_temperature_is_clipped_at_100(model):
    objective = build(model, "contrastive")
    objective.scale.data.fill_(10.0)
    objective.after_step(model)
    assert float(objective.scale.detach()) == pytest.approx(math.log(100))


def test_sigmoid_asks_of_every_pair(model):
    objective = build(model, "sigmoid")
    cosines = torch.rand(3, 3)
    expected = 0.0
    for i in range(3):
        for j in range(3):
            logit = 10 * float(cosines[i, j]) - 10
            expected += math.log1p(math.exp(-logit if i == j else logit)) / 3
    assert float(objective.terms_of(cosines, cosines.T, torch.arange(3)).detach().mean()) == pytest.approx(
        expected, rel=1e-5
    )


def test_a_text_is_read_up_to_its_end_only(model):
    tower = build(model, "contrastive").text
    alone = tower(["a cat"])
    beside = tower(["a cat", "a dog at the top left, a sun at the bottom right"])
    torch.testing.assert_close(alone[0], beside[0])


def test_the_encoder_never_sees_what_is_masked(model):
    encoder = model.encoder
    pixels = torch.rand(2, 3, 32, 32)
    keep = torch.tensor([[0, 5, 9, 15], [3, 1, 2, 14]])
    changed = torch.rand_like(pixels)
    for row, places in enumerate(keep.tolist()):
        for place in places:
            y, x = divmod(place, 4)
            window = (row, slice(None), slice(8 * y, 8 * y + 8), slice(8 * x, 8 * x + 8))
            changed[window] = pixels[window]
    torch.testing.assert_close(encoder.visible(pixels, keep), encoder.visible(changed, keep))
    everything = torch.arange(16).expand(2, -1)
    torch.testing.assert_close(encoder.visible(pixels, everything), encoder(pixels).flatten(1, 2))


@pytest.mark.parametrize("options", [{"rotary": 4}, {"rotary": 4, "class_token": "first"}, {}])
def test_evas_patches_can_be_left_out_and_tokens_added(options):
    shape = {"size": 32, "patch_size": 8, "width": 16, "depth": 2, "heads": 2, "hidden": 24}
    encoder = parts.build("encoder", {"type": "eva", **shape, **options})
    pixels = torch.rand(2, 3, 32, 32)
    whole = encoder(pixels)
    everything = torch.arange(16).expand(2, -1)
    torch.testing.assert_close(encoder.visible(pixels, everything), whole.flatten(1, 2)[:, -16:])
    turned = everything.flip(1)
    torch.testing.assert_close(encoder.visible(pixels, turned).flip(1), whole.flatten(1, 2)[:, -16:])
    tokens, features = encoder.with_tokens(pixels, torch.randn(2, 16))
    assert tokens.shape == (2, 2, 16)
    assert features.shape == whole.shape


def test_an_encoder_that_sees_all_is_shown_grey():
    encoder = parts.build("encoder", {"type": "patches", "patch_size": 8})
    pixels, keep = torch.rand(1, 3, 32, 32), torch.tensor([[2, 7]])
    torch.testing.assert_close(encoder.visible(pixels, keep), encoder(pixels).flatten(1, 2)[:, [2, 7]])


def test_missing_pixels_are_normalised_patch_by_patch(model):
    objective = build(model, "masked_reconstruction")
    targets = objective._targets(torch.rand(2, 3, 32, 32))
    assert targets.shape == (2, 16, 192)
    torch.testing.assert_close(targets.mean(2), torch.zeros(2, 16), atol=1e-5, rtol=0)
    torch.testing.assert_close(targets.var(2), torch.ones(2, 16), atol=1e-3, rtol=0)


def test_the_teacher_follows_the_student_and_the_center_the_teacher(model):
    objective = build(model, "self_distillation", momentum=0.9, center_momentum=0.5)
    objective.losses(model, batch())
    said = torch.cat(objective._teacher_logits).mean(0)
    slow = [p.clone() for p in objective.teacher.module.parameters()]
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(1.0)
    objective.done = 0.5  # half of the way from 0.9 to 1
    objective.after_step(model)
    torch.testing.assert_close(objective.center, 0.5 * said)
    for before, after, student in zip(
        slow, objective.teacher.module.parameters(), model.encoder.parameters(), strict=True
    ):
        torch.testing.assert_close(after, 0.95 * before + 0.05 * student)
    assert not any(p.requires_grad for p in objective.teacher.parameters())


def test_two_labels_are_each_half(model):
    targets = build(model, "supervised")._targets(batch())
    assert targets.tolist() == [[1, 0, 0], [0, 0.5, 0.5], [0, 0, 1], [1, 0, 0]]
    unlabelled = replace(batch(1), labels=((),))
    assert build(model, "supervised")._targets(unlabelled).tolist() == [[0, 0, 0]]


def test_captions_are_no_labels(model):
    setting = Setting(model, Size(32, 32), lambda: ["one"])
    with pytest.raises(RecipeError, match="needs labels, but the data names 1"):
        parts.build("objective", {"type": "supervised"}, setting)


def test_a_teacher_with_a_finer_grid_is_interpolated(model):
    objective = build(model, "feature_distillation")
    pixels = torch.rand(2, 3, 32, 32)
    targets = objective._targets(pixels, 4, 4)
    assert targets.shape == (2, 16, 48)
    same = build(model, "feature_distillation", teacher={"type": "patches", "patch_size": 8})
    whitened = same._targets(pixels, 4, 4)
    torch.testing.assert_close(whitened.mean(-1), torch.zeros(2, 16), atol=1e-4, rtol=0)
    torch.testing.assert_close(whitened.var(-1, unbiased=False), torch.ones(2, 16), atol=1e-2, rtol=0)


def test_a_qformer_learns_with_words_and_is_handed_back(model):
    objective = build(model, "qformer_stage1")
    for mine, theirs in zip(objective.stage.queries, model.connector.queries, strict=True):
        assert torch.equal(mine, theirs)
    grid = torch.rand(2, 4, 4, 16)
    flat = grid.flatten(1, 2)
    torch.testing.assert_close(objective.stage.read_images(flat), model.connector.ask(grid))
    with torch.no_grad():
        for parameter in objective.stage.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    objective.hand_over(model)
    torch.testing.assert_close(objective.stage.read_images(flat), model.connector.ask(grid))


def test_only_a_qformer_can_learn_as_one():
    recipe = raw("contrastive")
    recipe["model"]["connector"] = {"type": "mlp"}
    other = Model(load_recipe(recipe).model, texts=["a cat"])
    with pytest.raises(RecipeError, match="trains a connector 'qformer', but the model has 'mlp'"):
        build(other, "qformer_stage1")
