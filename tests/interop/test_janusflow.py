"""JanusFlow: parity, and a small folder of the published layout with its autoencoder."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import chiasm
from chiasm.data.documents import draw_prompt, without_prompt
from chiasm.data.sample import Message, Sample
from chiasm.errors import CheckpointError
from chiasm.interop import Folder, export_checkpoint, find_family, import_checkpoint, recognise, verify
from chiasm.interop.convert import _numbers, build_model
from chiasm.interop.shapes.autoencoder_kl import FORMER
from chiasm.recipe import load_recipe
from chiasm.storage.weights import read_tensors

PLACE = os.environ.get("CHIASM_PARITY")
VAE = {"_class_name": "AutoencoderKL", "_diffusers_version": "0.20.0", "block_out_channels": [8, 8],
       "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2,
       "layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 4, "scaling_factor": 0.13025}  # fmt: skip
NETWORK = {"block_out_channels": [12], "layers_in_middle": 1, "hidden_size": 32, "elementwise_affine": True,
           "dropout": 0.0, "use_bias": True, "norm_eps": 1e-6}  # fmt: skip
ENCODER = {**NETWORK, "input_channels": 4, "kernel_size": 2, "stride": 2, "padding": 0}
DECODER = {**NETWORK, "in_channels": 16, "out_channels": 4, "upsamples": 1}
CONFIG = {
    "model_type": "multi_modality", "architectures": ["MultiModalityCausalLM"], "torch_dtype": "bfloat16",
    "vision_und_enc_config": {"cls": "CLIPVisionTower", "model_type": "vision_und_enc",
                              "params": {"model_name": "small", "image_size": 16, "select_layer": -1,
                                         "select_feature": "same"}},
    "small": {"width": 32, "layers": 1, "heads": 2, "patch_size": 8, "mlp_ratio": 2},
    "vision_gen_enc_config": {"cls": "ShallowUViTEncoder", "model_type": "vision_gen_enc", "params": ENCODER},
    "vision_gen_dec_config": {"cls": "ShallowUViTDecoder", "model_type": "vision_gen_dec", "params": DECODER},
    "language_config": {"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
                        "num_attention_heads": 2, "vocab_size": 50, "rms_norm_eps": 1e-5},
    "drawn_size": 16,
}  # fmt: skip
PREPROCESSOR = {"image_processor_type": "VLMImageProcessor", "image_size": 16, "min_size": 14, "do_normalize": True,
                "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255}  # fmt: skip


@pytest.mark.skipif(not PLACE, reason="CHIASM_PARITY does not name the folder of parity cases")
def test_every_case_agrees():
    results = verify([Path(PLACE or "") / "janusflow"])
    assert results
    assert not [str(each) for each in results if not each.agrees]


@pytest.fixture
def published(tmp_path):
    """A folder of the published layout with random weights."""
    folder, layout = tmp_path / "public", find_family("janusflow")
    config = {**CONFIG, "vae": VAE}
    recipe = load_recipe({"name": "x", "model": layout.model(config), "data": {}, "stages": []})
    ours = build_model(recipe.model, None).state_dict()
    torch.manual_seed(3)
    for tensor in ours.values():
        if tensor.is_floating_point():
            tensor.uniform_(-0.2, 0.2)
    theirs = layout.names(config).to_theirs(ours, "here")
    pooling = {"vision_und_enc_model.vision_tower.attn_pool.latent": torch.ones(1, 1, 32)}
    for place, prefix in (("vae", "vae/"), (".", "")):
        (folder / place).mkdir(parents=True, exist_ok=True)
        own = {k.removeprefix(prefix): t.contiguous().clone() for k, t in theirs.items()
               if k.startswith("vae/") == bool(prefix)}  # fmt: skip
        name = "diffusion_pytorch_model" if prefix else "model"
        save_file(own | ({} if prefix else pooling), folder / place / f"{name}.safetensors")
        (folder / place / "config.json").write_text(json.dumps(VAE if prefix else CONFIG))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    _numbers(49).save_pretrained(folder)
    return folder


def test_the_published_folder_is_recognised_and_comes_back_bit_for_bit(published, tmp_path):
    assert recognise(Folder(published)).name == "janusflow"
    import_checkpoint(published, tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "back")
    for place in (".", "vae"):
        before, after = (read_tensors(folder / place) for folder in (published, tmp_path / "back"))
        assert before.keys() == after.keys()
        assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
        configs = [
            json.loads((f / place / "config.json").read_text()) for f in (published, tmp_path / "back")
        ]
        assert configs[0] == configs[1]


def test_an_imported_model_draws_with_guidance_and_reads_what_it_has_drawn(published, tmp_path):
    model = chiasm.load(import_checkpoint(published, tmp_path / "ours"))
    model.image_head.steps = 3
    one, again = (model.generate("<5> <7>", seed=1, guidance=2.0)[0] for _ in range(2))
    assert one.size == (16, 16)
    assert one.tobytes() == again.tobytes()
    assert model.chat([{"role": "user", "content": [one, "<7>"]}], tokens=2).text is not None


def test_guidance_leads_away_from_a_prompt_that_is_hidden_and_no_marker_stands_before_the_time(
    published, tmp_path
):
    model = chiasm.load(import_checkpoint(published, tmp_path / "ours"))
    words = model.language.tokenizer
    prompt = draw_prompt(model.contract, Sample("s", (Message("user", ("<5>",)),)))
    empty = without_prompt(model.contract, prompt)
    assert words.before_picture == ()
    assert words.inner.convert_tokens_to_ids("<end_of_image>") == words.behind_read[0]
    assert (empty.ids[0], len(empty)) == (prompt.ids[0], len(prompt))
    assert empty.exposed == [True] + [False] * (len(prompt) - 1)


def test_an_autoencoder_whose_attention_has_its_former_names_is_the_same_and_keeps_them(published, tmp_path):
    place = published / "vae/diffusion_pytorch_model.safetensors"
    plain = import_checkpoint(published, tmp_path / "plain")
    former = dict(read_tensors(published / "vae"))
    for old, new in FORMER.items():
        former = {
            name.replace(f"attentions.0.{new}.", f"attentions.0.{old}."): t for name, t in former.items()
        }
    save_file({name: tensor.contiguous() for name, tensor in former.items()}, place)
    old = import_checkpoint(published, tmp_path / "old")
    one, other = (read_tensors(folder / "model.safetensors") for folder in (plain, old))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    export_checkpoint(old, tmp_path / "back")
    assert read_tensors(tmp_path / "back/vae").keys() == former.keys()


def test_a_folder_without_its_autoencoder_is_refused_with_what_it_lacks(published, tmp_path):
    shutil.rmtree(published / "vae")
    with pytest.raises(CheckpointError, match=r"no autoencoder of pixels.*put stabilityai/sdxl-vae into"):
        import_checkpoint(published, tmp_path / "ours")


@pytest.mark.parametrize(
    ("network", "key", "value"),
    [
        ("vision_gen_dec_config", "out_channels", 3),
        ("vision_gen_dec_config", "upsamples", 2),
        ("vision_gen_dec_config", "use_bias", False),
        ("vision_gen_dec_config", "norm_eps", 1e-5),
        ("vision_gen_dec_config", "block_out_channels", [16]),
        ("vision_gen_enc_config", "block_out_channels", [12, 24]),
    ],
)
def test_networks_that_contradict_each_other_are_refused_by_key(network, key, value):
    config = {**CONFIG, "vae": VAE}
    config[network] = {"params": {**CONFIG[network]["params"], key: value}}
    with pytest.raises(CheckpointError, match=rf"{network}\.params\.{key}\b.* is"):
        find_family("janusflow").plan(config, [], "here")


def test_a_key_that_is_neither_used_nor_known_is_refused_by_name():
    config = {**CONFIG, "vae": VAE}
    config["vision_gen_enc_config"] = {"params": {**ENCODER, "patchify": True}}
    with pytest.raises(CheckpointError, match=r"vision_gen_enc_config\.params\.patchify = True"):
        find_family("janusflow").plan(config, [], "here")
