"""An encoder normalises as the image processor of its folder: transformers' own classes are the reference."""

import importlib
import json

import numpy as np
import pytest
import torch
import transformers

from chiasm import parts
from chiasm.encoders.preprocessor import BY_PROCESSOR, read_preprocessor
from chiasm.errors import CheckpointError

# None: the class has no form on NumPy, or makes patches.
MODULES = {
    "ChineseCLIP": "chinese_clip",
    "DINOv3ViT": None,
    "Siglip2": None,
    "MobileNetV1": "mobilenet_v1",
    "MobileNetV2": "mobilenet_v2",
}
WHOLE = {"do_resize": False, "do_center_crop": False, "do_pad": False}  # which pixels is up to the views


def reference(kind, config, pixels):
    """Of uint8[h, w, 3], by transformers' class on NumPy."""
    module = MODULES.get(kind, kind.lower())
    processors = importlib.import_module(f"transformers.models.{module}.image_processing_pil_{module}")
    processor = getattr(processors, f"{kind}ImageProcessorPil")(**{**config, **WHOLE})
    return torch.as_tensor(np.asarray(processor(pixels, return_tensors="np")["pixel_values"][0]))


def ours(folder, config, pixels):
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    read = read_preprocessor(folder, "vit")
    values = (torch.from_numpy(pixels).permute(2, 0, 1) / 255 - read.mean) / read.deviation
    return values.flip(0) if read.flips else values


def bytes_of_pixels():
    return np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "kind", [kind for kind in (*BY_PROCESSOR, "MobileViT") if MODULES.get(kind, kind) is not None]
)
def test_what_a_file_does_not_say_is_what_its_class_does(kind, tmp_path):
    pixels = bytes_of_pixels()
    made = ours(tmp_path, {"image_processor_type": f"{kind}ImageProcessorFast"}, pixels)
    torch.testing.assert_close(made, reference(kind, {}, pixels).float(), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("EfficientNet", {"include_top": False, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}),
        ("EfficientNet", {"rescale_offset": True, "rescale_factor": 1 / 127.5, "include_top": False}),
        ("EfficientNet", {"do_normalize": False, "include_top": True}),
        ("MobileViT", {"do_flip_channel_order": False}),
        ("ViT", {"do_rescale": False, "image_mean": [100.0, 110.0, 120.0], "image_std": [50.0, 60.0, 70.0]}),
        ("ViT", {"do_rescale": False, "do_normalize": False}),
        ("ViT", {"rescale_factor": 1 / 127.5}),
        ("CLIP", {"image_mean": [0.1, 0.2, 0.3]}),
        ("CLIP", {"image_std": [0.1, 0.2, 0.3]}),
    ],
)
def test_what_a_file_says_is_what_its_class_makes_of_it(kind, config, tmp_path):
    pixels = bytes_of_pixels()
    made = ours(tmp_path, {"image_processor_type": f"{kind}ImageProcessor", **config}, pixels)
    torch.testing.assert_close(made, reference(kind, config, pixels).float(), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"image_mean": [0.5] * 3}, "it has no image_std"),
        ({"image_std": [0.5] * 3}, "it has no image_mean"),
        ({"size": 224}, "it has no image_mean"),
        ({"image_processor_type": "MineImageProcessor"}, "it has no image_mean, and what Mine takes then"),
        ({"image_processor_type": "ViTImageProcessor", "do_invert": True}, "'do_invert' might change pixels"),
        ({"image_processor_type": "ViTImageProcessor", "include_top": True}, "include_top is true"),
        ({"image_processor_type": "ViTImageProcessor", "rescale_offset": True}, "rescale_offset is true"),
        ({"image_processor_type": "ViTImageProcessor", "do_rescale": "no"}, "do_rescale is 'no'"),
        ({"image_processor_type": "ViTImageProcessor", "rescale_factor": 0}, "rescale_factor is 0"),
        ({"image_processor_type": "ViTImageProcessor", "rescale_factor": "x"}, "does not say how images"),
        ({"image_mean": [0.5] * 3, "image_std": [0.0] * 3}, "image_std greater than 0"),
        (
            {"image_mean": [float("nan")] * 3, "image_std": [0.5] * 3},
            "image_mean and image_std must be numbers|NaN",
        ),
        ({"image_mean": [0.5] * 2, "image_std": [0.5] * 3}, "does not say how images"),
    ],
)
def test_what_is_not_understood_is_an_error_that_names_it(config, problem, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=rf"preprocessor_config\.json.*({problem})"):
        read_preprocessor(tmp_path, "vit")


def test_a_processors_file_about_other_things_leaves_the_familys_usual_colours(tmp_path):
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "CLIPProcessor"}))
    usual = read_preprocessor(None, "clip_vision_model")
    assert torch.equal(read_preprocessor(tmp_path, "clip_vision_model").mean, usual.mean)


@torch.no_grad()
def test_a_model_of_blue_green_and_red_is_loaded_for_red_green_and_blue(tmp_path):
    sizes = {"hidden_sizes": [16, 16, 16], "neck_hidden_sizes": [8] * 6 + [16], "image_size": 64}
    theirs = transformers.MobileViTModel(transformers.MobileViTConfig(**sizes)).eval()
    theirs.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "MobileViTImageProcessor"}')
    encoder = parts.build("encoder", {"type": "transformers", "checkpoint": str(tmp_path)}).eval()
    pixels = torch.rand(1, 3, 64, 64)
    wanted = theirs(pixels.flip(1)).last_hidden_state.permute(0, 2, 3, 1)
    torch.testing.assert_close(encoder(pixels), wanted)
