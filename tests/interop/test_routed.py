"""Import and export of XComposer2, MoE-LLaVA and BEiT-3: bit for bit, with tiny folders in their layouts."""

import json

import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file

from chiasm.data.files import PictureInMemory
from chiasm.data.sample import Message
from chiasm.interop import Folder, export_checkpoint, find_family, import_checkpoint, recognise
from chiasm.interop.convert import _numbers, build_model
from chiasm.model.checkpoint import load_model
from chiasm.recipe import load_recipe
from chiasm.training import train

VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def original(family, config):
    """Random tensors of a model in the family's names."""
    torch.manual_seed(0)
    layout = find_family(family)
    spec = layout.model(config)
    recipe = load_recipe({"name": "it", "about": "", "model": spec, "data": {}, "stages": []})
    model = build_model(recipe.model, None)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return layout.names(config).to_theirs(model.state_dict(), "it")


def round_trip(folder, tmp_path):
    import_checkpoint(folder, tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    return tmp_path / "theirs"


def equal(one, other):
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )


@pytest.fixture
def public(tmp_path):
    folder = tmp_path / "public"
    folder.mkdir()
    _numbers(40).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("keys", [1, 2])
def test_xcomposer2_comes_back_bit_for_bit(public, tmp_path, keys):
    told = {
        "architectures": ["InternLMXComposer2ForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling.InternLMXComposer2ForCausalLM"},
        "model_type": "internlmxcomposer2",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": keys,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_scaling": {"factor": 1.0, "type": "dynamic"},
        "bias": False,
        "vocab_size": 40,
    }
    vision = {"hidden_size": 64, "layers": 2, "heads": 1, "intermediate_size": 32}
    config = {"tile": 28, "patch": 7, "vit": vision, "llm": told, "plora": {"r": 4, "alpha": 4}}
    tensors = {key: tensor.half() for key, tensor in original("xcomposer2", config).items()}
    assert tensors["model.layers.0.attention.wqkv.weight"].shape == (32 + 2 * 8 * keys, 32)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, public / "model.safetensors")
    (public / "config.json").write_text(json.dumps(told))
    assert recognise(Folder(public)).name == "xcomposer2"
    theirs = round_trip(public, tmp_path)
    assert equal(load_file(theirs / "model.safetensors"), tensors)
    assert json.loads((theirs / "config.json").read_text()) == told
    assert load_model(tmp_path / "ours").chat("<5> <7>") is not None


@pytest.mark.parametrize(
    ("language", "residual"), [("stablelm", False), ("stablelm", True), ("phi", False), ("qwen1_5", False)]
)
def test_moe_llava_comes_back_bit_for_bit(public, tmp_path, language, residual):
    from transformers import CLIPVisionConfig, CLIPVisionModel

    clip = tmp_path / "clip"
    CLIPVisionModel(CLIPVisionConfig(**VISION, image_size=28, patch_size=7)).save_pretrained(clip)
    moe = {"moe_enable": True, "moe_layers_idx": [0, 2], "num_experts": [3], "top_k_experts": 2}
    moe |= {"use_residual": residual, "min_capacity": 0, "router_aux_loss_coef": 0.01}
    told = {
        "model_type": f"moe_llava_{language}",
        "architectures": ["MoELLaVAStablelmForCausalLM"],
        "mm_image_tower": str(clip),
        "image_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 128,
        **({"rope_pct": 0.25, "norm_eps": 1e-5, "use_qkv_bias": True} if language == "stablelm" else {}),
        "vocab_size": 40,
        "moe": moe,
    }
    vision = {**VISION, "image_size": 28, "patch_size": 7}
    config = {"llm": told, "vision": vision, "moe": moe, "projector": "mlp2x_gelu", "select_layer": -2}
    tensors = {k: v for k, v in original("moe-llava", config).items() if "image_tower" not in k}
    first = "fc1" if language == "phi" else "up_proj"
    assert (f"model.layers.0.mlp.mlp.{first}.weight" in tensors) == residual
    assert f"model.layers.1.mlp.{first}.weight" in tensors
    torch.save(tensors, public / "pytorch_model.bin")
    (public / "config.json").write_text(json.dumps(told))
    assert recognise(Folder(public)).name == "moe-llava"
    theirs = round_trip(public, tmp_path)
    assert equal(load_file(theirs / "model.safetensors"), tensors)
    assert load_model(tmp_path / "ours").chat("<5> <7>") is not None


@pytest.mark.parametrize("head", ["mlm_head", "vision_head"])
def test_beit3_comes_back_bit_for_bit(public, tmp_path, head):
    config = {
        "encoder_embed_dim": 64,
        "encoder_attention_heads": 1,
        "encoder_layers": 2,
        "encoder_ffn_embed_dim": 48,
        "vocab_size": 40,
        "img_size": 21,
        "patch_size": 7,
        "max_source_positions": 32,
    }
    tensors = original("beit3", config)
    tensors = {
        key if key.startswith("mlm_head") else f"beit3.{key}": tensor for key, tensor in tensors.items()
    }
    if head != "mlm_head":
        tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith("mlm_head")}
        tensors["vision_head.weight"] = torch.randn(64, 64)
    torch.save({"model": tensors}, public / "beit3_tiny_patch7_21.pth")
    assert recognise(Folder(public)).name == "beit3"
    theirs = round_trip(public, tmp_path)
    assert equal(torch.load(theirs / "beit3.pth", weights_only=True)["model"], tensors)
    model = load_model(tmp_path / "ours")
    assert model.chat("<5> <7>") is not None
    image = PictureInMemory(Image.new("RGB", (21, 21)))
    captioned = [Message("user", (image,)), Message("assistant", ("<5>",))]
    tokens = model.language.tokenizer.tokens(captioned)
    assert [(list(each.ids), each.learn) for each in tokens] == [([], False), ([1], False), ([5, 2], True)]


def test_beit3_pretrained_further_is_exported_without_what_made_its_targets(public, tmp_path):
    config = {
        "encoder_embed_dim": 64,
        "encoder_attention_heads": 1,
        "encoder_layers": 1,
        "encoder_ffn_embed_dim": 48,
        "vocab_size": 40,
        "img_size": 32,
        "patch_size": 8,
        "max_source_positions": 66,
    }
    torch.save({"model": original("beit3", config)}, public / "beit3.pth")
    import_checkpoint(public, tmp_path / "ours")
    world = {"type": "world", "scenes": 40, "emoji": 8, "grid": 2, "objects": [1, 2], "canvas": 32}
    recipe = {
        "name": "further",
        "start": str(tmp_path / "ours"),
        "model": {
            "image_tokenizer": {"type": "vq", "size": 32, "downsample": 8, "width": 16, "codebook_size": 16}
        },
        "data": {"world": {**world, "tasks": {"caption": 1}}},
        "stages": [
            {
                "name": "masked-data",
                "objective": {"type": "masked_data", "block": 2},
                "train": {"connector": 1e-3, "language": 1e-3, "objective": 1e-3},
                "data": {"world": 1.0},
                "steps": 2,
                "rows": 3,
            }
        ],
    }
    train(load_recipe(recipe), tmp_path / "further", console=Console(quiet=True))
    export_checkpoint(tmp_path / "further", tmp_path / "theirs")
    before, after = (
        torch.load(folder / "beit3.pth", weights_only=True)["model"]
        for folder in (public, tmp_path / "theirs")
    )
    assert before.keys() == after.keys()
    assert not before["vision_embed.mask_token"].any()
    assert after["vision_embed.mask_token"].all()
