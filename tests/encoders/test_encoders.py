"""What every registered encoder must do, and what the small ones compute."""

import copy
import json

import pytest
import torch
from safetensors.torch import load, save
from torch.nn import functional

from chiasm import parts
from chiasm.errors import RecipeError
from chiasm.storage.cache import fingerprint
from chiasm.storage.weights import load_into

# Options that make a part small enough for a test, or that it cannot do without.
SMALL = {
    "efficientnet_lite": {"checkpoint": None},
    "patches": {"patch_size": 8},
    "eva": {"size": 32, "patch_size": 8, "width": 24, "depth": 2, "heads": 3, "hidden": 20, "rotary": 4},
    "sam": {
        "size": 32,
        "patch_size": 8,
        "width": 24,
        "depth": 2,
        "heads": 3,
        "hidden": 48,
        "window": 3,
        "global_layers": [1],
        "neck": 10,
        "downsample": [12],
        "early": True,
    },
    "hybrid": {
        "encoders": [
            {"type": "patches", "patch_size": 8},
            {"type": "vit", "patch_size": 8, "depth": 1, "size": 32},
        ],
        "sizes": [None, None],
    },
    "qwen_vl": {
        "patch_size": 8,
        "width": 24,
        "depth": 2,
        "heads": 3,
        "hidden": 40,
        "side": 2,
        "out_width": 16,
        "pool_heads": 2,
    },
    "windows": {
        "encoder": {
            "type": "qwen_vl",
            "patch_size": 4,
            "width": 24,
            "depth": 2,
            "heads": 3,
            "hidden": 40,
            "side": 2,
            "out_width": 16,
            "pool_heads": 2,
        },
        "window": 16,
        "updates": 1,
        "crossings": [1],
        "crossing_widths": [8],
        "crossing_heads": [2],
        "crossing_window": 3,
        "crossing_side": 8,
    },
    "vit": {"patch_size": 8, "width": 24, "depth": 2, "heads": 3, "size": 32},
    "transformers": {
        "config": {
            "model_type": "clip_vision_model",
            "hidden_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "image_size": 32,
            "patch_size": 8,
        },
        "layer": -2,
    },
    "siglip_naflex": {
        "config": {
            "model_type": "siglip2_vision_model",
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "num_patches": 16,
            "patch_size": 8,
        },
    },
    "siglip_native": {
        "config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "image_size": 32,
            "patch_size": 8,
        },
    },
}


def encoder(name, **options):
    return parts.build("encoder", {"type": name, **SMALL.get(name, {}), **options})


@pytest.mark.parametrize("name", parts.names("encoder"))
@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_an_encoder_makes_the_grid_and_width_it_says(name, size):
    part = encoder(name)
    assert part(torch.rand(2, 3, *size)).shape == (2, *part.grid(*size), part.width)


@pytest.mark.parametrize("name", parts.names("encoder"))
def test_every_trainable_parameter_of_an_encoder_gets_a_gradient(name):
    part = encoder(name)
    pixels = torch.rand(2, 3, 64, 64, requires_grad=True)
    part(pixels).square().sum().backward()
    assert [key for key, p in part.named_parameters() if p.requires_grad and p.grad is None] == []
    assert pixels.grad.abs().sum() > 0


@pytest.mark.parametrize("name", parts.names("encoder"))
def test_a_saved_encoder_is_bit_equal_when_loaded(name):
    part, other, pixels = encoder(name).eval(), encoder(name).eval(), torch.rand(2, 3, 32, 32)
    other.load_state_dict(load(save(part.state_dict())))
    assert torch.equal(part(pixels), other(pixels))


@pytest.mark.parametrize("name", parts.names("encoder"))
def test_an_encoder_is_rebuilt_without_its_checkpoint(name):
    part, pixels = encoder(name).eval(), torch.rand(2, 3, 32, 32)
    options = json.loads(json.dumps({**SMALL.get(name, {}), **part.standalone()}))
    other = parts.build("encoder", {"type": name, **options}).eval()
    load_into(other, part.state_dict(), "here")
    assert torch.equal(part(pixels), other(pixels))


@pytest.mark.parametrize("name", parts.names("encoder"))
def test_an_encoder_is_the_same_in_training_and_in_evaluation(name):
    """No dropout and no moving statistics by default: cached features stay right."""
    part, pixels = encoder(name), torch.rand(2, 3, 32, 32)
    assert torch.equal(part.train()(pixels), part.eval()(pixels))


@pytest.mark.parametrize("name", parts.names("encoder"))
def test_an_encoder_can_be_copied(name):
    part, pixels = encoder(name).eval(), torch.rand(1, 3, 32, 32)
    assert torch.equal(copy.deepcopy(part)(pixels), part(pixels))


@pytest.mark.parametrize("name", parts.names("encoder"))
def test_bfloat16_autocast_stays_near_single_precision(name):
    part, pixels = encoder(name).eval(), torch.rand(2, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = part(pixels).float()
    full = part(pixels)
    assert (half - full).norm() / full.norm() < 0.05


@pytest.mark.parametrize("name", parts.names("encoder"))
def test_pictures_of_a_batch_do_not_see_each_other(name):
    part, pixels = encoder(name).eval(), torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(part(pixels)[1:2], part(pixels[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["patches", "vit", "transformers"])
def test_a_size_that_cannot_be_cut_into_patches_is_a_sentence(name):
    with pytest.raises(RecipeError, match="cannot cut 30x32 pixels into patches of 8"):
        encoder(name).grid(30, 32)
    with pytest.raises(RecipeError, match="cannot cut 30x32 pixels into patches of 8"):
        encoder(name)(torch.rand(1, 3, 30, 32))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("patches", {"patch_size": 16}),
        ("vit", {"heads": 2}),
        ("efficientnet_lite", {"strides": [32, 16]}),
        ("transformers", {"class_token": "join"}),
    ],
)
def test_encoders_that_compute_something_else_share_no_cache(name, change):
    """Also where their tensors are equal: what is not in the state dict stands in the printed module."""
    part, other = encoder(name), encoder(name, **change)
    other.load_state_dict(part.state_dict())
    assert fingerprint(part) != fingerprint(other)
    assert fingerprint(part) == fingerprint(copy.deepcopy(part))


def test_patches_are_the_pixels_in_the_order_row_column_colour():
    pixels = torch.rand(1, 3, 16, 24)
    made = encoder("patches", patch_size=8)(pixels)
    expected = [
        (pixels[0, colour, 8 + row, 16 + column] - 0.5) / 0.5
        for row in range(8)
        for column in range(8)
        for colour in range(3)
    ]
    torch.testing.assert_close(made[0, 1, 2], torch.stack(expected))


def test_patches_are_those_of_fuyu():
    from transformers.models.fuyu.image_processing_pil_fuyu import FuyuImageProcessorPil

    pixels = torch.rand(1, 3, 16, 24)
    processor = FuyuImageProcessorPil(patch_size={"height": 8, "width": 8})
    expected = torch.from_numpy(processor.patchify_image(((pixels - 0.5) / 0.5).numpy()))
    torch.testing.assert_close(encoder("patches", patch_size=8)(pixels).reshape(6, 192), expected)


def test_vit_equals_torch_transformer_layers_with_the_same_weights():
    part = encoder("vit").eval()
    pixels = torch.rand(2, 3, 32, 32)
    x = functional.conv2d((pixels - 0.5) / 0.5, part.patchify.weight, part.patchify.bias, 8) + part.positions
    x = x.flatten(2).transpose(1, 2)
    for block in part.blocks:
        layer = torch.nn.TransformerEncoderLayer(
            24, 3, 96, 0.0, "gelu", batch_first=True, norm_first=True
        ).eval()
        layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias = block.qkv.weight, block.qkv.bias
        layer.self_attn.out_proj = block.out
        layer.norm1, layer.norm2, layer.linear1, layer.linear2 = (
            block.attention_norm,
            block.mlp_norm,
            *block.mlp[::2],
        )
        x = layer(x)
    torch.testing.assert_close(part(pixels), part.norm(x).reshape(2, 4, 4, 24), rtol=1e-4, atol=1e-5)


def test_vit_positions_of_another_size_keep_their_place():
    part = encoder("vit")
    with torch.no_grad():  # a slope from left to right stays one
        part.positions.copy_(torch.arange(4.0).expand(1, 24, 4, 4))
    wide = part._positions(4, 8)
    assert wide.shape == (1, 24, 4, 8)
    assert (wide.diff(dim=-1) > 0).all()
    torch.testing.assert_close(wide[..., 0, :], wide[..., 3, :])


def test_vit_heads_must_divide_the_width():
    with pytest.raises(RecipeError, match="5 heads do not divide the width 24"):
        encoder("vit", heads=5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_positions_are_resized_in_narrow_numbers_too(dtype):
    encoder = parts.build("encoder", {"type": "vit", "width": 8, "depth": 1, "heads": 2, "size": 64}).to(
        dtype
    )
    assert encoder(torch.rand(1, 3, 32, 48, dtype=dtype)).dtype == dtype
