"""mPLUG-Owl2's modality-adaptive module: what image tokens have for themselves, and what they share with words."""

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from chiasm import parts
from chiasm.errors import RecipeError
from reading import reading

SMALL = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
         "vocab_size": 20}  # fmt: skip


def route(language, **options):
    return parts.build("routing", {"type": "modality_adaptive", **options}, language)


def test_image_tokens_have_norms_keys_and_values_of_their_own_in_every_block():
    names = route(LlamaForCausalLM(LlamaConfig(**SMALL))).layers.keys()
    inside = ("input_layernorm", "post_attention_layernorm", "self_attn/k_proj", "self_attn/v_proj")
    assert set(names) == {f"model/layers/{i}/{name}" for i in range(2) for name in inside}


def test_an_image_token_meets_its_own_keys_and_the_queries_of_all():
    language = LlamaForCausalLM(LlamaConfig(**SMALL)).eval()
    part = route(language)
    for parameter in part.parameters():
        nn.init.normal_(parameter)
    attention, x = language.model.layers[0].self_attn, torch.randn(1, 3, 8)
    with reading(torch.tensor([[0, 1, 0]])):
        keys, queries = attention.k_proj(x), attention.q_proj(x)
    own = part.layers["model/layers/0/self_attn/k_proj"].ways[0]
    torch.testing.assert_close(keys[:, 1], own(x)[:, 1])
    torch.testing.assert_close(keys[:, ::2], x[:, ::2] @ attention.k_proj.weight.T)
    torch.testing.assert_close(queries, x @ attention.q_proj.weight.T)


def test_other_language_models_name_what_their_blocks_have():
    language = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=20))
    with pytest.raises(RecipeError, match=r"GPT2Block has no .*k_proj.*; choose among ln_1, attn\.c_attn"):
        route(language)
    assert route(language, modules=["ln_1"]).layers.keys() == {"transformer/h/0/ln_1"}
    with pytest.raises(RecipeError, match="no modules chosen"):
        route(language, modules=[])
