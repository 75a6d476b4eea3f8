"""Tokenizers with several scales, and those of moving pictures."""

import pytest
import torch

from chiasm import parts
from chiasm.errors import ChiasmError, RecipeError
from chiasm.losses import objective
from chiasm.stepwise import after_step
from chiasm.tokenizers import join_scales, split_scales
from chiasm.tokenizers.multi_scale import MultiScale, nearest_convolution
from chiasm.tokenizers.vqvae2 import VQVAE2

SMALL = {"width": 32, "multipliers": [1, 2, 2], "depth": 1}


def multi_scale(**options):
    defaults = {"scales": [1, 2, 4], "code_width": 8, "codebook_size": 12, "convolutions": 0}
    return MultiScale(**(SMALL | defaults | options))


def vqvae2():
    return VQVAE2(size=16, width=16, depth=1, residual_width=8, code_width=8, codebook_size=12)


@pytest.mark.parametrize("make", [multi_scale, vqvae2])
def test_all_scales_stand_in_one_row_and_become_pixels(make):
    torch.manual_seed(0)
    tokenizer = make().eval()
    pixels = torch.rand(2, 3, 16, 16)
    codes = tokenizer.encode(pixels)
    assert codes.shape == (2, *tokenizer.grid)
    parts = split_scales(codes, tokenizer.scales)
    assert [tuple(part.shape[1:]) for part in parts] == list(tokenizer.scales)
    assert torch.equal(join_scales(parts), codes)
    made = tokenizer.decode(codes)
    assert made.shape == pixels.shape
    assert made.min() >= 0
    assert made.max() <= 1
    with pytest.raises(ChiasmError, match="codes from 0 to 12 given to a tokenizer of 12 codes"):
        tokenizer.decode(torch.full_like(codes, 12).index_fill_(2, torch.tensor([0]), 0))
    with pytest.raises(ChiasmError, match="grid"):
        tokenizer.decode(codes[..., 1:])
    with pytest.raises(ChiasmError, match=r"\(3, 16, 8\)"):
        tokenizer.encode(pixels[..., :8])


@pytest.mark.parametrize("make", [multi_scale, vqvae2])
def test_everything_learns_and_the_loss_falls(make):
    torch.manual_seed(0)
    tokenizer, pixels = make().train(), torch.rand(4, 3, 1, 1).expand(-1, -1, 16, 16)
    optimiser = torch.optim.AdamW(tokenizer.parameters(), 2e-3)
    history = []
    for _ in range(50 if make is vqvae2 else 15):
        losses = tokenizer.losses(pixels)
        optimiser.zero_grad()
        objective(losses).backward()
        assert all(parameter.grad is not None for parameter in tokenizer.parameters())
        optimiser.step()
        after_step(tokenizer)
        history.append(losses["reconstruction"].mean.item())
    assert history[-1] < 0.9 * history[0]
    assert all(value >= 0 for value in tokenizer.health().values())


def test_every_scale_refines_what_is_left():
    torch.manual_seed(0)
    tokenizer = multi_scale(blend=0.0, codebook_size=64).eval()
    torch.nn.init.normal_(tokenizer.quantize.embedding.weight, std=0.5)
    latents = torch.randn(8, 4, 4, 8)
    made = tokenizer.quantize.progress(tokenizer.quantize.encode(latents))
    misses = [(each - latents.permute(0, 3, 1, 2)).square().mean() for each in made]
    assert misses[0] > misses[-1]
    # What the next scale reads is known from the codes before it alone.
    codes = tokenizer.quantize.encode(latents)
    inputs = tokenizer.quantize.next_inputs(codes)
    assert inputs.shape == (8, 2 * 2 + 4 * 4, 8)
    assert torch.equal(inputs[:, :4], tokenizer.quantize.next_inputs(codes[..., :1])[:, :4])


def test_the_last_scale_alone_is_a_plain_codebook():
    torch.manual_seed(0)
    tokenizer = multi_scale(scales=[4], blend=0.0).eval()
    latents = torch.randn(2, 4, 4, 8)
    codes = tokenizer.quantize.encode(latents)
    distances = torch.cdist(latents.flatten(0, 2), tokenizer.quantize.embedding.weight)
    assert torch.equal(codes.flatten(), distances.argmin(-1))


def test_convolutions_are_spread_over_the_scales():
    assert [nearest_convolution(i, 6, 4) for i in range(6)] == [0, 0, 1, 2, 3, 3]
    assert [nearest_convolution(i, 3, 3) for i in range(3)] == [0, 1, 2]
    assert nearest_convolution(0, 1, 1) == 0


def test_scales_that_do_not_grow_are_refused():
    with pytest.raises(RecipeError, match="must grow"):
        multi_scale(scales=[1, 4, 2])


@pytest.mark.parametrize(
    ("name", "options", "frames", "grids"),
    [
        ("lfq_video", {"bits": 5}, (1, 5, 9), (1, 2, 3)),
        ("vqgan_video", {"attention_levels": [2], "codebook_size": 12}, (4, 8), (1, 2)),
    ],
)
def test_videos_become_grids_and_frames_again(name, options, frames, grids):
    torch.manual_seed(0)
    options = {**SMALL, "size": 16, **options, "multipliers": [2, 2, 1] if name == "lfq_video" else [1, 1, 1]}
    tokenizer = parts.build("image_tokenizer", {"type": name, **options}).eval()
    for count, made in zip(frames, grids, strict=True):
        video = torch.rand(2, count, 3, 16, 16)
        codes = tokenizer.encode_video(video)
        assert codes.shape == (2, made, *tokenizer.grid)
        again = tokenizer.decode_video(codes)
        assert again.shape == video.shape
        assert 0 <= again.min() <= again.max() <= 1
    picture = torch.rand(2, 3, 16, 16)
    still = picture[:, None].expand(-1, tokenizer.still, -1, -1, -1)
    assert torch.equal(tokenizer.encode(picture), tokenizer.encode_video(still)[:, 0])


def test_no_code_knows_a_later_frame():
    """Of the frames' encoder only: the normalisations in between see all frames, as published."""
    from chiasm.tokenizers.magvit import CausalConv3d

    layer = CausalConv3d(2, 2, 3)
    video = torch.randn(1, 2, 5, 4, 4)
    changed = video.clone()
    changed[:, :, 3:] += 1
    assert torch.equal(layer(video)[:, :, :3], layer(changed)[:, :, :3])
