"""One step's mathematics does not depend on how its documents are laid out; nonsense does not reach the weights."""

import copy

import pytest
import torch
from toy import Squares, toy

from chiasm.data.documents import document
from chiasm.data.picture_reader import PictureReader
from chiasm.distribution.processes import Ranks
from chiasm.errors import RecipeError
from chiasm.sequence import pack
from chiasm.training.aims import DocumentsAim, TokenizerAim
from chiasm.training.optimiser import build_optimiser
from chiasm.training.step import TrainStep
from chiasm.training.train import build_model

RECIPE = toy("stages.learn.precision=fp32", "stages.learn.clip=1e9")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def built():
    return build_model(RECIPE)


def stepper(built, stage=RECIPE.stages[1]):
    model = copy.deepcopy(built)
    model.train_only(stage.train)
    return model, TrainStep(DocumentsAim(model), build_optimiser(model, stage), stage, Ranks(), CPU)


def batch_of(model, rows):
    made, slots = pack(rows)
    return PictureReader(model.contract).attach(made, slots)


def documents(model, groups=4):
    """Of four groups, drawings first: micro-batches differ in the counts of their losses."""
    world = Squares()
    made = [document(model.contract, sample) for index in range(groups) for sample in world[index]]
    return sorted(made, key=lambda each: each.name)[: 2 * groups]


def gradients(model, step, batches):
    outcome = step(batches)
    return outcome, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(one, other):
    assert one[0].losses == pytest.approx(other[0].losses, rel=1e-5)
    assert one[0].norm == pytest.approx(other[0].norm, rel=1e-4)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-4, atol=1e-6, msg=name)


def test_one_batch_of_eight_is_eight_batches_of_one(built):
    model, step = stepper(built)
    together = gradients(model, step, [batch_of(model, [[each] for each in documents(model)])])
    model, step = stepper(built)
    apart = gradients(model, step, [batch_of(model, [[each]]) for each in documents(model)])
    assert_same(together, apart)
    assert {"text", "image"} == set(together[0].losses)


def test_packed_is_unpacked(built):
    model, step = stepper(built)
    packed = gradients(model, step, [batch_of(model, [documents(model)])])
    model, step = stepper(built)
    assert_same(packed, gradients(model, step, [batch_of(model, [[each] for each in documents(model)])]))


def test_a_step_is_repeated_bit_for_bit(built):
    weights = []
    for _ in range(2):
        model, step = stepper(built, toy().stages[1])
        for _ in range(3):
            step([batch_of(model, [documents(model)])])
        weights.append(model.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_what_is_frozen_does_not_change_by_a_bit(built):
    model, step = stepper(built, RECIPE.stages[1])
    before = copy.deepcopy(model.state_dict())
    for _ in range(2):
        step([batch_of(model, [documents(model)])])
    for name, value in model.state_dict().items():
        learns = any(name.startswith(f"{slot}.") for slot in RECIPE.stages[1].train)
        assert torch.equal(value, before[name]) != learns, name


@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_skipped(built, poison):
    model, step = stepper(built)
    weight = model.connector.layers[0].weight
    if poison == "loss":
        model.connector.layers[0].bias.data[0] = float("nan")
    else:
        weight.register_hook(lambda gradient: gradient * float("inf"))
    before = copy.deepcopy(model.state_dict())
    outcome = step([batch_of(model, [documents(model)])])
    assert outcome.skipped
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0, equal_nan=True)
    assert not step.optimiser.state


def test_weights_of_losses_scale_the_objective(built):
    stage = RECIPE.stages[1].model_copy(update={"weights": {"image": 0.25}})
    model, step = stepper(built, stage)
    outcome = step([batch_of(model, [documents(model)])])
    assert outcome.objective == pytest.approx(
        outcome.losses["text"] + 0.25 * outcome.losses["image"], rel=1e-6
    )
    with pytest.raises(RecipeError, match="weighs the loss 'imgae'"):
        stepper(built, stage.model_copy(update={"weights": {"imgae": 1.0}}))


def test_batches_without_anything_to_learn_are_harmless(built):
    model, step = stepper(built)
    silent = documents(model)[-1]
    batch = batch_of(model, [[silent]])
    batch.labels[:] = -100
    outcome = step([batch])
    assert outcome.losses == {}
    assert not outcome.skipped


def test_a_tokenizer_accumulates_too(built):
    """Also its codebook: three steps that settle, begin the codes and move them."""
    stage = RECIPE.stages[0].model_copy(update={"precision": "fp32", "clip": 1e9})
    steps = torch.rand(4, 8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found, books = [], []
    for size in (8, 1):
        model = copy.deepcopy(built)
        model.train_only(stage.train)
        step = TrainStep(TokenizerAim(model), build_optimiser(model, stage), stage, Ranks(), CPU)
        torch.manual_seed(0)
        for pixels in steps:
            last = gradients(model, step, list(pixels.split(size)))
        found.append(last)
        books.append(model.image_tokenizer.quantizer.state_dict())
    assert_same(*found)
    assert int(books[0]["batches"]) == 4
    for name, value in books[0].items():
        torch.testing.assert_close(books[1][name], value, rtol=1e-5, atol=1e-6, msg=name)
