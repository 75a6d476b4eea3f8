"""LLaVA-UHD: parity, and a small public folder that chats, is trained on and comes back bit for bit."""

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file

from chiasm.errors import CheckpointError
from chiasm.interop import Folder, export_checkpoint, find_family, import_checkpoint, recognise, verify
from chiasm.interop.convert import build_model
from chiasm.language.text import TextTokenizer
from chiasm.model.checkpoint import load_model
from chiasm.recipe import load_recipe
from chiasm.training.train import train

PLACE = os.environ.get("CHIASM_PARITY")
CLIP = {"model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 336, "patch_size": 84}  # fmt: skip
CONFIG = {"model_type": "llava_llama", "architectures": ["LlavaLlamaForCausalLM"], "hidden_size": 32,
          "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
          "vocab_size": 340, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
          "mm_projector_type": "adapt_spatial_resampler", "mm_vision_tower": "clip", "mm_hidden_size": 16,
          "mm_vision_select_layer": -2, "mm_vision_select_feature": "patch", "mm_patch_merge_type": "flat",
          "image_aspect_ratio": "pad", "mm_use_im_start_end": False, "mm_use_im_patch_token": False,
          "tokenizer_model_max_length": 2048, "tokenizer_padding_side": "right", "use_mm_proj": True}  # fmt: skip
FAMILY = {"config": CONFIG, "vision_config": CLIP, "resampler": {"grid_size": 2, "num_heads": 1},
          "separators": ["<3>", "<4>"]}  # fmt: skip


@pytest.fixture
def public(tmp_path):
    """A folder of random tensors of every name that the family knows."""
    family = find_family("llava-uhd")
    recipe = load_recipe({"name": "x", "about": "x", "model": family.model(FAMILY), "data": {}, "stages": []})
    ours = {
        key: torch.randn_like(tensor) * 0.1
        for key, tensor in build_model(recipe.model, None).state_dict().items()
        if not key.endswith((".mean", ".deviation"))
    }
    tensors = family.names(FAMILY).to_theirs(ours, "here")
    (tmp_path / "public/clip").mkdir(parents=True)
    save_file(
        {key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / "public/model.safetensors"
    )
    (tmp_path / "public/config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "public/clip/config.json").write_text(json.dumps(CLIP))
    prepared = {"image_processor_type": "CLIPImageProcessor", "do_center_crop": True, "crop_size": 336,
                "size": {"shortest_edge": 336}, "image_mean": [0.4] * 3, "image_std": [0.2] * 3}  # fmt: skip
    (tmp_path / "public/clip/preprocessor_config.json").write_text(json.dumps(prepared))
    words = TextTokenizer.train(["Where is the dog? At the left.", "How many? Two."], 300)
    words.inner.chat_template = None
    words.save(tmp_path / "public")
    return tmp_path / "public"


@pytest.mark.skipif(not PLACE, reason="CHIASM_PARITY does not name the folder of parity cases")
def test_every_case_agrees():
    results = verify([Path(PLACE or "") / "llava_uhd"])
    assert len(results) == 3
    assert not [str(each) for each in results if not each.agrees]


def test_a_folder_chats_is_trained_on_and_comes_back_bit_for_bit(public, tmp_path):
    assert recognise(Folder(public)).name == "llava-uhd"
    imported = import_checkpoint(public, tmp_path / "ours")
    model = load_model(imported)
    assert model.encoder.mean.flatten().tolist() == pytest.approx([0.4] * 3)
    assert (model.views.slicing.size, model.views.slicing.slices, model.views.longest) == (336, 7, 1024)
    image = Image.new("RGB", (40, 40), "red")  # at 1024 pixels nine squares: six slices
    assert isinstance(str(model.chat([{"role": "user", "content": [image, "Where?"]}], tokens=2)), str)
    export_checkpoint(imported, tmp_path / "theirs")
    again, tensors = (load_file(each / "model.safetensors") for each in (tmp_path / "theirs", public))
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[key], tensors[key]) for key in tensors)
    assert json.loads((tmp_path / "theirs/config.json").read_text()) == CONFIG
    data = {"type": "world", "scenes": 4, "emoji": 6, "grid": 2, "objects": [1, 2], "canvas": 32}
    rates = {"encoder": 1e-3, "connector": 1e-3, "language": 1e-3}
    stage = {"name": "tune", "train": rates, "data": {"world": 1.0}, "steps": 1, "rows": 1, "length": 256}
    recipe = {"name": "on", "start": str(imported), "data": {"world": data}, "stages": [stage]}
    train(load_recipe(recipe), tmp_path / "run", console=Console(quiet=True))
    after = load_model(tmp_path / "run")
    assert not torch.equal(after.connector.queries, model.connector.queries)
    assert torch.equal(after.connector.query_positions, model.connector.query_positions)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mm_patch_merge_type": "spatial_unpad"}, "mm_patch_merge_type"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end"),
        ({"tilt": 3}, "tilt"),
    ],
)
def test_what_has_no_part_is_refused_by_name(change, words):
    with pytest.raises(CheckpointError, match=words):
        find_family("llava-uhd").plan({**FAMILY, "config": {**CONFIG, **change}}, [], "the checkpoint")


def test_another_tokenizer_than_llamas_is_refused(public):
    """Its code puts ids 29892 and 13 between slices, whatever they are."""
    path = public / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    rest = {f"word {n}": n for n in range(len(tokenizer["model"]["vocab"]) + 4, 29900)}
    tokenizer["model"]["vocab"] |= rest
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(CheckpointError, match="29892 and 13"):
        import_checkpoint(public, public.parent / "ours")


def test_the_later_projectors_are_refused_by_name(public):
    (public / "config.json").write_text(
        json.dumps({**CONFIG, "mm_projector_type": "adapt_spatial_resampler_v2"})
    )
    with pytest.raises(CheckpointError, match="adapt_spatial_resampler_v2"):
        import_checkpoint(public, public.parent / "ours")
