"""Partial LoRA: an update that image tokens meet, and no word."""

import copy

import pytest
import torch
from torch import nn

from chiasm import parts
from chiasm.errors import RecipeError
from reading import reading


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.ModuleDict({"up": nn.Linear(6, 5)})


def partial(language, **options):
    part = parts.build("routing", {"type": "partial_lora", "rank": 2, **options}, language)
    for update in part.updates.values():
        nn.init.normal_(update.b)
    return part


def test_image_positions_meet_the_scaled_update_and_words_do_not(layer):
    x, kinds = torch.randn(1, 4, 6), torch.tensor([[0, 1, 2, 0]])
    plain = layer["up"](x)
    update = partial(layer, alpha=6.0).updates["up"]
    with reading(kinds):
        made = layer["up"](x)
    assert torch.equal(made[:, [0, 3]], plain[:, [0, 3]])
    torch.testing.assert_close(made[:, 1:3], (plain + 3 * x @ update.a.T @ update.b.T)[:, 1:3])


def test_text_alone_comes_out_bit_for_bit_and_still_gives_gradients(layer):
    x = torch.randn(2, 3, 6)
    plain = layer["up"](x)
    part = partial(layer)
    with reading(torch.zeros(2, 3, dtype=torch.long)):
        made = layer["up"](x)
    assert torch.equal(made, plain)
    made.sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() == 0 for p in part.parameters())


def test_without_options_read_and_written_images_meet_an_update_of_rank_16_unscaled(layer):
    x = torch.randn(1, 3, 6)
    plain = layer["up"](x)
    part = parts.build("routing", {"type": "partial_lora"}, layer).train()
    update = part.updates["up"]
    assert (update.a.shape, update.b.shape) == ((16, 6), (5, 16))
    nn.init.normal_(update.b)
    with reading(torch.tensor([[0, 1, 2]])):
        out = layer["up"](x)
        assert torch.equal(layer["up"](x), out)  # nothing is dropped
    torch.testing.assert_close(out[:, 1:], (plain + x @ update.a.T @ update.b.T)[:, 1:])


def test_inputs_of_the_update_are_dropped_in_training_alone(layer):
    x, kinds = torch.randn(1, 50, 6), torch.ones(1, 50, dtype=torch.long)
    part = partial(layer, dropout=0.5)
    with reading(kinds):
        full = layer["up"](x) if not part.eval().training else None
        assert torch.equal(layer["up"](x), full)
        part.train()
        assert not torch.allclose(layer["up"](x), layer["up"](x))
        torch.testing.assert_close(
            torch.stack([layer["up"](x) for _ in range(400)]).mean(), full.mean(), atol=0.1, rtol=0
        )


def test_kinds_are_an_option(layer):
    x = torch.randn(1, 2, 6)
    plain = layer["up"](x)
    partial(layer, kinds=["read"])
    with reading(torch.tensor([[1, 2]])):
        changed = (layer["up"](x) != plain).any(-1)
    assert changed.tolist() == [[True, False]]


def test_queries_keys_and_values_share_one_a_also_in_a_copy():
    language = nn.ModuleDict({f"{name}_proj": nn.Linear(4, 4) for name in "qkvo"})
    part = copy.deepcopy(partial(language))
    updates = part.updates
    assert updates["q_proj"].a is updates["k_proj"].a is updates["v_proj"].a
    assert updates["o_proj"].a is not updates["q_proj"].a
    blocks = nn.ModuleDict({key: nn.ModuleDict({"q_proj": nn.Linear(4, 4)}) for key in "ab"})
    updates = partial(blocks).updates
    assert updates["a/q_proj"].a is not updates["b/q_proj"].a
    pairs = partial(
        nn.ModuleDict({name: nn.Linear(4, 4) for name in ("one", "two", "three", "four")}),
        shared=[["one", "two"], ["three", "four"]],
    ).updates
    assert pairs["one"].a is pairs["two"].a is not pairs["three"].a
    assert pairs["three"].a is pairs["four"].a
    with pytest.raises(RecipeError, match=r"cannot share A .* v_proj has 3 inputs, not 4"):
        partial(nn.ModuleDict({"q_proj": nn.Linear(4, 4), "v_proj": nn.Linear(3, 4)}))
