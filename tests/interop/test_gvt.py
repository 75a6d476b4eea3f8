"""GVT: parity, and a small folder that comes back bit for bit."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from chiasm.interop import Folder, export_checkpoint, find_family, import_checkpoint, recognise, verify
from chiasm.interop.convert import _numbers, build_model
from chiasm.model.checkpoint import load_model
from chiasm.recipe import load_recipe

PLACE = os.environ.get("CHIASM_PARITY")
EVA = {"img_size": 28, "patch_size": 7, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2.6667}
EVA02 = {
    "rope": True,
    "pt_hw_seq_len": 4,
    "intp_freq": True,
    "naiveswiglu": True,
    "subln": True,
    "qkv_bias": True,
}


def config(**options):
    return {
        "visual_encoder": {**EVA, **options},
        "perceiver": {"dim": 16, "dim_head": 4, "depth": 1, "heads": 2, "num_latents": 3, "num_media_embeds": 1},
        "llm_hidden": 16,
        "llm": {"model_type": "llama", "vocab_size": 80, "hidden_size": 16, "intermediate_size": 32,
                "num_hidden_layers": 1, "num_attention_heads": 2},
    }  # fmt: skip


@pytest.mark.skipif(not PLACE, reason="CHIASM_PARITY does not name the folder of parity cases")
def test_every_case_agrees():
    results = verify([Path(PLACE or "") / "gvt"])
    assert results
    assert not [str(each) for each in results if not each.agrees]


@pytest.mark.parametrize(
    "options",
    [EVA02, {}, {"subln": True, "init_values": 0.1, "postnorm": True}, {"use_abs_pos_emb": False, "rope": True,
     "pt_hw_seq_len": 16, "intp_freq": True, "qkv_bias": True}],
)  # fmt: skip
def test_the_folder_comes_back_bit_for_bit(tmp_path, options):
    told, layout, public = config(**options), find_family("gvt"), tmp_path / "public"
    recipe = load_recipe({"name": "x", "about": "x", "model": layout.model(told), "data": {}, "stages": []})
    ours = build_model(recipe.model, None).state_dict()
    ours = {
        key: torch.randn_like(value) for key, value in ours.items() if not key.endswith(("mean", "deviation"))
    }
    theirs = layout.names(told).to_theirs(ours, "here") | {"input_ln.weight": torch.randn(16)}
    theirs["visual_encoder.fc_norm.weight"] = torch.randn(16)
    public.mkdir()
    (public / "config.json").write_text(json.dumps(told))
    save_file({key: value.contiguous() for key, value in theirs.items()}, public / "model.safetensors")
    _numbers(80).save_pretrained(public)
    assert "perceiver.media_pos_emb" in theirs
    assert recognise(Folder(public)).name == "gvt"
    import_checkpoint(public, tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    again = load_file(tmp_path / "theirs/model.safetensors")
    assert again.keys() == theirs.keys()
    assert all(torch.equal(again[key], theirs[key]) for key in theirs)
    model = load_model(tmp_path / "ours")
    assert model.connector(model.encoder(torch.rand(1, 3, 28, 28))).shape == (1, 3, 16)
