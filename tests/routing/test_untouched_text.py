"""What a mechanism promises of words, bit for bit, on language models of several families of transformers."""

import copy

import pytest
import torch
from torch import nn

from chiasm import parts
from chiasm.sequence.kinds import KINDS
from chiasm.sequence.layout import Layout

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
         "max_position_embeddings": 32}  # fmt: skip
CONFIGS = {
    "llama": {**SIZES, "num_key_value_heads": 1},
    "mistral": {**SIZES, "num_key_value_heads": 1},
    "qwen2": {**SIZES, "num_key_value_heads": 1},
    "gpt2": {"n_embd": 16, "n_inner": 24, "n_layer": 2, "n_head": 2, "n_positions": 32},
    "gpt_neox": SIZES,
    "opt": {"hidden_size": 16, "ffn_dim": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
            "word_embed_proj_dim": 16, "max_position_embeddings": 32},
    "phi": SIZES,
}  # fmt: skip
ROUTINGS = {
    "gated_cross_attention": {"heads": 2, "head_width": 4},
    "partial_lora": {"rank": 2},
}


@pytest.fixture(params=CONFIGS)
def language(request):
    torch.manual_seed(0)
    config = {"model_type": request.param, **CONFIGS[request.param]}
    part = parts.build("language", {"type": "causal", "config": config, "vocabulary": 280}, ["a b c"] * 3)
    for parameter in part.parameters():  # OPT's and GPT-2's biases begin at zero
        nn.init.normal_(parameter, std=0.1)
    return part.eval()


def logits(language, ids, kinds):
    with torch.no_grad():
        return language.logits(language(language.embed(ids), Layout.causal(*ids.shape, kinds=kinds)))


@pytest.mark.parametrize("name", ROUTINGS)
def test_words_alone_are_bit_equal_to_the_bare_language_models(language, name):
    ids = torch.randint(0, 200, (2, 9))
    words, pictures = torch.zeros_like(ids), torch.full_like(ids, KINDS.index("read"))
    bare, weights = logits(language, ids, words), set(language.state_dict())
    told = [8] if name == "gated_cross_attention" else []
    routing = parts.build("routing", {"type": name, **ROUTINGS[name]}, language, *told)
    for key, parameter in routing.named_parameters():
        if not key.endswith("_gate"):  # the gates stay closed, as they begin; all else may be anything
            nn.init.normal_(parameter)
    routing.eval()
    assert torch.equal(logits(language, ids, words), bare)
    assert set(language.state_dict()) == weights
    if name == "partial_lora":
        assert len(routing.updates) >= 8
        assert not torch.equal(logits(language, ids, pictures), bare)


def test_experts_upcycled_from_a_dense_checkpoint_compute_the_same_at_first(language):
    if language.inner.config.model_type == "opt":
        pytest.skip("OPT's networks are no modules of their own; the error says so")
    ids = torch.randint(0, 200, (2, 9))
    bare = logits(language, ids, torch.zeros_like(ids))
    dense = copy.deepcopy(language.state_dict())
    routing = parts.build(
        "routing", {"type": "moe", "experts": 3, "top_k": 2, "layers": "all"}, language
    ).eval()
    assert all(torch.equal(value, dense[key]) for key, value in language.state_dict().items())
    for layer in routing.each():
        nn.init.normal_(layer.router.weight)  # whatever the untrained router says
    made = logits(language, ids, torch.zeros_like(ids))
    torch.testing.assert_close(made, bare, atol=1e-5, rtol=1e-5)
    use = routing.report()
    assert len(use) == 2
    assert all(set(layer) == {"text"} and sum(layer["text"]) == pytest.approx(1) for layer in use.values())


def test_one_expert_of_one_is_bit_equal_to_the_dense_network(language):
    if language.inner.config.model_type == "opt":
        pytest.skip("OPT's networks are no modules of their own; the error says so")
    ids = torch.randint(0, 200, (2, 9))
    bare = logits(language, ids, torch.zeros_like(ids))
    parts.build("routing", {"type": "moe", "experts": 1, "top_k": 1, "layers": "all"}, language).eval()
    assert torch.equal(logits(language, ids, torch.zeros_like(ids)), bare)


def test_a_merged_lora_computes_the_same_in_gpt2s_transposed_layers():
    torch.manual_seed(0)
    config = {"model_type": "gpt2", **CONFIGS["gpt2"]}
    language = parts.build("language", {"type": "causal", "config": config, "vocabulary": 280}, ["a b c"] * 3)
    routing = parts.build("routing", {"type": "lora", "rank": 2}, language.eval())
    assert {name.rpartition("/")[2] for name in routing.updates} == {"c_attn", "c_proj", "c_fc"}
    for update in routing.updates.values():
        nn.init.normal_(update.b, std=0.1)
    ids = torch.randint(0, 200, (1, 7))
    apart = logits(language, ids, torch.zeros_like(ids))
    routing.merge()
    torch.testing.assert_close(logits(language, ids, torch.zeros_like(ids)), apart)
