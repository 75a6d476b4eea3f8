"""Image tokenizers that transformers has as well, of other sizes and options than the parity cases."""

from pathlib import Path

import pytest
import torch
from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAE, ChameleonVQVAEConfig
from transformers.models.emu3.modeling_emu3 import Emu3VQVAE, Emu3VQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAE, JanusVQVAEConfig

from chiasm.interop.family import all_families
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.verify import _replayed


def replayed(system, name, options, res, model, given, made):
    """A parity case of this model, replayed."""
    rules = {
        k: {"exact": True} if not v.is_floating_point() else {"atol": 1e-4, "rtol": 1e-4}
        for k, v in made.items()
    }
    told = {"system": system, "case": "other", "reference": {"class": name}, "outputs": rules}
    case = Case(Path("other.json"), told | {"config": {"config": options, "res": res}})
    case.__dict__["_stored"] = {
        **{f"param/{key}": tensor for key, tensor in model.state_dict().items()},
        **{f"input/{key}": tensor for key, tensor in given.items()},
        **{f"output/{key}": tensor for key, tensor in made.items()},
    }
    all_families()
    return _replayed(case)


@torch.no_grad()
def spread(model):
    """Weights large enough that every one of them shows in what comes out."""
    torch.manual_seed(1)
    for name, tensor in model.state_dict().items():
        if "running_var" in name:
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point():
            fan = tensor[0].numel() if tensor.ndim > 1 and "embedding" not in name else 9
            tensor.normal_(std=fan**-0.5)
    return model.eval()


@pytest.mark.parametrize(
    "options",
    [
        {"channel_multiplier": [2], "attn_type": "none", "beta": 0.5, "resolution": 6},
        {"channel_multiplier": [1, 2], "attn_resolutions": [5], "num_res_blocks": 2, "resolution": 10},
        {"channel_multiplier": [2, 1, 1], "attn_resolutions": [20, 5], "num_res_blocks": 1, "resolution": 20},
    ],
)
@torch.no_grad()
def test_chameleon(options):
    options = {"embed_dim": 4, "num_embeddings": 33, "latent_channels": 8, "base_channels": 32, **options}
    model = spread(ChameleonVQVAE(ChameleonVQVAEConfig(**options)))
    pixels = torch.randn(2, 3, options["resolution"], options["resolution"])
    inner = model.encoder(pixels)
    latents = model.quant_conv(inner)
    _, loss, codes = model.quantize(latents)
    made = {"z": latents, "quant": inner, "indices": codes.flatten(), "emb_loss": loss}
    result = replayed("chameleon", "ChameleonVQVAE", options, 0, model, {"img": pixels}, made)
    assert result.agrees, result


@pytest.mark.parametrize(
    "options",
    [
        {"channel_multiplier": [1], "num_patches": 5, "num_res_blocks": 3},
        {"channel_multiplier": [2, 1, 2], "num_patches": 4, "num_res_blocks": 1, "beta": 0.4},
    ],
)
@torch.no_grad()
def test_janus(options):
    options = {"embed_dim": 4, "num_embeddings": 33, "latent_channels": 8, "base_channels": 32, **options}
    model = spread(JanusVQVAE(JanusVQVAEConfig(**options, projection_dim=8, image_token_embed_dim=8)))
    side = options["num_patches"] * 2 ** (len(options["channel_multiplier"]) - 1)
    pixels = torch.randn(2, 3, side, side)
    inner = model.encoder(pixels)
    latents = model.quant_conv(inner)
    _, loss, codes = model.quantize(latents)
    made = {"z": latents, "quant": inner, "indices": codes.flatten(), "emb_loss": loss}
    made["rec"] = model.decode(codes.view(2, -1))
    result = replayed("janus", "JanusVQVAE", options, side, model, {"img": pixels}, made)
    assert result.agrees, result


@pytest.mark.parametrize(
    ("options", "frames"),
    [
        ({"channel_multiplier": [1, 2], "attn_resolutions": [], "temporal_downsample_factor": 2}, 0),
        ({"channel_multiplier": [1, 1, 2], "attn_resolutions": [2], "temporal_downsample_factor": 2}, 4),
        ({"channel_multiplier": [2], "attn_resolutions": [0], "temporal_downsample_factor": 1}, 3),
    ],
)
@torch.no_grad()
def test_emu3(options, frames):
    options = {"codebook_size": 33, "embed_dim": 4, "latent_channels": 4, "base_channels": 32, **options}
    options |= {"num_res_blocks": 1, "hidden_size": 64}
    model = spread(Emu3VQVAE(Emu3VQVAEConfig(**options)))
    side = 4 * 2 ** (len(options["channel_multiplier"]) - 1)
    pixels = torch.randn(1, frames, 3, side, side) if frames else torch.randn(2, 3, side, side)
    still = options["temporal_downsample_factor"]
    moving = pixels if frames else pixels[:, None].repeat(1, still, 1, 1, 1)
    latents = model.quant_conv(model.encoder(moving).transpose(1, 2)).transpose(1, 2)
    codes = model.quantize(latents) if frames else model.quantize(latents)[:, 0]
    made = {"z": latents, "codes": codes, "rec": model.decode(codes)}
    result = replayed("emu3", "Emu3VQVAE", options, side, model, {"pixel_values": pixels}, made)
    assert result.agrees, result
