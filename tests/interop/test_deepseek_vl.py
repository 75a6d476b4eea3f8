"""DeepSeek-VL: parity, and small public folders that come back bit for bit."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from chiasm.interop import (
    Folder,
    Original,
    export_checkpoint,
    find_family,
    import_checkpoint,
    recognise,
    verify,
)
from chiasm.interop.convert import _numbers
from chiasm.model.checkpoint import load_model

PLACE = os.environ.get("CHIASM_PARITY")
SAM = {"width": 16, "layers": 2, "heads": 2, "global_attn_indexes": [1], "downsample_channels": [12, 16],
       "patch_size": 16, "prompt_embed_dim": 8}  # fmt: skip
SIGLIP = {"patch_size": 4, "width": 16, "layers": 2, "heads": 2, "mlp_ratio": 2}
HIGH = {"model_name": "sam_tiny", "image_size": 96, "select_layer": -1, "pixel_mean": [0.4, 0.5, 0.6],
        "pixel_std": [0.2, 0.2, 0.2]}  # fmt: skip
LOW = {"model_name": "siglip_tiny", "image_size": 96, "select_layer": -1, "pixel_mean": [0.5] * 3,
       "pixel_std": [0.5] * 3}  # fmt: skip
LANGUAGE = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "vocab_size": 80, "max_position_embeddings": 1024}  # fmt: skip


def original(hybrid):
    """A config of the original's layout."""
    params = {"high_res_cfg": HIGH, "low_res_cfg": LOW, "concat_type": "tuple"} if hybrid else LOW
    projector = "low_high_hybrid_split_mlp_gelu" if hybrid else "mlp_gelu"
    return {
        "model_type": "multi_modality",
        "vision_config": {"cls": "HybridVisionTower" if hybrid else "CLIPVisionTower", "params": params},
        "aligner_config": {"cls": "MlpProjector", "params": {"projector_type": projector, "depth": 2}},
        "language_config": LANGUAGE,
        "siglip_tiny": SIGLIP,
        **({"sam_tiny": SAM} if hybrid else {}),
    }


def random_like(family, config):
    """Random tensors of every name that the family knows for a config."""
    from chiasm.interop.convert import build_model
    from chiasm.recipe import load_recipe

    layout = find_family(family)
    spec = layout.model(config)
    recipe = load_recipe({"name": "x", "about": "x", "model": spec, "data": {}, "stages": []})
    model = build_model(recipe.model, None)
    return layout.names(config).to_theirs(
        {
            key: torch.randn_like(tensor)
            for key, tensor in model.state_dict().items()
            if not key.endswith((".mean", ".deviation"))
        },
        "here",
    )


def tensors(folder):
    return load_file(folder / "model.safetensors")


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.skipif(not PLACE, reason="CHIASM_PARITY does not name the folder of parity cases")
def test_every_case_agrees():
    results = verify([Path(PLACE or "") / "deepseek_vl"])
    assert len(results) >= 6
    assert not [str(each) for each in results if not each.agrees]


@pytest.mark.parametrize("hybrid", [False, True])
def test_the_originals_folder_comes_back_bit_for_bit(tmp_path, hybrid):
    public = tmp_path / "public"
    public.mkdir()
    made = random_like("deepseek-vl", original(hybrid))
    if hybrid:
        made["vision_model.high_layer_norm.weight"] = torch.randn(16)
    (public / "config.json").write_text(json.dumps(original(hybrid)))
    save_file({key: tensor.contiguous() for key, tensor in made.items()}, public / "model.safetensors")
    _numbers(80).save_pretrained(public)
    assert recognise(Folder(public)).name == "deepseek-vl"
    import_checkpoint(public, tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    assert equal(tensors(tmp_path / "theirs"), made)
    model = load_model(tmp_path / "ours")
    first = model.encoder.encoders[0] if hybrid else model.encoder
    torch.testing.assert_close(first.mean.flatten(), torch.tensor((HIGH if hybrid else LOW)["pixel_mean"]))
    assert model.views.padding == ((102, 127, 153) if hybrid else (127, 127, 127))


@pytest.mark.parametrize(
    ("tower", "prepared", "expected"),
    [
        (
            None,
            {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.1, 0.2, 0.3]},
            ([0.4, 0.5, 0.6], [0.1, 0.2, 0.3]),
        ),
        (0.5, {"image_mean": [0.4] * 3, "image_std": [0.2] * 3}, ([0.5] * 3, [0.1] * 3)),
        (
            0.5,
            {"image_mean": [0.4] * 3, "image_std": [0.2] * 3, "do_normalize": False},
            ([0.5] * 3, [0.5] * 3),
        ),
    ],
)
def test_images_are_normalised_by_the_preprocessor_and_then_by_the_tower(tmp_path, tower, prepared, expected):
    """((x - 0.4) / 0.2 - 0.5) / 0.5 is (x - 0.5) / 0.1."""
    config = {key: value for key, value in original(False).items() if key != "sam_tiny"}
    given = None if tower is None else [tower] * 3
    config["vision_config"]["params"] = {**LOW, "pixel_mean": given, "pixel_std": given}
    made = random_like("deepseek-vl", config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(prepared))
    save_file({key: tensor.contiguous() for key, tensor in made.items()}, tmp_path / "model.safetensors")
    _numbers(80).save_pretrained(tmp_path)
    model = load_model(import_checkpoint(tmp_path, tmp_path / "ours"))
    torch.testing.assert_close(model.encoder.mean.flatten(), torch.tensor(expected[0]))
    torch.testing.assert_close(model.encoder.deviation.flatten(), torch.tensor(expected[1]))
    assert list(model.views.padding) == [int(channel * 255) for channel in prepared["image_mean"]]


def transformers_model(hybrid):
    from transformers import (
        DeepseekVLConfig,
        DeepseekVLForConditionalGeneration,
        DeepseekVLHybridConfig,
        DeepseekVLHybridForConditionalGeneration,
    )

    tower = {
        "vision_use_head": False,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    parts = {
        "text_config": LANGUAGE,
        "vision_config": {**tower, "model_type": "siglip_vision_model", "image_size": 28, "patch_size": 7},
        "image_token_id": 79,
    }
    sam = {"hidden_size": 16, "output_channels": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 32,
           "image_size": 64, "patch_size": 8, "window_size": 3, "global_attn_indexes": [1]}  # fmt: skip
    if not hybrid:
        return DeepseekVLForConditionalGeneration(DeepseekVLConfig(**parts))
    config = DeepseekVLHybridConfig(**parts, high_res_vision_config={**sam, "model_type": "sam_vision_model"})
    return DeepseekVLHybridForConditionalGeneration(config)


@pytest.mark.parametrize("hybrid", [False, True])
def test_transformers_folder_comes_back_bit_for_bit_and_agrees(tmp_path, hybrid):
    torch.manual_seed(0)
    theirs = transformers_model(hybrid).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    theirs.save_pretrained(tmp_path / "public")
    _numbers(80).save_pretrained(tmp_path / "public")
    import_checkpoint(tmp_path / "public", tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    assert equal(tensors(tmp_path / "theirs"), tensors(tmp_path / "public"))
    ours = load_model(tmp_path / "ours").eval()
    pixels, small = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 28, 28)
    with torch.no_grad():
        if hybrid:
            high, low = ours.encoder.encoders
            made = ours.connector(ours.encoder.joined([pixels, small]))
            given = {"pixel_values": (small - low.mean) / low.deviation}
            given["high_res_pixel_values"] = (pixels - high.mean) / high.deviation
        else:
            made = ours.connector(ours.encoder(small))
            given = {"pixel_values": (small - ours.encoder.mean) / ours.encoder.deviation}
        expected = theirs.model.get_image_features(**given).pooler_output
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-4)


def test_what_was_never_imported_exports_by_its_recipe(tmp_path):
    import shutil

    theirs = transformers_model(False)
    theirs.save_pretrained(tmp_path / "public")
    _numbers(80).save_pretrained(tmp_path / "public")
    import_checkpoint(tmp_path / "public", tmp_path / "ours")
    shutil.rmtree(tmp_path / "ours/origin")
    (tmp_path / "ours/checksums.json").unlink()  # the origin's files are among them
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs", "deepseek-vl-hf")
    again = type(theirs).from_pretrained(tmp_path / "theirs")
    assert equal(dict(again.state_dict()), dict(theirs.state_dict()))


def test_a_tower_is_built_only_up_to_its_select_layer():
    config = original(False)
    config["vision_config"]["params"] = {**LOW, "select_layer": -2}
    spec = find_family("deepseek-vl").model(config)
    assert spec["encoder"]["config"]["num_hidden_layers"] == 1
    assert spec["encoder"]["final_norm"]


def test_an_original_without_its_hybrid_tower_is_told(tmp_path):
    from chiasm.errors import CheckpointError

    config = original(True)
    config["vision_config"]["params"]["high_res_cfg"] = {**HIGH, "model_name": "sam_b_downsampel"}
    with pytest.raises(CheckpointError, match="sam_b_downsample"):
        find_family("deepseek-vl").model(Original(config, {}).config)


def test_an_imported_hybrid_chats_with_the_originals_prompt(tmp_path):
    from PIL import Image

    transformers_model(True).save_pretrained(tmp_path / "public")
    _numbers(80).save_pretrained(tmp_path / "public")
    import_checkpoint(tmp_path / "public", tmp_path / "ours")
    model = load_model(tmp_path / "ours")
    reply = model.chat([{"role": "user", "content": [Image.new("RGB", (50, 20), "red"), "<5> <7>"]}])
    assert isinstance(str(reply), str)
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    text = model.language.tokenizer.inner.apply_chat_template(turns, tokenize=False)
    assert text.startswith("<1>You are a helpful language and vision assistant. ")
    assert text.endswith(" natural language.\n\nUser: Hi\n\nAssistant: Yes<2>")
