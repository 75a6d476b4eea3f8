"""Language models of transformers behind Chiasm's interface."""

import json
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from chiasm.errors import CheckpointError, RecipeError
from chiasm.language.causal import Causal
from chiasm.language.documents_apart import check_positions
from chiasm.language.text import TextTokenizer
from chiasm.sequence.layout import Layout

TEXTS = ["the red square stands on the blue field", "蓝色的天空下有一只猫"] * 20
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
}
FAMILIES = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "gemma": {"head_dim": 8},
    "phi3": {"pad_token_id": 0},
    "gpt_neox": {},
}
MPT = {"d_model": 48, "n_layers": 2, "n_heads": 6, "max_seq_len": 128}


def build(family="llama", **options):
    torch.manual_seed(0)
    sizes = MPT if family == "mpt" else {**SIZES, **FAMILIES[family]}
    config = {"model_type": family, **sizes}
    if family == "gpt_neox":  # as many keys as queries
        del config["num_key_value_heads"]
    return Causal(TEXTS, config=config, vocabulary=300, **options).eval()


def read(language, ids, cache=None, before=0):
    layout = Layout.causal(ids.shape[0], before + ids.shape[1])
    if before:
        layout = replace(layout, queries=ids.shape[1])
    return language(language.embed(ids), layout, cache)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_family_from_its_config_computes_what_transformers_computes(family, tmp_path):
    language = build(family)
    assert language.context == 128
    assert language.width == 32
    language.inner.save_pretrained(tmp_path)
    bare = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="sdpa").eval()
    ids = torch.randint(0, len(language.tokenizer), (2, 17))
    assert torch.equal(
        language.logits(read(language, ids)), bare(ids).logits
    )  # the same kernels on the same shapes


@pytest.mark.parametrize("family", [*FAMILIES, "mpt"])
@torch.no_grad()
def test_a_key_value_cache_gives_the_full_forward(family):
    language = build(family)
    ids = torch.randint(0, len(language.tokenizer), (2, 12))
    full = read(language, ids)
    cache = language.new_cache()
    parts = [read(language, ids[:, :5], cache), read(language, ids[:, 5:8], cache, before=5)]
    parts += [read(language, ids[:, i : i + 1], cache, before=i) for i in range(8, 12)]
    torch.testing.assert_close(torch.cat(parts, 1), full, atol=1e-5, rtol=1e-5)


def save(language, folder):
    language.inner.save_pretrained(folder)
    language.tokenizer.save(folder)
    return folder


@torch.no_grad()
def test_a_saved_folder_gives_the_same_model(tmp_path):
    language = build("qwen2")
    again = Causal(checkpoint=str(save(language, tmp_path))).eval()
    ids = torch.randint(0, len(language.tokenizer), (1, 9))
    assert torch.equal(read(again, ids), read(language, ids))
    text = "the blue square; 天空"
    assert again.tokenizer.encode(text) == language.tokenizer.encode(text)


@pytest.mark.parametrize("tied", [True, False])
def test_the_draw_marker_enlarges_the_vocabulary_and_keeps_what_was_there(tied, tmp_path):
    torch.manual_seed(0)
    config = {"model_type": "llama", **SIZES, "tie_word_embeddings": tied}
    language = Causal(TEXTS, config=config, vocabulary=300)
    drawing = Causal((), True, checkpoint=str(save(language, tmp_path)))
    before, after = (each.inner.get_input_embeddings().weight for each in (language, drawing))
    assert drawing.tokenizer.draw == len(language.tokenizer)
    assert len(after) == len(drawing.tokenizer) == len(before) + 1
    assert torch.equal(after[:-1], before)
    assert drawing.logits(torch.zeros(1, 32)).shape == (1, len(after))
    assert (drawing.head.weight is after) == tied


def test_a_vocabulary_with_room_is_not_resized():
    config = {"model_type": "llama", **SIZES, "vocab_size": 512}
    language = Causal(TEXTS, True, config=config, vocabulary=300)
    assert language.inner.get_input_embeddings().num_embeddings == 512


@pytest.mark.parametrize("family", [*FAMILIES, "mpt"])
@torch.no_grad()
def test_a_model_is_rebuilt_from_its_standalone_options(family, tmp_path):
    language = build(family, draws=True)
    language.tokenizer.save(tmp_path)
    options = json.loads(json.dumps(language.standalone()))  # what a recipe can hold
    again = Causal((), True, **options, tokenizer=str(tmp_path)).eval()
    again.load_state_dict(language.state_dict())
    ids = torch.randint(0, len(language.tokenizer), (1, 9))
    assert again.tokenizer.draw == language.tokenizer.draw
    assert torch.equal(again.logits(read(again, ids)), language.logits(read(language, ids)))


def change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "mpt"])
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda each, name: each.pop(name), "does not fit .*: 1 missing: {name}$"),
        (
            lambda each, name: each.update({name.replace(".1.", ".2."): each[name].clone()}),
            r"1 left over: .*\.2\.",
        ),
        (lambda each, name: each.update({name: each[name][:-1].clone()}), "1 of another shape: {name}$"),
        (lambda each, name: each[name].view(-1)[0].fill_(float("nan")), "1 not finite: {name}$"),
        (lambda each, name: each[name].view(-1)[0].fill_(float("inf")), "1 not finite: {name}$"),
    ],
    ids=["missing", "left over", "another shape", "nan", "infinite"],
)
def test_a_folder_whose_tensors_are_not_the_models_is_refused_by_their_names(
    family, change, problem, tmp_path
):
    folder = save(build(family), tmp_path)
    name = next(n for n in load_file(folder / "model.safetensors") if ".1." in n and n.endswith(".weight"))
    change_tensors(folder, lambda tensors: change(tensors, name))
    with pytest.raises(CheckpointError, match=problem.format(name=re.escape(name))):
        Causal(checkpoint=str(folder))


def test_a_folder_without_a_head_is_refused_unless_the_head_is_the_table_of_words(tmp_path):
    config = {"model_type": "llama", **SIZES}
    untied = save(Causal(TEXTS, config=config, vocabulary=300), tmp_path / "untied")
    change_tensors(untied, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(CheckpointError, match=r"1 missing: lm_head\.weight"):
        Causal(checkpoint=str(untied))
    tied = Causal(TEXTS, config={**config, "tie_word_embeddings": True}, vocabulary=300)
    folder = save(tied, tmp_path / "tied")
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    again = Causal(checkpoint=str(folder))
    assert torch.equal(again.head.weight, tied.head.weight)


def test_masks_and_frequencies_of_older_checkpoints_are_no_weights(tmp_path):
    folder = save(build("gpt_neox"), tmp_path)
    layer = "gpt_neox.layers.0.attention."
    buffers = {
        layer + "bias": torch.ones(1, 1, 8, 8, dtype=torch.bool),
        layer + "masked_bias": torch.tensor(-1e9),
        layer + "rotary_emb.inv_freq": torch.ones(4),
    }
    change_tensors(folder, lambda tensors: tensors.update(buffers))
    Causal(checkpoint=str(folder))
    change_tensors(folder, lambda tensors: tensors.update({layer + "dense.scale": torch.ones(1)}))
    with pytest.raises(CheckpointError, match=r"1 left over: .*dense\.scale"):
        Causal(checkpoint=str(folder))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff" * 100], ids=["empty", "short", "no format"])
def test_a_file_of_weights_that_cannot_be_read_is_a_sentence(content, tmp_path):
    folder = save(build(), tmp_path)
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="no language model can be read from"):
        Causal(checkpoint=str(folder))


@pytest.mark.parametrize(("change", "problem"), [
    ({"hidden_size": "wide"}, "hidden_size"),
    ({"num_attention_heads": 0}, "integer modulo by zero"),
    ({"model_type": None}, "its config.json has no model_type"),
    ({"model_type": "lama"}, "lama"),
    ({"hiden_size": 64}, "its config.json has 'hiden_size', a key that transformers' llama does not know; did you "
     "mean 'hidden_size'"),
    ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "facter": 2.0}}, r"rope_parameters\.facter"),
    ({"rope_interleaved": True}, "rope_interleaved"),
])  # fmt: skip
def test_a_folders_config_is_judged_as_a_recipes_is(change, problem, tmp_path):
    file = save(build(), tmp_path) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(CheckpointError, match=problem):
        Causal(checkpoint=str(tmp_path))


def test_standalone_options_of_a_checkpoint_need_the_checkpoint_no_more(tmp_path):
    options = Causal(checkpoint=str(save(build(), tmp_path))).standalone()
    assert options["checkpoint"] is None
    assert str(tmp_path) not in json.dumps(options)


def test_soft_capped_logits_are_those_of_transformers(tmp_path):
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "gemma2",
        **SIZES,
        head_dim=8,
        vocab_size=300,
        final_logit_softcapping=0.1,
        attn_logit_softcapping=None,
    )
    bare = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    bare.save_pretrained(tmp_path)
    TextTokenizer.train(TEXTS, 300).save(tmp_path)
    language = Causal(checkpoint=str(tmp_path)).eval()
    ids = torch.randint(0, 300, (1, 9))
    with torch.no_grad():
        torch.testing.assert_close(language.logits(read(language, ids)), bare(ids).logits)


@pytest.mark.parametrize("options", [{}, {"checkpoint": "somewhere", "config": {"model_type": "llama"}}])
def test_it_takes_a_checkpoint_or_a_config_and_not_both(options):
    with pytest.raises(RecipeError, match="either a 'checkpoint' or a 'config'"):
        Causal(TEXTS, **options)


def test_a_config_without_a_model_type_is_an_error():
    with pytest.raises(RecipeError, match="needs a 'model_type', such as llama"):
        Causal(TEXTS, config={"hidden_size": 32})


@pytest.mark.parametrize("model_type", ["lama", "clip_vision_model"])
def test_a_model_type_that_is_no_language_model_is_an_error(model_type):
    with pytest.raises(
        RecipeError, match=f"transformers has no (model_type|causal language model) '{model_type}'"
    ):
        Causal(TEXTS, config={"model_type": model_type})


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        Causal(checkpoint=str(tmp_path / "missing"))


def test_a_folder_without_a_model_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"expected one file \.gguf"):
        Causal(checkpoint=str(tmp_path))


def test_a_file_that_is_no_gguf_is_an_error(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"needs a folder or a \.gguf file"):
        Causal(checkpoint=str(tmp_path / "model.bin"))


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("bloom", {"hidden_size": 16, "n_layer": 1, "n_head": 2}),
        (
            "gpt_neo",
            {"hidden_size": 16, "num_heads": 2, "num_layers": 1, "attention_types": [[["global"], 1]]},
        ),
    ],
)
def test_a_model_whose_attention_knows_no_documents_is_refused(kind, sizes):
    with pytest.raises(RecipeError, match="documents packed into one row would see each other"):
        Causal(["a b"], config={"model_type": kind, **sizes})


HYBRIDS = (
    "bamba",
    "falcon_h1",
    "jamba",
    "zamba",
    "zamba2",
    "nemotron_h",
    "qwen3_next",
    "recurrent_gemma",
    "minimax",
)


@pytest.mark.parametrize("config", [
    *({"model_type": each} for each in HYBRIDS),
    {"model_type": "lfm2", "num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]},
], ids=lambda config: config["model_type"])  # fmt: skip
def test_a_model_with_layers_that_are_no_attention_is_refused_before_it_is_built(config):
    with pytest.raises(
        RecipeError, match=r"no plain attention \(.*documents packed into one row would see each"
    ):
        Causal(["a b"], config=config)


def test_a_convolution_over_positions_is_refused_whatever_the_config_calls_it():
    inner = build().inner
    inner.model.layers[0].mix = torch.nn.Conv1d(32, 32, 3)
    with pytest.raises(RecipeError, match=r"a convolution over positions \(model.layers.0.mix\)"):
        check_positions(inner)


def test_a_model_that_is_not_told_positions_is_refused():
    """Within a row the positions of a packed document do not begin anew for it."""
    sizes = {"d_model": 32, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32,
             "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}  # fmt: skip
    with pytest.raises(RecipeError, match="BartForCausalLM takes no position_ids"):
        Causal(["a b"], config={"model_type": "bart", **sizes})


@pytest.mark.parametrize(("config", "problem"), [
    ({"hiden_size": 8}, "the llama of transformers has no key 'hiden_size'; did you mean 'hidden_size'"),
    ({"rope_scaling": {"type": "linear", "factor": 2.0, "facter": 3.0}}, "no key 'rope_scaling.facter'"),
])  # fmt: skip
def test_a_key_that_transformers_has_not_is_a_sentence(config, problem):
    with pytest.raises(RecipeError, match=problem):
        Causal(["a b"], config={"model_type": "llama", "rope_theta": 1e4, **config})


def test_a_value_of_another_type_is_a_sentence():
    with pytest.raises(RecipeError, match=r"refuses this llama config(.|\n)*hidden_size"):
        Causal(["a b"], config={"model_type": "llama", "hidden_size": "wide"})


def test_tables_of_a_model_from_scratch_begin_with_the_deviation_that_the_recipe_says():
    config = {"model_type": "gpt2", "n_embd": 64, "n_layer": 1, "n_head": 2, "n_positions": 128}
    inner = Causal(TEXTS, config={**config, "tie_word_embeddings": False}, embedding_std=0.5).inner
    for table in (inner.transformer.wte, inner.transformer.wpe):
        assert float(table.weight.detach().std()) == pytest.approx(0.5, rel=0.05)
    for layer in (inner.transformer.h[0].mlp.c_fc, inner.lm_head):  # GPT-2's own
        assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.05)


def test_a_checkpoint_has_tables_already(tmp_path):
    folder = save(build("qwen2"), tmp_path)
    with pytest.raises(RecipeError, match="embedding_std"):
        Causal(checkpoint=str(folder), embedding_std=0.5)
