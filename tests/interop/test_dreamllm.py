"""DreamLLM: parity, and a small folder of the published layout."""

import json
import os
from pathlib import Path

import pytest
import torch

from chiasm.data.documents import draw_prompt
from chiasm.data.sample import Message, Sample
from chiasm.errors import CheckpointError
from chiasm.heads import Sampling
from chiasm.inference.drawing import draw
from chiasm.interop import Folder, export_checkpoint, find_family, import_checkpoint, recognise, verify
from chiasm.interop.convert import _numbers, build_model
from chiasm.interop.families.dreamllm import MARKERS, PREFIXES
from chiasm.model.checkpoint import load_model
from chiasm.recipe import load_recipe
from chiasm.storage.folders import write_tensors

PLACE = os.environ.get("CHIASM_PARITY")
WORDS = 20
CLIP = {"model_type": "clip_vision_model", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 3,
        "num_attention_heads": 2, "patch_size": 7, "image_size": 14}  # fmt: skip
UNET = {"sample_size": 4, "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4,
        "attention_head_dim": 2, "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "cross_attention_dim": 12}  # fmt: skip
VAE = {"block_out_channels": [8, 8], "down_block_types": ["DownEncoderBlock2D"] * 2,
       "up_block_types": ["UpDecoderBlock2D"] * 2, "norm_num_groups": 4, "layers_per_block": 1}  # fmt: skip
SCHEDULER = {"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "skip_prk_steps": True,
             "beta_schedule": "scaled_linear", "set_alpha_to_one": False, "steps_offset": 1}  # fmt: skip
PROMPT = Sample("a prompt", (Message("user", ("<5>",)),))


@pytest.mark.skipif(not PLACE, reason="CHIASM_PARITY does not name the folder of parity cases")
def test_every_case_agrees():
    results = verify([Path(PLACE or "") / "dreamllm"])
    assert results
    assert not [str(each) for each in results if not each.agrees]


def config_of(place, **head):
    """A config.json whose plug-ins name the towers in `place`."""
    width = {"embed_hidden_size": 8}
    plugins = {
        "clip_vision_embedding": {
            "_target_": "omni.CLIPVisionEmbedding",
            "clip_vision_model_name_or_path": f"{place}/clip",
            "projector_type": "mlp",
            "projector_depth": 2,
            "select_layer": -2,
            "use_additional_post_layernorm": False,
            "freeze_projector": False,
            **width,
        },
        "dream_embedding": {"num_dream_queries": 3, "freeze_dream_queries": False, **width},
        "stable_diffusion_head": {
            "diffusion_name_or_path": f"{place}/sd",
            "projector_type": "linear",
            "projector_depth": 1,
            "drop_prob": None,
            **width,
            **head,
        },
    }
    return {
        "model_type": "dreamllm", "vocab_size": WORDS + 4, "hidden_size": 8, "intermediate_size": 16,
        "num_hidden_layers": 1, "num_attention_heads": 2, "loss_weight_vm": 10.0, "plugins_type": {},
        "special_tokens2ids_dict": {"</s>": 2}, "plugins_init_kwargs": plugins,
    }  # fmt: skip


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def published(tmp_path):
    """A folder of the published layout with random weights, and beside it the towers' configs that it names."""
    folder, place = tmp_path / "public", tmp_path / "towers"
    write(place / "clip/config.json", CLIP)
    for name, content in {
        "unet/config": UNET,
        "vae/config": VAE,
        "scheduler/scheduler_config": SCHEDULER,
    }.items():
        write(place / f"sd/{name}.json", content)
    config = config_of(place)
    write(folder / "config.json", config)
    words = _numbers(WORDS)
    words.add_tokens(list(MARKERS.values()), special_tokens=True)
    words.save_pretrained(folder)
    layout = find_family("dreamllm")
    own = {
        "config": config,
        "clip": CLIP,
        "unet": UNET,
        "vae": VAE,
        "scheduler": SCHEDULER,
        "markers": MARKERS,
    }
    recipe = load_recipe({"name": "x", "model": layout.model(own), "data": {}, "stages": []})
    model = build_model(recipe.model, folder)
    torch.manual_seed(3)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(-0.2, 0.2)
    files = {}
    for key, tensor in layout.names(own).to_theirs(model.state_dict(), "here").items():
        plugin = next((name for name, prefix in PREFIXES.items() if key.startswith(prefix)), None)
        files.setdefault(plugin, {})[key.removeprefix(PREFIXES.get(plugin, ""))] = tensor.clone()
    write_tensors(folder / "model.safetensors", files.pop(None))
    for plugin, tensors in files.items():
        torch.save(tensors, folder / f"{plugin}.bin")
    return folder


def test_the_published_folder_is_recognised_and_comes_back_bit_for_bit(published, tmp_path):
    assert recognise(Folder(published)).name == "dreamllm"
    import_checkpoint(published, tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "back")
    before, after = (find_family("dreamllm").read(Folder(place)) for place in (published, tmp_path / "back"))
    assert before.config == after.config
    assert before.tensors.keys() == after.tensors.keys()
    assert all(torch.equal(tensor, after.tensors[name]) for name, tensor in before.tensors.items())


def test_an_imported_model_draws_and_reads_its_own_image(published, tmp_path):
    model = load_model(import_checkpoint(published, tmp_path / "ours")).eval()
    (image,) = model.generate("<5>", seed=1, guidance=7.5)
    assert image.size == (8, 8)
    assert model.chat([{"role": "user", "content": [image, "<7>"]}], tokens=2).text is not None


def test_a_prompt_becomes_conditions_beside_those_of_the_empty_prompt(published, tmp_path):
    model = load_model(import_checkpoint(published, tmp_path / "ours")).eval()
    prompts = [
        draw_prompt(model.contract, Sample("a prompt", (Message("user", (word,)),)))
        for word in ("<5>", "<6>")
    ]
    with torch.no_grad():
        pairs = draw(model, prompts, Sampling(guidance=7.5))
    assert pairs.shape == (2, 2, 1, 3, UNET["cross_attention_dim"])
    assert not torch.equal(pairs[0, 0], pairs[1, 0])
    torch.testing.assert_close(pairs[0, 1], pairs[1, 1])


def test_guidance_leads_away_from_queries_behind_an_empty_prompt(published, tmp_path):
    model = load_model(import_checkpoint(published, tmp_path / "ours"))
    start = model.language.tokenizer.inner.convert_tokens_to_ids("<dream_start>")
    assert draw_prompt(model.contract, PROMPT).ids == [1, 5, start]
    assert draw_prompt(model.contract, PROMPT, unconditional=True).ids == [1, start]


@pytest.mark.parametrize("plugin", PREFIXES)
def test_a_plug_in_without_its_file_is_an_error_that_names_it(published, tmp_path, plugin):
    (published / f"{plugin}.bin").unlink()
    with pytest.raises(CheckpointError, match=f"has no {plugin}.bin, which holds its plug-in '{plugin}'"):
        import_checkpoint(published, tmp_path / "ours")


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"projector_type": "conv"}, "projector_type is 'conv', but is known as 'linear' or 'mlp' only"),
        ({"projector_depth": 2}, "projector_depth is 2, which projector_type 'linear' cannot have"),
        ({"embed_hidden_size": 16}, "embed_hidden_size is 16, but is known as 8 only"),
        ({"novelty": 1}, "neither uses nor knows to be without effect: .*stable_diffusion_head.novelty = 1"),
    ],
)
def test_a_plug_in_of_another_kind_is_refused_by_name(published, tmp_path, head, message):
    write(published / "config.json", config_of(tmp_path / "towers", **head))
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(published, tmp_path / "ours")


def test_a_diffusion_model_without_its_autoencoder_is_an_error_that_names_the_file(published, tmp_path):
    (tmp_path / "towers/sd/vae/config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no vae/config\.json"):
        import_checkpoint(published, tmp_path / "ours")
