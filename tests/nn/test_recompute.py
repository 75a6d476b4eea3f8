"""Activations computed again: the same gradients bit for bit, from less that is kept."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional

from chiasm.data.corpus import corpus
from chiasm.data.documents import document
from chiasm.data.picture_reader import PictureReader
from chiasm.model import Model
from chiasm.nn.losses import objective
from chiasm.nn.recompute import recomputing
from chiasm.nn.stepwise import Stepwise
from chiasm.parts import build, lookup
from chiasm.recipe import load_recipe
from chiasm.sequence import pack
from tiny_recipe import TINY

DECODER = {
    "type": "diffusion",
    "size": 16,
    "denoiser": {"type": "dit", "width": 32, "depth": 3, "heads": 2, "patch_size": 4},
    "conditioner": {"type": "vectors"},
    "scheduler": {"type": "flow"},
    "steps": 2,
}
QUERIES = {"type": "queries", "grid": [1, 4], "alphabet": {"type": "condition"}}


def built(changes):
    raw = deepcopy(TINY)
    raw["model"] |= changes
    raw["model"] = {slot: spec for slot, spec in raw["model"].items() if spec is not None}
    raw["stages"] = raw["stages"][1:]
    recipe = load_recipe(raw)
    model = Model(recipe.model, texts=corpus(recipe))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))
    world = build("data", recipe.data["world"])
    rows = [[document(model.contract, sample) for sample in world[i]] for i in range(2)]
    batch, slots = pack(rows)
    return model, PictureReader(model.contract).attach(batch, slots)


def gradients(model, batch):
    model.zero_grad()
    torch.manual_seed(0)
    objective(model.losses(batch)).backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def kept(run):
    """Bytes that autograd keeps for the backward pass."""
    total = 0

    def pack_(tensor):
        nonlocal total
        total += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack_, lambda tensor: tensor):
        run()
    return total


MODELS = {
    "conditions of a frozen decoder": (
        {"image_tokenizer": None, "heads": {"image": QUERIES}, "image_decoder": DECODER},
        ["connector", "language", "heads.image"],
    ),
    "conditions of a decoder that learns": (
        {"image_tokenizer": None, "heads": {"image": QUERIES}, "image_decoder": DECODER},
        ["language", "heads.image", "image_decoder"],
    ),
    "sparse experts with noise": (
        {"routing": {"type": "moe", "experts": 3, "layers": "all", **lookup("routing", "moe").example()},
         "image_tokenizer": {"type": "pixels", "size": 32, "patch_size": 8},
         "heads": {"image": {"type": "raster", "alphabet": {"type": "regression"}}}},
        ["language", "routing", "heads.image"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_bit_equal(name):
    changes, learn = MODELS[name]
    model, batch = built(changes)
    model.train_only(learn)
    before = gradients(model, batch)
    with recomputing(part for part in model.slots().values() if isinstance(part, nn.Module)) as layers:
        assert len(layers) >= 2
        again = gradients(model, batch)
    assert before.keys() == again.keys()
    assert all(torch.equal(gradient, again[name]) for name, gradient in before.items())
    after = gradients(model, batch)
    assert all(torch.equal(gradient, after[name]) for name, gradient in before.items())


def test_a_frozen_decoder_through_which_gradients_flow_holds_no_gradients_and_keeps_less():
    changes, learn = MODELS["conditions of a frozen decoder"]
    model, batch = built(changes)
    model.train_only(learn)
    whole = kept(lambda: model.losses(batch))
    with recomputing(part for part in model.slots().values() if isinstance(part, nn.Module)):
        assert kept(lambda: model.losses(batch)) < 0.5 * whole
        reached = gradients(model, batch)
    assert any(name.startswith("language.") for name in reached)
    assert not any(name.startswith("image_decoder.") for name in reached)
    assert all(parameter.grad is None for parameter in model.image_decoder.parameters())


class Layer(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, x):
        self.calls += 1
        return functional.dropout(self.inner(x), 0.5)


class Noting(Stepwise):
    def forward(self, x):
        return 2 * x

    def after_step(self):
        pass

    def forget(self):
        pass


def stack(make):
    torch.manual_seed(0)
    return nn.ModuleDict({"stack": nn.Sequential(*(Layer(make()) for _ in range(3)))})


def test_layers_are_computed_twice_and_dropout_falls_the_same_way():
    module, x = stack(lambda: nn.Linear(4, 4)), torch.randn(5, 4)
    grads = []
    for _ in range(2):
        with recomputing([module] if grads else []):
            module.zero_grad()
            torch.manual_seed(3)
            module["stack"](x).square().sum().backward()
            grads.append([parameter.grad.clone() for parameter in module.parameters()])
    assert all(map(torch.equal, *grads))
    assert [layer.calls for layer in module["stack"]] == [3, 3, 3]  # once, and then twice


@pytest.mark.parametrize("make", [lambda: nn.BatchNorm1d(4), Noting])
def test_what_takes_notes_takes_them_once(make):
    module = stack(make)
    with recomputing([module]):
        module["stack"](torch.randn(5, 4, requires_grad=True)).sum().backward()
    assert [layer.calls for layer in module["stack"]] == [1, 1, 1]


def test_nothing_is_computed_again_where_nothing_learns():
    module = stack(lambda: nn.Linear(4, 4))
    with recomputing([module]), torch.no_grad():
        module["stack"](torch.randn(5, 4))
    assert "forward" not in module["stack"][0].__dict__
    assert [layer.calls for layer in module["stack"]] == [1, 1, 1]
