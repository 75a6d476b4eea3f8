"""Emu2: parity, and small folders of its layouts."""

import json
import os
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from chiasm.data.documents import draw_prompt
from chiasm.data.sample import Message, Sample
from chiasm.errors import CheckpointError
from chiasm.heads import Sampling
from chiasm.inference.drawing import decode, draw
from chiasm.interop import Folder, export_checkpoint, find_family, import_checkpoint, recognise
from chiasm.interop.convert import _numbers
from chiasm.interop.families.emu2 import TOKENS
from chiasm.interop.parity.verify import verify
from chiasm.model.checkpoint import load_model
from chiasm.nn.generators import Generators

PLACE = os.environ.get("CHIASM_PARITY")
WIDTH, HIDDEN, WORDS = 112, 128, 50
VISION = {"image_size": 56, "patch_size": 7, "width": WIDTH, "layers": 1, "head_width": 112, "mlp_ratio": 0.5,
          "qkv_bias": True, "layer_norm_eps": 1e-6, "drop_path_rate": 0.0, "xattn": False, "postnorm": True,
          "n_query": 4, "v_query": 4}  # fmt: skip
UNET = {"sample_size": 4, "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4,
        "attention_head_dim": 2, "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "cross_attention_dim": WIDTH,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": WIDTH + 6 * 8}  # fmt: skip
VAE = {"block_out_channels": [8] * 4, "down_block_types": ["DownEncoderBlock2D"] * 4,
       "up_block_types": ["UpDecoderBlock2D"] * 4, "norm_num_groups": 4}  # fmt: skip
SCHEDULER = {"_class_name": "EulerDiscreteScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
             "beta_end": 0.012, "clip_sample": False, "skip_prk_steps": True, "set_alpha_to_one": False,
             "sample_max_value": 1.0, "steps_offset": 1, "timestep_spacing": "leading"}  # fmt: skip


@pytest.mark.skipif(not PLACE, reason="CHIASM_PARITY does not name the folder of parity cases")
def test_every_case_agrees():
    results = verify([Path(PLACE or "") / "emu2"])
    assert results
    assert not [str(each) for each in results if not each.agrees]


def llama(words):
    return LlamaConfig(vocab_size=words, hidden_size=HIDDEN, intermediate_size=32, num_hidden_layers=1,
                       num_attention_heads=1, rms_norm_eps=1e-6)  # fmt: skip


def tensors(words, inner=""):
    """The multimodal model's tensors; inner: what stands before the tower and the language model."""
    torch.manual_seed(0)
    hidden, norms = int(WIDTH * 0.5), ("norm1", "norm2")
    shapes = {"cls_token": (1, 1, WIDTH), "pos_embed": (1, 65, WIDTH)}
    shapes |= {"patch_embed.proj.weight": (WIDTH, 3, 7, 7), "patch_embed.proj.bias": (WIDTH,)}
    shapes |= {f"blocks.0.{norm}.{w}": (WIDTH,) for norm in norms for w in ("weight", "bias")}
    shapes |= {"blocks.0.attn.qkv.weight": (3 * WIDTH, WIDTH), "blocks.0.attn.proj.weight": (WIDTH, WIDTH)}
    shapes |= {f"blocks.0.attn.{name}": (WIDTH,) for name in ("q_bias", "v_bias", "proj.bias")}
    shapes |= {"blocks.0.mlp.fc1.weight": (hidden, WIDTH), "blocks.0.mlp.fc1.bias": (hidden,)}
    shapes |= {"blocks.0.mlp.fc2.weight": (WIDTH, hidden), "blocks.0.mlp.fc2.bias": (WIDTH,)}
    tower = {f"{inner}visual.{name}": torch.randn(shape) * 0.1 for name, shape in shapes.items()}
    words_model = LlamaForCausalLM(llama(words)).state_dict()
    projections = {
        "project_up.weight": torch.randn(HIDDEN, WIDTH),
        "project_down.weight": torch.randn(WIDTH, HIDDEN),
    }
    return tower | {f"{inner}decoder.lm.{key}": t.clone() for key, t in words_model.items()} | projections


@pytest.fixture
def published(tmp_path):
    """Emu2-Gen in the layout of diffusers' pipelines."""
    folder, words = tmp_path / "Emu2-Gen", _numbers(WORDS)
    words.add_special_tokens({"additional_special_tokens": ["[IMG]", "[/IMG]"]})
    words.save_pretrained(folder / "tokenizer")
    (folder / "multimodal_encoder").mkdir()
    config = {"architectures": ["EmuForCausalLM"], "d_model": WIDTH, "model_version": "base"}
    config |= {"vision_config": VISION, **llama(WORDS + 2).to_diff_dict(), "model_type": "emu"}
    (folder / "multimodal_encoder/config.json").write_text(json.dumps(config))
    save_file(tensors(WORDS + 2, "model."), folder / "multimodal_encoder/model.safetensors")
    UNet2DConditionModel(**UNET).save_pretrained(folder / "unet")
    AutoencoderKL(**VAE).save_pretrained(folder / "vae")
    (folder / "scheduler").mkdir()
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(SCHEDULER))
    return folder


def test_the_published_folder_is_recognised_and_comes_back_bit_for_bit(published, tmp_path):
    assert recognise(Folder(published)).name == "emu2"
    import_checkpoint(published, tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "back")
    before, after = (find_family("emu2").read(Folder(place)) for place in (published, tmp_path / "back"))
    assert before.config == after.config
    assert before.tensors.keys() == after.tensors.keys()
    assert all(torch.equal(tensor, after.tensors[name]) for name, tensor in before.tensors.items())


def test_an_imported_model_draws_after_words_and_images(published, tmp_path):
    model = load_model(import_checkpoint(published, tmp_path / "ours")).eval()
    model.image_decoder.steps = 2
    (image,) = model.generate("<5>", seed=1, guidance=3.0)
    assert image.size == (32, 32)
    assert model.chat([{"role": "user", "content": [image, "<7>"]}], tokens=2).text is not None


@torch.no_grad()
def test_guidance_leads_the_decoder_away_from_what_follows_the_empty_prompt(published, tmp_path):
    model = load_model(import_checkpoint(published, tmp_path / "ours")).eval()
    model.image_decoder.steps = 2
    sample = Sample("a prompt", (Message("user", ("<5>",)),))
    prompt, empty = (draw_prompt(model.contract, sample, unconditional=each) for each in (False, True))
    assert (prompt.ids, empty.ids) == ([1, 5, WORDS], [1, WORDS])
    pair = draw(model, [prompt], Sampling(guidance=3.0))
    alone, without = (draw(model, [each], Sampling()) for each in (prompt, empty))
    torch.testing.assert_close(pair, torch.stack([alone, without], 1), atol=1e-4, rtol=1e-4)
    alone, without = pair.unbind(1)
    expected = model.image_decoder.decode(alone, negative=without, guidance=3.0, generators=Generators([4]))
    torch.testing.assert_close(decode(model, pair, Generators([4]), 3.0), expected)


def test_the_originals_own_layout_needs_no_config_and_adds_its_tokens(tmp_path):
    folder, count = tmp_path / "Emu2", 32000 + len(TOKENS)
    folder.mkdir()
    _numbers(32000).save_pretrained(folder)
    own = tensors(count)
    own["decoder.lm.stu_regress_head.weight"] = own.pop("project_down.weight")  # as older files have it
    torch.save(own, folder / "pytorch_model.bin")
    assert recognise(Folder(folder)).name == "emu2"
    model = load_model(import_checkpoint(folder, tmp_path / "ours"))
    assert model.language.tokenizer.draw == 32001
    assert model.image_head.layout().length == 64
    assert torch.equal(model.image_head.alphabet.input.weight, own["project_up.weight"])


def test_a_network_without_its_config_is_named(published, tmp_path):
    (published / "vae/config.json").unlink()
    with pytest.raises(CheckpointError, match=r"lacks vae/config\.json"):
        import_checkpoint(published, tmp_path / "ours")


@pytest.mark.parametrize(("change", "refused"), [
    ({"n_query": 9}, "n_query is 9"),
    ({"rope": True}, "rope is True"),
    ({"head_width": 100}, "head_width is 100"),
    ({"window": 3}, r"vision_config\.window = 3"),
])  # fmt: skip
def test_what_the_tower_has_not_is_refused_by_name(published, tmp_path, change, refused):
    place = published / "multimodal_encoder/config.json"
    config = json.loads(place.read_text())
    config["vision_config"] |= change
    place.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=refused):
        import_checkpoint(published, tmp_path / "ours")
