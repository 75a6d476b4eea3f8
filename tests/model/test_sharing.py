"""Weights that a base and its adapters have alike are held once, and neither answers otherwise for it."""

from copy import deepcopy

import pytest
import torch

from chiasm.conversation import chat
from chiasm.data.corpus import corpus
from chiasm.model import Model
from chiasm.model.sharing import share_weights
from chiasm.recipe import load_recipe


@pytest.fixture
def tuned(tiny, tiny_model):
    """The tiny model with low-rank updates that have learnt something."""
    recipe = load_recipe(
        {**deepcopy(tiny), "model": {**tiny["model"], "routing": {"type": "lora", "rank": 2}}}
    )
    model = Model(recipe.model, texts=corpus(recipe)).eval()
    for slot, part in tiny_model[0].slots().items():
        if isinstance(part, torch.nn.Module) and slot != "routing":
            model.slots()[slot].load_state_dict(part.state_dict())
    with torch.no_grad():
        for parameter in model.routing.parameters():
            parameter.normal_(std=0.5)
    return model


def test_an_adapter_holds_its_own_updates_alone(tiny_model, tuned):
    base = tiny_model[0]
    size = sum(each.numel() * each.element_size() for each in base.parameters())
    answers = [chat(model, "What is this?", tokens=8).text for model in (base, tuned)]
    assert share_weights(tuned, [base]) >= size
    own = {each.data_ptr() for each in tuned.parameters()} - {each.data_ptr() for each in base.parameters()}
    assert own == {each.data_ptr() for each in tuned.routing.parameters()}
    assert [chat(model, "What is this?", tokens=8).text for model in (base, tuned)] == answers
    assert share_weights(tuned, [base]) == 0  # there is nothing more to give back


def test_what_differs_in_a_bit_or_a_kind_is_not_shared(tiny_model):
    base = tiny_model[0]
    other = deepcopy(base)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.view(-1)[0] += 1
    buffers = sum(each.numel() * each.element_size() for each in base.buffers())
    assert share_weights(other, [base]) <= buffers
    assert share_weights(deepcopy(base).half(), [base]) <= buffers
