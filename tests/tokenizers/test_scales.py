"""Tokenizers with several scales, and those of moving pictures."""

import pytest
import torch

from chiasm import parts
from chiasm.errors import ChiasmError
from chiasm.nn.losses import objective
from chiasm.nn.stepwise import after_step
from chiasm.tokenizers import join_scales, split_scales
from chiasm.tokenizers.multi_scale import MultiScale
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


@pytest.mark.parametrize(
    ("name", "options", "frames", "grids"),
    [
        ("open_magvit2_video", {"quantizer": {"type": "lfq", "bits": 5}}, (1, 5, 9), (1, 2, 3)),
        ("vqgan_video", {"attention_levels": [2], "quantizer": {"type": "nearest"}}, (4, 8), (1, 2)),
    ],
)
def test_videos_become_grids_and_frames_again(name, options, frames, grids):
    torch.manual_seed(0)
    options = {
        **SMALL,
        "size": 16,
        **options,
        "multipliers": [2, 2, 1] if name == "open_magvit2_video" else [1, 1, 1],
    }
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
