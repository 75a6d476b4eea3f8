"""What a routing part is told of the positions that the language model is reading."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaModel

from chiasm.errors import ChiasmError, RecipeError
from chiasm.routing.blocks import feed_forwards, original, replace, stack_of, width_of
from chiasm.routing.shared import Shared
from chiasm.sequence.kinds import Places
from chiasm.sequence.layout import Layout, attending, current_layout

KINDS = torch.tensor([[0, 1, 2, 1], [2, 0, 0, 1]])


def test_positions_of_some_kinds_are_flat_and_in_their_order():
    places = Places(KINDS)
    assert places.rows("text").tolist() == [0, 5, 6]
    assert places.rows("read").tolist() == [1, 3, 7]
    assert places.rows("read", "written").tolist() == [1, 2, 3, 4, 7]
    assert places.rows("text").tolist() == [0, 5, 6]  # what was asked in between makes no difference
    assert places.rows().tolist() == []


def test_groups_that_are_joined_can_be_put_back_in_order():
    places = Places(KINDS)
    for groups in ((("text",), ("read",), ("written",)), (("written", "text"), ("read",))):
        rows, order = places.parts(groups)
        assert [each.tolist() for each in rows] == [places.rows(*group).tolist() for group in groups]
        assert torch.cat(rows)[order].tolist() == list(range(8))


def test_what_a_module_is_given_has_an_axis_for_all_positions_or_is_refused():
    places = Places(KINDS)
    for shape, flat in (((2, 4), (8,)), ((2, 4, 3), (8, 3)), ((2, 4, 3, 5), (8, 3, 5)), ((8, 3), (8, 3))):
        x = torch.randn(shape)
        assert torch.equal(places.flat(x), x.reshape(flat))
    for shape in ((4, 2, 3), (1, 8, 3), (2, 3, 3), (7, 3)):
        with pytest.raises(ChiasmError, match=r"does not fit \(2, 4\) positions"):
            places.flat(torch.randn(shape))


def test_a_layout_holds_within_its_context():
    one, other = Layout.causal(*KINDS.shape, kinds=KINDS), Layout.causal(3, 2)
    with attending(one):
        assert current_layout() is one
        with attending(other):
            assert current_layout() is other
        assert current_layout() is one
    with pytest.raises(ChiasmError, match="outside of a language model"):
        current_layout()


def test_a_routing_has_neither_losses_nor_a_report_unless_it_says_so():
    routing = Shared(nn.Identity())
    assert (routing.losses(), routing.report(), routing.names) == ({}, {}, ())


def test_a_replaced_module_computes_what_it_is_told_and_still_knows_what_it_did():
    module = nn.Linear(2, 2)
    x = torch.randn(3, 2)
    before = module(x)
    replace(module, lambda x: x * 2)
    assert torch.equal(module(x), x * 2)
    assert torch.equal(original(module, x), before)


def llama(**options):
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaModel(LlamaConfig(**sizes, vocab_size=20, **options))


def test_the_stack_is_the_list_of_as_many_modules_as_the_config_says():
    language = nn.ModuleDict({"first": nn.ModuleList([nn.Linear(1, 1)] * 3), "model": llama()})
    name, stack = stack_of(language, "moe")
    assert (name, width_of(language)) == ("model.layers", 8)
    assert stack is language["model"].layers
    assert list(feed_forwards(language, "moe")) == ["model.layers.0.mlp", "model.layers.1.mlp"]


def test_a_language_model_without_a_stack_or_a_config_is_refused():
    hollow = llama()
    hollow.layers = nn.ModuleList(hollow.layers[:1])
    with pytest.raises(RecipeError, match="routing 'moe' found no stack of 2 blocks in LlamaModel"):
        stack_of(hollow, "moe")
    with pytest.raises(RecipeError, match="Linear does not say its hidden_size"):
        width_of(nn.Linear(1, 1))
