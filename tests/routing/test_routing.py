import copy

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from chiasm import parts
from chiasm.errors import RecipeError
from reading import reading

# Those that read pictures beside the sequence have tests of their own.
INSIDE = [name for name in parts.names("routing") if not parts.lookup("routing", name).cross_attends]


@pytest.fixture
def language():
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, vocab_size=50
    )
    return LlamaForCausalLM(config).eval()


def routing(language, name, **options):
    return parts.build("routing", {"type": name, **options}, language)


BLENDED = ("moe", "multiway", "mixture_of_transformers")  # the same sums, which round otherwise
# Two rows with a picture that is looked at and one that is made.
KINDS = torch.tensor([[0, 1, 1, 0, 2, 2], [1, 1, 0, 0, 0, 0]])


def read(language, kinds=KINDS):
    with reading(kinds):
        return language(torch.arange(12).reshape(2, 6)).logits


def logits(language):
    return read(language).detach()


def learn(lora):
    """Give B values, as training would."""
    for name, parameter in lora.named_parameters():
        if name.endswith(".b"):
            nn.init.normal_(parameter, std=0.2)


@pytest.mark.parametrize("name", INSIDE)
def test_a_fresh_routing_changes_nothing_and_keeps_names(language, name):
    before, names = logits(language), list(language.state_dict())
    part = routing(language, name)
    if name in BLENDED:
        torch.testing.assert_close(logits(language), before)
    else:
        assert torch.equal(logits(language), before)
    assert list(language.state_dict()) == names
    assert not any(module is language for module in part.modules())


@pytest.mark.parametrize("name", INSIDE)
def test_every_parameter_of_a_routing_gets_a_gradient(language, name):
    part = routing(language, name)
    read(language).square().sum().backward()
    assert [key for key, p in part.named_parameters() if p.requires_grad and p.grad is None] == []


def test_shared_has_no_parameters(language):
    part = routing(language, "shared")
    part.merge()
    assert list(part.parameters()) == []


def test_lora_computes_w_x_plus_scaled_b_a_x(language):
    layer = language.model.layers[0].mlp.up_proj
    x = torch.rand(3, 16)
    plain = layer(x)
    lora = routing(language, "lora", rank=4, alpha=6.0, targets=["up_proj"])
    learn(lora)
    update = lora.updates["model/layers/0/mlp/up_proj"]
    assert update.a.shape == (4, 16)
    torch.testing.assert_close(layer(x), plain + 1.5 * x @ update.a.T @ update.b.T)


def test_without_options_lora_is_of_rank_16_and_alpha_32(language):
    layer, x = language.model.layers[0].mlp.up_proj, torch.rand(3, 16)
    plain = layer(x)
    lora = routing(language, "lora")
    learn(lora)
    update = lora.updates["model/layers/0/mlp/up_proj"]
    assert (update.a.shape, update.b.shape) == ((16, 16), (24, 16))
    torch.testing.assert_close(layer(x), plain + 2 * x @ update.a.T @ update.b.T)


def test_lora_equals_peft_initial_values_in_distribution(language):
    """A as nn.Linear initialises itself, B zero, as in the paper's code."""
    updates = routing(language, "lora", rank=8).updates.values()
    assert not any(update.b.any() for update in updates)
    values = torch.cat([update.a.detach().flatten() for update in updates if update.a.shape[1] == 16])
    assert 0.99 / 16**0.5 < values.abs().max() <= 1 / 16**0.5


def test_a_merged_lora_computes_the_same_without_hooks(language):
    lora = routing(language, "lora", rank=4)
    learn(lora)
    before, weight = logits(language), language.model.layers[1].self_attn.q_proj.weight.clone()
    lora.merge()
    torch.testing.assert_close(logits(language), before, rtol=1e-4, atol=1e-5)
    assert not torch.equal(language.model.layers[1].self_attn.q_proj.weight, weight)
    assert not any(module._forward_hooks for module in language.modules())


def test_merging_twice_and_attaching_a_merged_state_again_changes_nothing(language):
    lora = routing(language, "lora", rank=4)
    learn(lora)
    lora.merge()
    merged = logits(language)
    lora.merge()
    routing(language, "lora", rank=4).load_state_dict(lora.state_dict())
    assert torch.equal(logits(language), merged)


def test_a_saved_lora_is_bit_equal_when_loaded(language):
    first = routing(language, "lora", rank=4)
    learn(first)
    expected, state = logits(language), first.state_dict()
    torch.manual_seed(0)
    other = LlamaForCausalLM(language.config).eval()
    routing(other, "lora", rank=4).load_state_dict(state)
    assert torch.equal(logits(other), expected)


def test_a_copy_of_a_routed_model_is_its_own(language):
    pair = nn.ModuleList([language, routing(language, "lora", rank=4)])
    copied = copy.deepcopy(pair)
    before = logits(language)
    learn(copied[1])
    assert torch.equal(logits(language), before)
    assert not torch.equal(logits(copied[0]), before)
    copied[1].merge()
    assert torch.equal(logits(language), before)


@pytest.mark.parametrize("name", INSIDE)
def test_a_copy_of_any_routed_model_meets_its_own_weights(language, name):
    pair = nn.ModuleList([language, routing(language, name)]).eval()
    before = logits(language)
    copied = copy.deepcopy(pair)
    assert torch.equal(logits(copied[0]), before)
    for parameter in copied[1].parameters():
        nn.init.normal_(parameter)
    assert torch.equal(logits(language), before)
    assert torch.equal(logits(copied[0]), before) == (not list(copied[1].parameters()))


def test_targets_are_ends_of_names(language):
    keys = routing(language, "lora", targets=["q_proj", "layers.1.mlp.up_proj"]).updates.keys()
    assert sorted(keys) == [
        "model/layers/0/self_attn/q_proj",
        "model/layers/1/mlp/up_proj",
        "model/layers/1/self_attn/q_proj",
    ]


def test_all_linear_leaves_out_the_head(language):
    keys = routing(language, "lora").updates.keys()
    assert len(keys) == 2 * 7
    assert not any("lm_head" in key for key in keys)


def test_a_head_tied_to_the_embeddings_is_left_out_under_any_name():
    table, body = nn.Embedding(9, 4), nn.Linear(4, 4)
    head = nn.Linear(4, 9, bias=False)
    head.weight = table.weight
    language = nn.ModuleDict({"table": table, "body": body, "readout": head})
    assert list(routing(language, "lora").updates) == ["body"]


@pytest.mark.parametrize("targets", [["query"], ["q_proj", "query"], ["proj"], []])
def test_a_target_without_a_layer_is_answered_with_the_known_names(language, targets):
    with pytest.raises(RecipeError, match=r"no linear layer for targets .*down_proj, gate_proj, k_proj"):
        routing(language, "lora", targets=targets)


def test_a_bfloat16_language_model_can_be_routed(language):
    language = language.bfloat16()
    before = logits(language)
    lora = routing(language, "lora", rank=2).float()
    assert torch.equal(logits(language), before)
    learn(lora)
    assert logits(language).dtype == torch.bfloat16
    lora.merge()
    assert language.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
