"""Honeybee, Flamingo, Fuyu and Idefics2: import and export, and what transformers itself computes."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from chiasm.errors import CheckpointError
from chiasm.interop import Folder, export_checkpoint, find_family, import_checkpoint, recognise, verify
from chiasm.interop.convert import _numbers, build_model
from chiasm.model.checkpoint import load_model
from chiasm.recipe import load_recipe
from chiasm.sequence.layout import Layout

PLACE = os.environ.get("CHIASM_PARITY")
VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
VISION |= {"image_size": 28, "patch_size": 7}
TEXT = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT |= {"vocab_size": 60, "max_position_embeddings": 128}

DEFORMABLE = {"projector_type": "d-abs", "d_model": 20, "decoder_layers": 1, "decoder_attention_heads": 2}
DEFORMABLE |= {"decoder_ffn_dim": 12, "decoder_n_points": 3, "num_queries": 9, "pos_emb": True}
PROJECTORS = {
    "mlp": {"projector_type": "mlp", "depth": 3, "pos_emb": True, "prenorm": True, "num_eos_tokens": 2},
    "c-abs": {"projector_type": "c-abs", "depth": 2, "mlp_depth": 1, "hidden_size": 12, "num_query_tokens": 4,
              "prenorm": True, "num_eos_tokens": 1, "feature_layer_index": -2},
    "c-abs of depth 0": {"projector_type": "c-abs", "depth": 0, "mlp_depth": 2, "hidden_size": 12,
                         "num_query_tokens": 9, "pos_emb": True},
    "d-abs": {**DEFORMABLE, "pooled_v_target": "tgt", "num_eos_tokens": 2},
    "d-abs of levels": {**DEFORMABLE, "pooled_v_target": "none", "num_feature_levels": 2,
                        "feature_layer_index": [-1, 1]},
    "resampler": {"projector_type": "resampler", "hidden_size": 12, "num_hidden_layers": 2,
                  "num_attention_heads": 3, "intermediate_size": 20, "num_query_tokens": 5, "pos_emb": True,
                  "num_eos_tokens": 2},
}  # fmt: skip
SHAPES = {
    "mlp": {"abstractor.eos_tokens": (1, 2, 32), "abstractor.prenorm.weight": (16,)},
    "c-abs": {"abstractor.net.0.b1.downsample.conv.weight": (12, 16, 1, 1),
              "abstractor.readout.0.weight": (32, 12)},
    "c-abs of depth 0": {"abstractor.readout.0.weight": (32, 16), "abstractor.pos_emb": (1, 16, 16)},
    "d-abs": {"abstractor.eos_tokens": (1, 2, 20), "abstractor.v_pos_emb": (1, 16, 20),
              "abstractor.input_proj.0.weight": (20, 16), "abstractor.output_proj.weight": (32, 20)},
    "d-abs of levels": {"abstractor.level_emb": (1, 2, 1, 20), "abstractor.input_proj.1.weight": (20, 16),
                        "abstractor.query_position_embeddings.weight": (9, 40),
                        "abstractor.layers.0.encoder_attn.sampling_offsets.weight": (24, 20)},
    "resampler": {"abstractor.vit_eos": (1, 2, 32), "abstractor.query_tokens": (1, 5, 12)},
}  # fmt: skip
FLAMINGO = {
    "lm": {"type": "opt", "cfg": {"hidden_size": 24, "ffn_dim": 40, "num_hidden_layers": 4,
                                  "num_attention_heads": 4,
                                  "vocab_size": 60, "max_position_embeddings": 128, "word_embed_proj_dim": 24}},
    "cross_attn_every_n_layers": 2,
    "vision": {"image_size": 28, "patch_size": 7, "width": 16, "layers": 2, "heads": 2, "mlp_ratio": 2.0},
    "perceiver": {"depth": 2, "dim_head": 4, "heads": 2, "num_latents": 3, "max_num_media": 4, "max_num_frames": 2},
    "gated": {"dim_head": 4, "heads": 2, "only_attend_immediate_media": False},
    "media_token_id": 59,
}  # fmt: skip


def written(folder, family, config):
    """A public folder of random weights, by the family's own rules."""
    torch.manual_seed(0)
    layout = find_family(family)
    recipe = load_recipe({"name": "x", "about": "x", "model": layout.model(config), "data": {}, "stages": []})
    model = build_model(recipe.model, None)
    table = model.language.embed(torch.arange(60)).detach()
    if hasattr(model.routing, "marker"):  # one row of the table of embeddings is the marker
        model.routing.marker.data.copy_(table[config["media_token_id"]])
    names = layout.names(config)
    state = {key: tensor.contiguous() for key, tensor in names.to_theirs(model.state_dict(), "x").items()}
    folder.mkdir()
    tied = {
        key: tensor
        for key, tensor in state.items()
        if not (key.endswith("lm_head.weight") and "opt" in str(config))
    }
    save_file({key: tensor.clone() for key, tensor in tied.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    _numbers(60).save_pretrained(folder)
    return folder, state


def returns(folder, tmp_path):
    """Import and export it; the model between them."""
    import_checkpoint(folder, tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    one, other = (load_file(each / "model.safetensors") for each in (folder, tmp_path / "theirs"))
    assert one.keys() == other.keys()
    assert all(one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one)
    told = [json.loads((each / "config.json").read_text()) for each in (folder, tmp_path / "theirs")]
    assert told[0] == told[1]
    return load_model(tmp_path / "ours").eval()


def read(model, embeddings):
    return model.language.logits(model.language(embeddings, Layout.causal(1, embeddings.shape[1])))


@pytest.mark.parametrize("projector", PROJECTORS)
def test_honeybee_comes_back_bit_for_bit(tmp_path, projector):
    config = {"vision_config": VISION, "lm_config": {}, "text_config": TEXT}
    config["projector_config"] = PROJECTORS[projector]
    folder, state = written(tmp_path / "public", "honeybee", config)
    assert recognise(Folder(folder)).name == "honeybee"
    assert {key: tuple(state[key].shape) for key in SHAPES[projector]} == SHAPES[projector]
    model = returns(folder, tmp_path)
    features = model.encode(torch.rand(2, 3, 28, 28))
    assert model.connector(features).shape == (2, model.connector.tokens((4, 4)), 32)


def test_an_old_honeybee_keeps_the_class_tokens_position(tmp_path):
    config = {"vision_config": VISION, "text_config": TEXT, "projector_config": PROJECTORS["mlp"]}
    folder, _ = written(tmp_path / "public", "honeybee", config)
    tensors = load_file(folder / "model.safetensors")
    patches = tensors["abstractor.pos_emb"]
    tensors["abstractor.pos_emb"] = torch.cat([torch.randn(1, 1, 16), patches], 1)
    save_file(tensors, folder / "model.safetensors")
    model = returns(folder, tmp_path)
    assert torch.equal(model.connector.positions.table.flatten(0, 1), patches[0])


def test_flamingo_comes_back_bit_for_bit(tmp_path):
    folder, state = written(tmp_path / "public", "flamingo", FLAMINGO)
    assert recognise(Folder(folder)).name == "flamingo"
    assert state["perceiver.media_time_embs"].shape == (4, 1, 16)
    assert state["perceiver.frame_embs"].shape == (2, 16)
    layers = {key.split(".")[4] for key in state if "gated_cross_attn_layer" in key}
    assert layers == {"1", "3"}
    model = returns(folder, tmp_path)
    assert torch.equal(model.routing.marker[0], model.language.embed(torch.tensor(59)))


def test_a_published_flamingo_borrows_what_it_does_not_hold(tmp_path):
    from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    lm, clip = (
        LlamaForCausalLM(LlamaConfig(**{**TEXT, "vocab_size": 58})),
        CLIPVisionModel(CLIPVisionConfig(**VISION)),
    )
    lm.save_pretrained(tmp_path / "lm")
    clip.save_pretrained(tmp_path / "clip")
    config = {**FLAMINGO, "lm": {"type": "llama", "cfg": TEXT}}
    config["vision"] = {**FLAMINGO["vision"], "layers": 3}
    _, state = written(tmp_path / "whole", "flamingo", config)
    config["lm"] = {**config["lm"], "checkpoint": str(tmp_path / "lm")}
    config["vision"] = {**config["vision"], "checkpoint": str(tmp_path / "clip")}
    trained = ("perceiver.", "embed_tokens", "gated_cross_attn_layer")
    state = {key: t.clone() for key, t in state.items() if any(part in key for part in trained)}
    (tmp_path / "public").mkdir()
    save_file(state, tmp_path / "public" / "model.safetensors")
    (tmp_path / "public" / "config.json").write_text(json.dumps(config))
    _numbers(60).save_pretrained(tmp_path / "public")
    model = returns(tmp_path / "public", tmp_path)
    ours, theirs = model.language.inner.state_dict(), lm.state_dict()
    assert torch.equal(ours["lm_head.weight"][:58], theirs["lm_head.weight"])
    assert torch.equal(ours["model.layers.1.mlp.up_proj.weight"], theirs["model.layers.1.mlp.up_proj.weight"])
    pixels = torch.rand(1, 3, 28, 28)
    with torch.no_grad():
        states = clip((pixels - model.encoder.mean) / model.encoder.deviation, output_hidden_states=True)
        torch.testing.assert_close(model.encode(pixels).flatten(1, 2), states.hidden_states[-1][:, 1:])


def test_flamingo_normalises_images_as_its_preprocessor_says(tmp_path):
    folder, _ = written(tmp_path / "public", "flamingo", FLAMINGO)
    prepared = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.1, 0.2, 0.3]}
    (folder / "preprocessor_config.json").write_text(json.dumps(prepared))
    encoder = returns(folder, tmp_path).encoder
    torch.testing.assert_close(encoder.mean.flatten(), torch.tensor(prepared["image_mean"]))
    torch.testing.assert_close(encoder.deviation.flatten(), torch.tensor(prepared["image_std"]))


@pytest.mark.parametrize(
    ("prepared", "said"),
    [
        ({"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27] * 3}, r"image_mean is \[0.48, 0.46, 0.41\]"),
        ({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}, r"image_std is \[0.25, 0.25, 0.25\]"),
        ({"do_normalize": False}, r"image_mean is \[0.0, 0.0, 0.0\] in effect"),
        ({"image_mean": [0.5] * 3}, "image_mean and image_std belong together"),
        ({"image_mean": ["x"] * 3, "image_std": [1] * 3}, "has to be a number, or one for each colour"),
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}, None),
    ],
)
def test_fuyu_normalises_by_a_half_and_nothing_else(tmp_path, prepared, said):
    text = {**TEXT, "model_type": "persimmon", "qk_layernorm": True}
    config = {"model_type": "fuyu", "text_config": text, "patch_size": 4, "image_token_id": 58}
    folder, _ = written(tmp_path / "public", "fuyu", config)
    (folder / "preprocessor_config.json").write_text(json.dumps(prepared))
    if said is None:
        import_checkpoint(folder, tmp_path / "ours")
        return
    with pytest.raises(CheckpointError, match=said):
        import_checkpoint(folder, tmp_path / "ours")


def test_fuyu_comes_back_and_computes_what_transformers_does(tmp_path):
    from transformers import FuyuConfig, FuyuForCausalLM

    torch.manual_seed(0)
    text = {**TEXT, "model_type": "persimmon", "qk_layernorm": True}
    theirs = FuyuForCausalLM(FuyuConfig(text_config=text, patch_size=4, image_token_id=58)).eval()
    theirs.save_pretrained(tmp_path / "public")
    _numbers(60).save_pretrained(tmp_path / "public")
    model = returns(tmp_path / "public", tmp_path)
    assert recognise(Folder(tmp_path / "public")).name == "fuyu"
    assert torch.equal(model.views.markers[0], model.language.embed(torch.tensor(59)))
    ids = torch.randint(0, 58, (1, 9))
    with torch.no_grad():
        torch.testing.assert_close(read(model, model.language.embed(ids)), theirs(input_ids=ids).logits)


def test_fuyus_row_end_is_the_word_that_its_tokenizer_has_for_it(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "fuyu", "vocab_size": 90}')
    (tmp_path / "tokenizer.json").write_text(
        '{"model": {"vocab": [["a", 0], ["|NEWLINE|", 0]]}, "added_tokens": []}'
    )
    folder = Folder(tmp_path)
    folder.tensors = {}
    assert find_family("fuyu").read(folder).config["newline_token_id"] == 1


def test_idefics2_comes_back_and_computes_what_transformers_does(tmp_path):
    from transformers import Idefics2Config, Idefics2ForConditionalGeneration

    torch.manual_seed(0)
    perceiver = {
        "resampler_n_latents": 3,
        "resampler_depth": 2,
        "resampler_n_heads": 4,
        "num_key_value_heads": 2,
    }
    perceiver |= {"resampler_head_dim": 6, "hidden_size": 32}
    text = {**TEXT, "model_type": "mistral", "num_key_value_heads": 2}
    config = Idefics2Config(
        vision_config=VISION, text_config=text, perceiver_config=perceiver, image_token_id=59
    )
    theirs = Idefics2ForConditionalGeneration(config).eval()
    theirs.save_pretrained(tmp_path / "public")
    _numbers(60).save_pretrained(tmp_path / "public")
    model = returns(tmp_path / "public", tmp_path)
    pixels = torch.rand(1, 3, 14, 28)
    normalised = (pixels - model.encoder.mean) / model.encoder.deviation
    ids = torch.tensor([[5, 59, 59, 59, 7]])
    with torch.no_grad():
        expected = theirs(input_ids=ids, pixel_values=normalised[None]).logits
        embeddings = model.language.embed(ids)
        embeddings[:, 1:4] = model.connector(model.encode(pixels))
        torch.testing.assert_close(read(model, embeddings), expected)


def test_options_that_are_not_known_are_named():
    with pytest.raises(CheckpointError, match=r"lm\.type is 'bert'"):
        find_family("flamingo").model({**FLAMINGO, "lm": {"type": "bert", "cfg": {}}})
    config = {"vision_config": VISION, "text_config": TEXT}
    with pytest.raises(CheckpointError, match="7 query tokens are no square"):
        find_family("honeybee").model(
            {**config, "projector_config": {**PROJECTORS["c-abs"], "num_query_tokens": 7}}
        )


@pytest.mark.skipif(not PLACE, reason="CHIASM_PARITY does not name the folder of parity cases")
@pytest.mark.parametrize("case", ["flamingo", "perceiver_resampler", "fuyu", "honeybee"])
def test_every_case_agrees(case):
    results = verify([Path(PLACE or "") / case])
    assert results
    assert not [str(each) for each in results if not each.agrees]
