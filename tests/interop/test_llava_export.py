"""A model made here becomes a folder that transformers loads whole, with its processor's files and its tokens."""

import json

import pytest
import torch
import transformers

from chiasm.errors import CheckpointError
from chiasm.interop import export_checkpoint, import_checkpoint
from chiasm.model import Model
from chiasm.model.checkpoint import save_model
from chiasm.recipe import load_recipe

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


CLIP_GREY = [122, 116, 104]  # CLIP's mean, with which transformers pads


def saved(folder, **views):
    spec = {
        "views": {"type": "whole", "size": 16, **views},
        "encoder": {"type": "transformers", "layer": -2, "config": {
            "model_type": "clip_vision_model", **SIZES, "image_size": 16, "patch_size": 8}},
        "connector": {"type": "mlp"},
        "language": {"type": "causal", "vocabulary": 280, "config": {"model_type": "llama", **SIZES}},
    }  # fmt: skip
    recipe = load_recipe({"name": "own", "model": spec, "data": {}, "stages": []})
    model = Model(recipe.model, texts=["what is in the image"]).eval()
    save_model(model, recipe, folder)
    return model


@pytest.fixture(params=["crop", "pad", "stretch"])
def exported(request, tmp_path):
    model = saved(tmp_path / "own", fit=request.param, padding=CLIP_GREY)
    return model, request.param, export_checkpoint(tmp_path / "own", tmp_path / "out", "llava-hf")


@torch.no_grad()
def test_transformers_loads_every_tensor_and_reads_images_alike(exported):
    model, _, folder = exported
    theirs, info = transformers.LlavaForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    words = transformers.AutoTokenizer.from_pretrained(folder)
    image = words.convert_tokens_to_ids("<image>")
    assert theirs.config.image_token_id == image
    assert theirs.get_input_embeddings().num_embeddings > image
    pixels = torch.rand(1, 3, 16, 16)
    normal = (pixels - model.encoder.mean) / model.encoder.deviation
    ids = torch.tensor([[5, *[image] * 4, 7, 9]])
    read = theirs(input_ids=ids, pixel_values=normal).logits
    visual = model.connector(model.encoder(pixels))
    torch.testing.assert_close(theirs.model.get_image_features(normal).pooler_output[0], visual[0])
    assert read.shape[-1] > image


def test_its_processor_prepares_images_as_the_views_do(exported):
    model, fit, folder = exported
    prepared = json.loads((folder / "preprocessor_config.json").read_text())
    assert prepared["image_mean"] == pytest.approx(model.encoder.mean.flatten().tolist())
    assert (prepared["do_center_crop"], prepared.get("do_pad", False)) == (fit == "crop", fit == "pad")
    processor = json.loads((folder / "processor_config.json").read_text())
    assert processor["image_token"] == "<image>"
    assert (folder / "generation_config.json").is_file()


def test_it_is_imported_again(exported, tmp_path):
    _, fit, folder = exported
    back = load_recipe(import_checkpoint(folder, tmp_path / "back") / "recipe.yaml").model
    assert back["views"]["fit"] == fit
    assert fit != "pad" or list(back["views"]["padding"]) == CLIP_GREY


@pytest.mark.parametrize("padding", [[0, 0, 0], [127, 127, 127], [122, 116, 103]])
def test_a_padding_that_transformers_has_not_is_refused_with_the_one_that_it_has(tmp_path, padding):
    saved(tmp_path / "own", fit="pad", padding=padding)
    with pytest.raises(CheckpointError, match=r"views\.padding = \[122, 116, 104\] can be exported"):
        export_checkpoint(tmp_path / "own", tmp_path / "out", "llava-hf")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_a_padding_that_is_never_seen_does_not_matter(tmp_path, fit):
    saved(tmp_path / "own", fit=fit, padding=[0, 0, 0])
    export_checkpoint(tmp_path / "own", tmp_path / "out", "llava-hf")
