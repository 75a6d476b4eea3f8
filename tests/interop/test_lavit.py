"""LaVIT: parity, and a small folder of the published layout."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from chiasm.data.documents import draw_prompt
from chiasm.data.sample import Message, Sample
from chiasm.errors import CheckpointError
from chiasm.heads import Sampling
from chiasm.inference.drawing import draw
from chiasm.interop import Folder, export_checkpoint, find_family, import_checkpoint, recognise, verify
from chiasm.interop.convert import _numbers, build_model
from chiasm.interop.families.lavit import BEGIN, HIGH, LOW, _place
from chiasm.model.checkpoint import load_model
from chiasm.nn.generators import Generators
from chiasm.recipe import load_recipe

PLACE = os.environ.get("CHIASM_PARITY")
CODES = 24
TOKENIZER = {"img_size": 28, "patch_size": 7, "width": 32, "vit_layers": 2, "vit_mlp_ratio": 1.51, "head_width": 2,
             "layers": 1, "mlp_ratio": 1.51, "heads": 16, "n_code": CODES, "code_dim": 6}  # fmt: skip
LLAMA = {"model_type": "llama", "vocab_size": BEGIN + 2 + CODES, "hidden_size": 8, "intermediate_size": 16,
         "num_hidden_layers": 1, "num_attention_heads": 2}  # fmt: skip
SHAPE = {"width": 16, "depth": 1, "hidden": 24, "out_width": 32}
UNET = {"sample_size": 4, "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4,
        "attention_head_dim": 2, "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]}  # fmt: skip
SDXL = {"cross_attention_dim": 2048, "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 1328}  # fmt: skip
VAE = {"block_out_channels": [8] * 4, "down_block_types": ["DownEncoderBlock2D"] * 4,
       "up_block_types": ["UpDecoderBlock2D"] * 4, "norm_num_groups": 4}  # fmt: skip
SAID = Sample("a prompt", (Message("user", ("<5>",)),))
SCHEDULER = {"_class_name": "DDIMScheduler", "clip_sample": False, "set_alpha_to_one": False}


@pytest.mark.skipif(not PLACE, reason="CHIASM_PARITY does not name the folder of parity cases")
def test_every_case_agrees():
    results = verify([Path(PLACE or "") / "lavit"])
    assert results
    assert not [str(each) for each in results if not each.agrees]


def publish(folder, kind):
    """A folder of the published layout with random weights; returns its config."""
    told = {"tokenizer": TOKENIZER, "language": LLAMA, "draw_marker": "<|image|>", "drawn": kind,
            "decoders": {LOW: SHAPE}, "vae": VAE, "scheduler": SCHEDULER,
            "unet": {**UNET, "cross_attention_dim": 12}}  # fmt: skip
    if kind == "high":
        told |= {"unet": {**UNET, **SDXL}, "decoders": {LOW: SHAPE, HIGH: SHAPE}}
    else:
        told["empty_tokens"] = 5
    layout = find_family("lavit")
    recipe = load_recipe({"name": "x", "model": layout.model(told), "data": {}, "stages": []})
    (folder / "language_model").mkdir(parents=True)
    _numbers(BEGIN).save_pretrained(folder / "language_model")
    model = build_model(recipe.model, folder / "language_model")
    torch.manual_seed(3)
    names, ours = layout.names(told), model.state_dict()
    for tensor in ours.values():
        if tensor.is_floating_point():
            tensor.uniform_(-0.2, 0.2)
    files = {}
    for name, tensor in names.to_theirs(ours, "here").items():
        if not name.startswith("read/"):  # what reads begins as what tokenizes
            file, key = _place(name)
            files.setdefault(file, {})[key] = tensor.clone()
    for file, tensors in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        torch.save(tensors.get("", tensors), folder / file)
    below = folder / ("highres_pixel_decoding" if kind == "high" else "pixel_decoding")
    for place, content in (
        (below / "unet/config.json", told["unet"]),
        (below / "vae/config.json", VAE),
        (below / "scheduler/scheduler_config.json", SCHEDULER),
        (folder / "language_model/config.json", LLAMA),
    ):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(content))
    return told


@pytest.fixture(params=["high", "low"])
def published(request, tmp_path):
    publish(tmp_path / "public", request.param)
    return tmp_path / "public"


def test_the_published_folder_is_recognised_and_comes_back_bit_for_bit(published, tmp_path):
    assert recognise(Folder(published)).name == "lavit"
    import_checkpoint(published, tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "back")
    before, after = (find_family("lavit").read(Folder(place)) for place in (published, tmp_path / "back"))
    assert before.config == after.config
    assert before.tensors.keys() == after.tensors.keys()
    assert (tmp_path / "back/language_model/tokenizer.json").is_file()
    assert all(torch.equal(tensor, after.tensors[name]) for name, tensor in before.tensors.items())


def test_an_imported_model_draws_and_reads_its_own_picture(published, tmp_path):
    model = load_model(import_checkpoint(published, tmp_path / "ours")).eval()
    model.image_head.shortest = 3
    assert model.language.tokenizer.draw == BEGIN
    (picture,) = model.generate("<5>", seed=1, guidance=3.0, top_k=50)
    assert picture.size == (32, 32)
    assert model.chat([{"role": "user", "content": [picture, "<7>"]}], tokens=2).text is not None


def test_guidance_leads_away_from_the_lone_marker(published, tmp_path):
    model = load_model(import_checkpoint(published, tmp_path / "ours"))
    prompt = draw_prompt(model.contract, SAID)
    assert prompt.ids == [5, BEGIN]
    assert draw_prompt(model.contract, SAID, unconditional=True).ids == [BEGIN]


def test_the_codes_that_are_drawn_are_codes_and_then_the_end(published, tmp_path):
    model = load_model(import_checkpoint(published, tmp_path / "ours")).eval()
    model.image_head.shortest = 3
    prompts = [draw_prompt(model.contract, SAID)] * 4
    codes = draw(model, prompts, Sampling(), generators=Generators(range(4)))
    end = model.image_head.end
    for row in codes[:, 0].tolist():
        ended = row.index(end) if end in row else len(row)
        assert set(row[ended:]) <= {end}
    assert bool((codes[:, :, :1] < end).all())


def test_what_reads_and_what_tokenizes_have_one_tower_in_the_layout(published, tmp_path):
    import_checkpoint(published, tmp_path / "ours")
    place = tmp_path / "ours" / "model.safetensors"
    tensors = load_file(place)
    tensors["connector.merger.norm.weight"] += 1
    save_file(tensors, place)
    (tmp_path / "ours" / "checksums.json").unlink()
    with pytest.raises(CheckpointError, match="trained apart"):
        export_checkpoint(tmp_path / "ours", tmp_path / "back")
