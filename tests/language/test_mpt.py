"""MPT behind the one attention rule: transformers' numbers for a document alone, whatever stands beside it."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from chiasm.errors import RecipeError
from chiasm.language.causal import Causal
from chiasm.language.mpt import alibi_slopes
from chiasm.language.text import TextTokenizer
from chiasm.sequence.layout import Layout

SIZES = {"d_model": 48, "n_layers": 2, "n_heads": 6, "max_seq_len": 128}
OPTIONS = [{}, {"n_heads": 4}, {"attn_config": {"clip_qkv": 0.2, "softmax_scale": 0.4}}]


def folder(path, **options):
    """A checkpoint of transformers' own MPT, and that model."""
    torch.manual_seed(0)
    words = TextTokenizer.train(["a few words of text"] * 9, 300)
    config = AutoConfig.for_model("mpt", **{**SIZES, **options}, vocab_size=300)
    bare = AutoModelForCausalLM.from_config(config).eval()
    for parameter in bare.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    bare.save_pretrained(path)
    words.save(path)
    return bare


@pytest.mark.parametrize("options", OPTIONS)
@torch.no_grad()
def test_packed_documents_compute_what_transformers_computes_for_each_alone(options, tmp_path):
    bare = folder(tmp_path, **options)
    language = Causal(checkpoint=str(tmp_path)).eval()
    assert language.context == 128
    lengths = (9, 14, 5)
    ids = [torch.randint(0, 300, (1, length)) for length in lengths]
    documents = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))[None]
    ones = torch.ones(1, 28, dtype=torch.bool)
    hidden = language(language.embed(torch.cat(ids, 1)), Layout(documents, ones, ones))
    alone = torch.cat([bare(each).logits for each in ids], 1)
    torch.testing.assert_close(language.logits(hidden), alone, atol=2e-5, rtol=1e-4)


def test_heads_lean_as_the_paper_has_it():
    assert alibi_slopes(8, 8, "cpu").tolist() == [2.0**-n for n in range(1, 9)]
    expected = [2.0**-n for n in (2, 4, 6, 8)] + [2.0**-n for n in (1, 3)]
    assert alibi_slopes(6, 8, "cpu").tolist() == pytest.approx(expected)
    assert alibi_slopes(4, 4, "cpu").tolist() == [2.0**-n for n in range(1, 5)]  # mosaicml's alibi_bias_max


@pytest.mark.parametrize(("options", "place"), [
    ({"attn_config": {"alibi": False}}, "attn_config.alibi"),
    ({"attn_config": {"prefix_lm": True}}, "attn_config.prefix_lm"),
    ({"attn_config": {"attn_type": "multiquery_attention"}}, "attn_config.attn_type"),
    ({"attn_config": {"attn_pdrop": 1}}, "attn_config.attn_pdrop"),
    ({"expansion_ratio": 2}, "expansion_ratio"),
    ({"logit_scale": 0.5}, "logit_scale"),
    ({"no_bias": False}, "no_bias"),
    ({"norm_type": "rmsnorm"}, "norm_type"),
])  # fmt: skip
def test_what_transformers_leaves_out_of_mpt_is_refused_by_name(options, place):
    with pytest.raises(RecipeError, match=f"{place} of an mpt"):
        Causal(["a b"], config={"model_type": "mpt", **SIZES, **options})


def test_a_key_of_its_attention_that_mpt_has_not_is_refused_by_name():
    with pytest.raises(RecipeError, match=r"no key 'attn_config\.tilt'"):
        Causal(["a b"], config={"model_type": "mpt", **SIZES, "attn_config": {"tilt": 1}})


@torch.no_grad()
def test_answers_of_prompts_of_different_lengths_go_on_as_each_alone(tmp_path):
    bare = folder(tmp_path)
    language = Causal(checkpoint=str(tmp_path)).eval()
    ids = torch.randint(0, 300, (2, 10))
    prompts = Layout(torch.tensor([[0] * 9, [0] * 5 + [-1] * 4]), *(torch.ones(2, 9, dtype=torch.bool),) * 2)
    cache = language.new_cache()
    language(language.embed(ids[:, :9]), prompts, cache)
    step = prompts.extended(Layout.causal(2, 1, positions=torch.tensor([[9], [5]])))
    hidden = language(language.embed(ids[:, 9:]), step, cache)
    rows = [ids[:1], torch.cat([ids[1:, :5], ids[1:, 9:]], 1)]
    alone = torch.cat([bare(row).logits[:, -1:] for row in rows])
    torch.testing.assert_close(language.logits(hidden), alone, atol=2e-5, rtol=1e-4)
