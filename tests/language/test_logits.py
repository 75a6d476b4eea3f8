"""The logits of any causal language model are those of transformers' class, or the class is refused by its name."""

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from chiasm.errors import RecipeError
from chiasm.language.causal import Causal
from chiasm.language.documents_apart import check_attention
from chiasm.language.logits import check_logits
from chiasm.sequence.layout import Layout

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}
MULTI_HEAD = {**SIZES, "num_key_value_heads": 4}
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
# What each class does behind its output layer, far from doing nothing.
SCALED = {
    "cohere": {**SIZES, "logit_scale": 3.0},
    "cohere2": {**SIZES, "logit_scale": 3.0},
    "gemma2": {**SIZES, "head_dim": 8, "final_logit_softcapping": 0.1, "attn_logit_softcapping": None},
    "gemma3_text": {**SIZES, "head_dim": 8, "final_logit_softcapping": 0.1},
    "granite": {**SIZES, "logits_scaling": 3.0, "embedding_multiplier": 2.0},
    "granitemoe": {**SIZES, **EXPERTS, "logits_scaling": 3.0},
    "hyperclovax": {**SIZES, "logits_scaling": 3.0},
    "minicpm3": {**MULTI_HEAD, **LATENT, "dim_model_base": 8},
    "nanochat": {**MULTI_HEAD, "final_logit_softcapping": 0.1},
}
# Accepted by their attention, but their logits are not those of an output layer behind a base model.
REFUSED = {
    "bert", "camembert", "data2vec-text", "electra", "ernie", "mllama", "modernbert-decoder", "roberta",
    "roberta-prelayernorm", "roc_bert", "xlm-roberta", "xlm-roberta-xl", "xmod",
}  # fmt: skip


@pytest.mark.parametrize("kind", SCALED)
@torch.no_grad()
def test_scales_and_caps_are_those_of_transformers(kind):
    torch.manual_seed(0)
    language = Causal(["a b c"] * 20, config={"model_type": kind, **SCALED[kind]}, vocabulary=40).eval()
    bare = AutoModelForCausalLM.from_config(language.inner.config, attn_implementation="eager").eval()
    bare.load_state_dict(language.inner.state_dict())
    ids = torch.arange(9)[None]
    hidden = language(language.embed(ids), Layout.causal(1, 9, positions=ids))
    logits = language.logits(hidden)
    torch.testing.assert_close(logits, bare(ids).logits, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(logits, language.head(hidden), rtol=0.1)  # the option does something


@pytest.mark.parametrize("kind", ["bert", "electra", "modernbert-decoder"])
def test_a_class_that_does_more_than_that_is_refused_by_its_name(kind):
    name = AutoModelForCausalLM._model_mapping[CONFIG_MAPPING[kind]].__name__
    with torch.device("meta"), pytest.raises(RecipeError, match=f"{name} does more than to scale or cap"):
        check_logits(AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind]()))


def test_a_scale_that_is_none_of_the_known_is_refused(monkeypatch):
    """As in a class that a later transformers brings."""
    from transformers import LlamaForCausalLM

    forward = LlamaForCausalLM.forward

    def doubled(self, **options):
        output = forward(self, **options)
        output.logits = output.logits * 2
        return output

    monkeypatch.setattr(LlamaForCausalLM, "forward", doubled)
    with pytest.raises(RecipeError, match="LlamaForCausalLM does more than to scale or cap the logits"):
        Causal(["a b"] * 20, config={"model_type": "llama", **SIZES}, vocabulary=40)


@pytest.mark.parametrize("kind", ["opt", "gpt2", "gpt_neox", "llama", "phi", "qwen2", "gptj"])
def test_languages_of_public_models_are_accepted(kind):
    with torch.device("meta"):
        check_logits(AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind]()))


def test_the_check_leaves_model_and_random_state_as_they_were():
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING["llama"](**SIZES, vocab_size=40)).eval()
    ids, state = torch.arange(9)[None], torch.get_rng_state()
    before = model(ids).logits
    check_logits(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model(ids).logits, before)


@pytest.mark.slow
def test_of_every_model_type_whose_attention_is_accepted_the_logits_are_right_or_it_is_refused():
    refused, tried = set(), 0
    for kind, config in CONFIG_MAPPING.items():
        if config not in AutoModelForCausalLM._model_mapping:
            continue
        try:
            settings = config()
            check_attention(settings)
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(settings)
        except Exception:  # it has no usual sizes, needs another package, or attends in a way of its own
            continue
        tried += 1
        try:
            check_logits(model)
        except RecipeError:
            refused.add(kind)
    assert tried > 90
    assert refused == REFUSED
