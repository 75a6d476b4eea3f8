"""Weights of their own for image tokens: in the feed-forward networks, or everywhere."""

import pytest
import torch
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from chiasm import parts
from chiasm.errors import RecipeError
from chiasm.routing.by_kind import ByKind
from reading import reading

SMALL = {
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 20,
}
KINDS = torch.tensor([[0, 1, 1, 0, 2], [0, 0, 0, 2, 2]])
TEXT = torch.zeros_like(KINDS)
BOTH = ["multiway", "mixture_of_transformers"]
EACH = [*BOTH, "modality_adaptive"]


@pytest.fixture
def language():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SMALL)).eval()


def route(language, name, **options):
    return parts.build("routing", {"type": name, **options}, language)


def logits(language, kinds=KINDS):
    with reading(kinds):
        return language(torch.arange(10).view(2, 5)).logits


def disturb(part):
    for parameter in part.parameters():
        nn.init.normal_(parameter)


@pytest.mark.parametrize("name", EACH)
def test_words_alone_come_out_bit_for_bit_whatever_images_meet(language, name):
    before = logits(language, TEXT)
    disturb(route(language, name))
    with torch.no_grad():
        assert torch.equal(logits(language, TEXT), before)
        # Before the first image: as before, but for the rounding of a product with fewer rows.
        torch.testing.assert_close(logits(language)[0, 0], before[0, 0], atol=1e-6, rtol=0)
        assert not torch.allclose(logits(language)[0, 1:], before[0, 1:])
    assert torch.equal(logits(language, TEXT), before)  # also with gradients


@pytest.mark.parametrize("name", EACH)
def test_a_batch_of_words_gives_gradients_of_zero(language, name):
    part = route(language, name)
    logits(language, TEXT).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() == 0 for p in part.parameters())


def test_an_image_token_meets_its_own_network(language):
    part = route(language, "multiway")
    disturb(part)
    x, mlp = torch.randn(2, 5, 8), language.model.layers[0].mlp
    way = part.layers["model/layers/0/mlp"].ways[0]
    with reading(TEXT):
        words = mlp(x)
    with reading(KINDS):
        made = mlp(x)
    torch.testing.assert_close(made, torch.where((KINDS > 0)[..., None], way(x), words))


@pytest.mark.parametrize("shape", [(2, 5, 8), (10, 8), (2, 5, 3, 8)])
def test_modules_of_any_shape_are_met_by_kind(shape):
    """Positions in two axes, in one as in OPT's networks, or with heads behind them as in Qwen3's norms."""
    torch.manual_seed(0)
    module = nn.LayerNorm(8)
    by_kind = ByKind(module, (("text",), ("read",), ("written",)))
    disturb(by_kind)
    x = torch.randn(shape)
    wanted = module(x).view(2, 5, *shape[1 if len(shape) == 2 else 2 :]).clone()
    for way, kind in zip(by_kind.ways, (1, 2), strict=True):
        wanted[kind == KINDS] = way(x).view(wanted.shape)[kind == KINDS]
    with reading(KINDS):
        torch.testing.assert_close(by_kind(x), wanted.view(shape))
    with reading(TEXT):
        out = by_kind(x)
    assert torch.equal(out, module(x))
    out.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in by_kind.parameters())


def test_a_single_image_token_meets_its_own_weights():
    module, x = nn.Linear(8, 8), torch.randn(1, 3, 8)
    by_kind = ByKind(module, (("text",), ("read", "written")))
    disturb(by_kind)
    with reading(torch.tensor([[0, 2, 0]])):
        out = by_kind(x)
    torch.testing.assert_close(out[:, [0, 2]], module(x)[:, [0, 2]])
    torch.testing.assert_close(out[:, 1], by_kind.ways[0](x)[:, 1])


def test_a_mixture_takes_in_the_last_norm_of_a_model_without_a_head():
    names = route(LlamaModel(LlamaConfig(**SMALL)), "mixture_of_transformers").layers.keys()
    assert len(names) == 2 * (7 + 2) + 1
    assert {"norm", "layers/0/self_attn/q_proj", "layers/1/input_layernorm"} <= set(names)


def test_without_an_option_images_read_and_written_share_their_weights(language):
    for name in BOTH:
        part = route(language, name)
        assert {len(each.ways) for each in part.layers.values()} == {1}
        assert {each.groups for each in part.layers.values()} == {(("text",), ("read", "written"))}
        part.merge()


def test_each_group_of_kinds_has_its_own(language):
    part = route(language, "multiway", kinds=[["read"], ["written"]])
    assert len(part.layers["model/layers/0/mlp"].ways) == 2
    assert len(list(part.parameters())) == 2 * 2 * 3


def test_a_mixture_has_all_but_embeddings_and_head_twice(language):
    names = route(language, "mixture_of_transformers").layers.keys()
    assert len(names) == 2 * (7 + 2) + 1
    assert not any("embed" in name or "head" in name for name in names)


def test_a_mixture_of_images_alone_is_the_model_of_their_weights(language):
    """With every token an image's, the copies are the language model."""
    before = logits(language, TEXT)
    route(language, "mixture_of_transformers")
    with torch.no_grad():
        for module in language.modules():
            if isinstance(module, nn.Linear) and module is not language.lm_head:
                module.weight.zero_()
    torch.testing.assert_close(logits(language, torch.ones_like(KINDS)), before)


@pytest.mark.parametrize(
    "other",
    [
        lambda: GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=2, n_head=2, vocab_size=20)),
        lambda: Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=4, num_key_value_heads=1)),
    ],
)
@pytest.mark.parametrize("name", BOTH)
def test_other_language_models_can_be_routed(other, name):
    language = other().eval()
    before = logits(language)
    route(language, name)
    torch.testing.assert_close(logits(language), before)


@pytest.mark.parametrize("kinds", [[], [[]], [["read"], ["read"]]])
def test_kinds_are_in_one_group_each(language, kinds):
    with pytest.raises(RecipeError, match="groups of different kinds"):
        route(language, "multiway", kinds=kinds)
