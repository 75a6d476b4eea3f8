"""NExT-GPT: parity, and small folders of both public layouts."""

import json
import os
from pathlib import Path

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from chiasm.errors import CheckpointError
from chiasm.interop import Folder, export_checkpoint, find_family, import_checkpoint, recognise, verify
from chiasm.interop.convert import _numbers, build_model
from chiasm.interop.shapes.next_gpt import NEW, OLD
from chiasm.model.checkpoint import load_model
from chiasm.recipe import load_recipe
from chiasm.storage.folders import write_tensors

PLACE = os.environ.get("CHIASM_PARITY")
WIDTH, CONDITION, WORDS = 8, 12, 20
UNET = {"sample_size": 4, "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4,
        "attention_head_dim": 2, "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "cross_attention_dim": CONDITION}  # fmt: skip
VAE = {"block_out_channels": [8, 8], "down_block_types": ["DownEncoderBlock2D"] * 2,
       "up_block_types": ["UpDecoderBlock2D"] * 2, "norm_num_groups": 4, "layers_per_block": 1}  # fmt: skip
SCHEDULER = {"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "skip_prk_steps": True,
             "beta_schedule": "scaled_linear", "set_alpha_to_one": False, "clip_sample": False}  # fmt: skip
CLIP = {"model_type": "clip_vision_model", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "patch_size": 7, "image_size": 14}  # fmt: skip
LLAMA = {"hidden_size": WIDTH, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
PROJECTOR = {"type": "query_transformer", "queries": 5, "width": 8, "depth": 1, "heads": 4, "hidden": 16}
GROUP = {"type": "group", "depths": [1, 1], "group_tokens": [3, 0], "groups": [2], "width": 8, "heads": 8}


@pytest.mark.skipif(not PLACE, reason="CHIASM_PARITY does not name the folder of parity cases")
def test_every_case_agrees():
    results = verify([Path(PLACE or "") / "next_gpt"])
    assert results
    assert not [str(each) for each in results if not each.agrees]


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def words(folder, added):
    tokenizer = _numbers(WORDS)
    tokenizer.add_tokens(added)
    tokenizer.pad_token = "<0>"
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def diffusion_model(folder, unet=UNET):
    """A folder of diffusers with random weights."""
    for name, content in {
        "unet/config": unet,
        "vae/config": VAE,
        "scheduler/scheduler_config": SCHEDULER,
    }.items():
        write(folder / f"{name}.json", content)
    text = CLIPTextConfig(vocab_size=WORDS, hidden_size=CONDITION, intermediate_size=16, num_hidden_layers=1,
                          num_attention_heads=2, max_position_embeddings=8)  # fmt: skip
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    words(folder / "tokenizer", [])


def weights(layout, own, folder):
    """Random weights of a checkpoint by the original's names."""
    recipe = load_recipe({"name": "x", "model": layout.model(own), "data": {}, "stages": []})
    model = build_model(recipe.model, folder)
    torch.manual_seed(3)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(-0.2, 0.2)
    return {
        name: tensor.clone() for name, tensor in layout.names(own).to_theirs(model.state_dict(), "x").items()
    }


def write_diffusion(tensors, folder):
    """Write the networks' tensors into the diffusion model's folder; returns the others."""
    for part in ("unet", "vae"):
        prefix = f"image_decoder.{part}."
        own = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
        write_tensors(folder / part / "diffusion_pytorch_model.safetensors", own)
    return {k: t for k, t in tensors.items() if not k.startswith("image_decoder.")}


def newer(folder, *, clip=False, **changes):
    """A folder of the newer layout, with its projectors in files of their own."""
    diffusion_model(folder / "sd")
    signals = [f"<image_{n:02d}>" for n in range(3)]
    config = {
        "model_type": "nextgpt_llama", "vocab_size": words(folder, ["▁▁", *signals]), **LLAMA, "layer_idx": -1,
        "multimodal_tower": "clip" if clip else "./pretrain_ckpt/imagebind", "mm_input_projector_type": "group",
        "image_decoder": "sd", "mm_output_img_projector_type": "transformer", "n_img_tokens": 3,
        "n_vid_tokens": 24, "mm_use_img_start_end": False, "tune_mm_input_adapter": True, "mm_hidden_size": 8,
    }  # fmt: skip
    write(folder / "clip/config.json", CLIP)
    layout = find_family("next-gpt")
    own = {"config": config, "unet": UNET, "vae": VAE, "scheduler": SCHEDULER, "clip": CLIP if clip else None,
           "signals": [21, 20, 22, 20, 23], "input": GROUP if clip else None, "output": PROJECTOR,
           "width": CONDITION}  # fmt: skip
    tensors = write_diffusion(weights(layout, own, folder), folder / "sd")
    tensors["model.mm_output_vid_projector.out_fc.bias"] = torch.ones(3)
    if not clip:
        tensors["model.multimodal_tower.cls"] = torch.ones(3)
    for file, part in (("mm_input_projector", "_input_"), ("mm_output_projector", "_output_")):
        chosen = {name: tensors.pop(name) for name in list(tensors) if f".mm{part}" in name}
        if chosen:
            torch.save(chosen, folder / f"{file}.bin")
    write_tensors(folder / "model.safetensors", tensors)
    write(folder / "config.json", {**config, **changes})
    return folder


@pytest.mark.parametrize("clip", [False, True])
def test_a_newer_folder_is_recognised_and_comes_back_bit_for_bit(tmp_path, clip):
    public = newer(tmp_path / "public", clip=clip)
    assert recognise(Folder(public)).name == "next-gpt"
    import_checkpoint(public, tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "back")
    before = find_family("next-gpt").read(Folder(public))
    after = Folder(tmp_path / "back")
    assert after.config == before.config["config"]
    assert after.tensors.keys() == before.tensors.keys() - set(before.borrowed)
    assert all(torch.equal(tensor, before.tensors[name]) for name, tensor in after.tensors.items())


def test_an_imported_model_draws_and_answers_and_sees_where_its_tower_is_clip(tmp_path):
    model = load_model(import_checkpoint(newer(tmp_path / "public", clip=True), tmp_path / "ours")).eval()
    (image,) = model.generate("<5>", seed=1)
    assert image.size == (8, 8)
    assert model.chat([{"role": "user", "content": [image, "<7>"]}], tokens=2).text is not None


def test_what_guidance_leads_away_from_is_the_text_encoders_empty_prompt(tmp_path):
    public = newer(tmp_path / "public")
    model = load_model(import_checkpoint(public, tmp_path / "ours"))
    encoder = CLIPTextModel.from_pretrained(public / "sd/text_encoder").eval()
    with torch.no_grad():
        expected = encoder(torch.zeros(1, 5, dtype=torch.long)).last_hidden_state
    target = torch.zeros(1, 1, 5, CONDITION)
    condition = model.image_decoder.condition(target)
    torch.testing.assert_close(model.image_decoder.empty(condition).tokens, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_img_tokens": 5}, "has no <image_03>, <image_04>, of which its images are made"),
        ({"mm_output_img_projector_type": "linear"}, "of the kind 'linear' is known to no code that runs"),
        ({"layer_idx": -2}, "layer_idx is -2, but is known as -1 only"),
        ({"novelty": 1}, "novelty"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(tmp_path, changes, message):
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(newer(tmp_path / "public", **changes), tmp_path / "ours")


def test_a_folder_without_its_projector_is_an_error_that_names_the_file(tmp_path):
    public = newer(tmp_path / "public")
    (public / "mm_output_projector.bin").unlink()
    with pytest.raises(CheckpointError, match=r"has no projector that draws: .* mm_output_projector\.bin"):
        import_checkpoint(public, tmp_path / "ours")


def test_a_projector_for_another_diffusion_model_is_refused_with_both_widths(tmp_path):
    public = newer(tmp_path / "public")
    write(public / "sd/unet/config.json", {**UNET, "cross_attention_dim": 16})
    with pytest.raises(
        CheckpointError, match="makes vectors of 12 channels, but the diffusion model attends to 16"
    ):
        import_checkpoint(public, tmp_path / "ours")


@pytest.fixture
def older(tmp_path):
    """A folder of the older layout, whose language model stands elsewhere, with a low-rank update of one weight."""
    folder, base = tmp_path / "public", tmp_path / "vicuna"
    diffusion_model(folder / "diffusion")
    size = words(folder, [f"[IMG{n}]" for n in range(4)])
    config = {"model_type": "llama", "vocab_size": size, **LLAMA, "_name_or_path": str(base)}
    write(folder / "config.json", config)
    layout = find_family("next-gpt-legacy")
    own = {"config": config, "unet": UNET, "vae": VAE, "scheduler": SCHEDULER, "signals": [20, 21, 22, 23],
           "output": PROJECTOR, "width": CONDITION}  # fmt: skip
    tensors = write_diffusion(weights(layout, own, folder), folder / "diffusion")
    language = {k.removeprefix("llama_model."): t for k, t in tensors.items() if k.startswith("llama_model.")}
    base.mkdir()
    write_tensors(base / "model.safetensors", language)
    learnt = {k: t for k, t in tensors.items() if not k.startswith("llama_model.")}
    query = "llama_model.base_model.model.model.layers.0.self_attn.q_proj.lora_{}.default.weight"
    learnt |= {query.format("A"): torch.ones(2, WIDTH), query.format("B"): torch.full((WIDTH, 2), 0.01)}
    torch.save({**learnt, "llama_proj.bias": torch.ones(3)}, folder / "pytorch_model.pt")
    return folder


def test_an_older_folder_is_recognised_and_draws_with_its_updates_added(older, tmp_path):
    assert recognise(Folder(older)).name == "next-gpt-legacy"
    model = load_model(import_checkpoint(older, tmp_path / "ours")).eval()
    (image,) = model.generate("<5>", seed=1)
    assert image.size == (8, 8)
    name = "model.layers.0.self_attn.q_proj.weight"
    before = Folder(tmp_path / "vicuna").tensors[name]
    torch.testing.assert_close(model.language.inner.state_dict()[name], before + 32 / 2 * 0.02)


def test_a_query_former_in_place_of_the_transformer_is_read_too():
    from chiasm import parts
    from chiasm.interop.convert import load_named
    from chiasm.interop.mapping import NameMap
    from chiasm.interop.shapes.next_gpt import output_projector, output_rules

    spec = {"type": "qformer", "queries": 3, "width": 128, "depth": 2, "heads": 2, "hidden": 16, "cross_every": 1,
            "projected": True}  # fmt: skip
    for names in (OLD, NEW):
        made = parts.build("connector", spec, 6, 10)
        ours = {f"connector.{name}": tensor for name, tensor in made.state_dict().items()}
        rules = NameMap(*output_rules(spec, names, "", "connector."))
        theirs = rules.to_theirs(ours, "x")
        assert output_projector("qformer", theirs, names) == spec
        back, _ = rules.to_ours(theirs, "x")
        load_named(made, back, rules, "x", prefix="connector.")
