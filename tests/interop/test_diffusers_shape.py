"""The configuration of a network of diffusers follows from its tensors, whatever its sizes."""

import pytest

from chiasm.interop.shapes.diffusers_shape import added_shape, unet_shape, vae_shape

CROSSED, PLAIN = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"), ("DownBlock2D", "UpBlock2D")


def unet(*blocks, widths=(16, 32), **options):
    types = {
        "down_block_types": [down for down, _ in blocks],
        "up_block_types": [up for _, up in blocks[::-1]],
    }
    return {
        "block_out_channels": widths,
        "cross_attention_dim": 12,
        "attention_head_dim": 4,
        **types,
        **options,
    }


@pytest.mark.parametrize(
    "config",
    [
        unet(CROSSED, PLAIN, layers_per_block=1),
        unet(PLAIN, CROSSED, layers_per_block=2, transformer_layers_per_block=[1, 3]),
        unet(CROSSED, PLAIN, layers_per_block=1, transformer_layers_per_block=2),
        unet(CROSSED, CROSSED, PLAIN, widths=(16, 48, 32), use_linear_projection=True, in_channels=8),
        unet(
            CROSSED,
            PLAIN,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=20 + 6 * 8,
        ),
    ],
)
def test_of_a_unet(config):
    from diffusers import UNet2DConditionModel

    tensors = UNet2DConditionModel(**config, norm_num_groups=16).state_dict()
    found = unet_shape(tensors, heads=4, groups=16)
    if "addition_embed_type" in config:
        found |= added_shape(tensors, pooled=20)
        assert found["addition_time_embed_dim"] == 8
    UNet2DConditionModel(**found).load_state_dict(tensors)


@pytest.mark.parametrize(
    "options",
    [
        {"block_out_channels": (8, 16)},
        {"block_out_channels": (8, 8, 16), "layers_per_block": 2, "latent_channels": 6},
        {"block_out_channels": (8, 16), "mid_block_add_attention": False},
        {"block_out_channels": (8, 16), "use_quant_conv": False, "use_post_quant_conv": False},
    ],
)
def test_of_an_autoencoder(options):
    from diffusers import AutoencoderKL

    blocks = len(options["block_out_channels"])
    types = {
        "down_block_types": ["DownEncoderBlock2D"] * blocks,
        "up_block_types": ["UpDecoderBlock2D"] * blocks,
    }
    tensors = AutoencoderKL(**options, **types, norm_num_groups=8).state_dict()
    AutoencoderKL(**vae_shape(tensors, groups=8, scaling=0.2)).load_state_dict(tensors)
