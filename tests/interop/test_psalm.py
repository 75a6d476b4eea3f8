"""PSALM: parity, and a small public folder that chats and comes back bit for bit."""

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from chiasm.errors import CheckpointError
from chiasm.interop import Folder, export_checkpoint, find_family, import_checkpoint, recognise, verify
from chiasm.interop.convert import build_model
from chiasm.interop.families import psalm
from chiasm.language.text import TextTokenizer
from chiasm.model.checkpoint import load_model
from chiasm.recipe import load_recipe

PLACE = os.environ.get("CHIASM_PARITY")
PHI = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
       "vocab_size": 330, "max_position_embeddings": 256, "partial_rotary_factor": 0.5, "hidden_act": "gelu_new",
       "layer_norm_eps": 1e-5, "qk_layernorm": False, "tie_word_embeddings": False}  # fmt: skip
SWIN = {"embed_dim": 4, "depths": [1, 2, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 2, "mlp_ratio": 2.0}
FORMER = {"HIDDEN_DIM": 32, "NUM_OBJECT_QUERIES": 3, "NHEADS": 2, "DIM_FEEDFORWARD": 24, "DEC_LAYERS": 3,
          "PRE_NORM": False, "SEG_NORM": False, "SEG_PROJ": True, "FUSE_SCORE": False, "CLASS_WEIGHT": 2.0,
          "MASK_WEIGHT": 5.0, "DICE_WEIGHT": 5.0}  # fmt: skip
HEAD = {"CONVS_DIM": 32, "MASK_DIM": 8, "COMMON_STRIDE": 4, "TRANSFORMER_ENC_LAYERS": 1,
        "DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES": ["res3", "res4", "res5"]}  # fmt: skip
OUT = {"EMBED_DIM": 4, "DEPTHS": [1, 2, 1, 1], "OUT_FEATURES": ["res2", "res3", "res4", "res5"]}
CONFIG = {"phi": PHI, "swin": SWIN, "projector_planes": 6, "pixel_decoder_ffn": 16,
          "mask_cfg": {"MODEL": {"MASK_FORMER": FORMER, "SEM_SEG_HEAD": HEAD, "SWIN": OUT}}}  # fmt: skip
PUBLIC = {**PHI, "model_type": "llava_phi", "architectures": ["PSALM"], "mask_decode_train": True,
          "mm_projector_type": "swin_conv", "mm_vision_tower": "swin.pkl", "swin_type": "small",
          "projector_outdim": 32, "mm_input_embeds": 32, "with_norm": True, "with_layernorm": False,
          "use_mm_proj": True, "mm_hidden_size": 256, "image_aspect_ratio": "square"}  # fmt: skip


@pytest.mark.skipif(not PLACE, reason="CHIASM_PARITY does not name the folder of parity cases")
def test_every_case_agrees():
    results = verify([Path(PLACE or "") / "psalm"])
    assert results
    assert not [str(each) for each in results if not each.agrees]


def with_options(**changes):
    """The config with some options of the mask decoder changed."""
    model = {"MASK_FORMER": dict(FORMER), "SEM_SEG_HEAD": dict(HEAD), "SWIN": dict(OUT)}
    for key, value in changes.items():
        model[next(name for name, section in model.items() if key in section)][key] = value
    return {**CONFIG, "mask_cfg": {"MODEL": model}}


def test_options_of_the_mask_decoder_reach_the_head():
    joined = ["res4", "res5"]
    config = with_options(
        DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES=joined, COMMON_STRIDE=8, SEG_NORM=True, PRE_NORM=True
    )
    head = find_family("psalm").model(config)["heads"]["mask"]
    assert (head["attended"], head["fused"], head["depth"]) == (2, 1, 2)
    assert head["normed"]
    assert head["prenorm"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"FUSE_SCORE": True}, "FUSE_SCORE"),
        ({"DEPTHS": [1, 1, 1, 1]}, "DEPTHS"),
        ({"DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES": ["res2", "res5"]}, "ENCODER_IN_FEATURES"),
        ({"OUT_FEATURES": ["res3", "res4", "res5"]}, "OUT_FEATURES"),
    ],
)
def test_what_has_no_part_is_refused_by_name(changes, words):
    with pytest.raises(CheckpointError, match=words):
        find_family("psalm").plan(with_options(**changes), [], "here")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A public folder of random tensors, its import, and its tensors; the code's own sizes are made small."""
    place = tmp_path_factory.mktemp("psalm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(psalm.SIZES, "small", {key: SWIN[key] for key in SWIN if key != "mlp_ratio"})
        patch.setattr(psalm, "MASK_FORMER", FORMER)
        patch.setattr(psalm, "SEM_SEG_HEAD", HEAD)
        patch.setattr(psalm, "PLANES", 6)
        patch.setattr(psalm, "HIDDEN", 16)
        patch.setattr(psalm, "IMAGE_SIZE", 64)
        config = {key: CONFIG[key] for key in ("phi", "mask_cfg")} | {"swin": {**SWIN, "mlp_ratio": 4.0}}
        family = find_family("psalm")
        recipe = load_recipe(
            {"name": "x", "about": "x", "model": family.model(config), "data": {}, "stages": []}
        )
        ours = {
            key: torch.randn_like(tensor) * 0.1 if tensor.is_floating_point() else tensor
            for key, tensor in build_model(recipe.model, None).state_dict().items()
            if not key.endswith((".mean", ".deviation"))
        }
        ours = {
            key: tensor.abs() + 0.5 if key.endswith("running_var") else tensor for key, tensor in ours.items()
        }
        ours["language.inner.lm_head.bias"].zero_()
        tensors = family.names(config).to_theirs(ours, "here")
        tensors |= {"predictor.query_feat.weight": torch.randn(3, 32)}
        (place / "public").mkdir()
        save_file(
            {key: each.contiguous() for key, each in tensors.items()}, place / "public/model.safetensors"
        )
        (place / "public/config.json").write_text(json.dumps(PUBLIC))
        words = TextTokenizer.train(["Where is the dog? At the left.", "How many? Two."], 300)
        words.inner.chat_template = None
        words.save(place / "public")
        import_checkpoint(place / "public", place / "ours")
        yield place, tensors


def test_a_folder_chats_and_comes_back_bit_for_bit(folders, tmp_path):
    place, tensors = folders
    assert recognise(Folder(place / "public")).name == "psalm"
    model = load_model(place / "ours")
    model.chat([{"role": "user", "content": [Image.new("RGB", (64, 40), "red"), "Where?"]}], tokens=2)
    export_checkpoint(place / "ours", tmp_path / "theirs")
    again = load_file(tmp_path / "theirs/model.safetensors")
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[key], tensors[key]) for key in tensors)
    assert json.loads((tmp_path / "theirs/config.json").read_text()) == PUBLIC


def test_its_conversation_is_the_originals(folders):
    place, _ = folders
    tokenizer = load_model(place / "ours").language.tokenizer
    text = tokenizer.inner.apply_chat_template(
        [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."},
         {"role": "user", "content": "Three?"}],
        tokenize=False,
    )  # fmt: skip
    end = tokenizer.inner.eos_token
    assert (
        text
        == f"[INST] <<SYS>>\n{psalm.SYSTEM}\n<</SYS>>\n\nOne? [/INST] Two. {end}{end}[INST] Three? [/INST]"
    )


def test_a_bias_that_their_layout_has_not_is_a_sentence():
    names = find_family("psalm").names(CONFIG)
    ours = {"language.inner.lm_head.weight": torch.ones(4, 2), "language.inner.lm_head.bias": torch.ones(4)}
    with pytest.raises(CheckpointError, match=r"lm_head\.bias .*the bias is not 0"):
        names.to_theirs(ours, "here")
