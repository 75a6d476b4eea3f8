"""What all autoencoders share: which codes are counted when, what is refused, and how videos become pictures."""

import math

import pytest
import torch
from plain import pictures
from torch import nn

from chiasm.errors import ChiasmError, RecipeError
from chiasm.nn.losses import Loss
from chiasm.nn.stepwise import after_step, forget
from chiasm.tokenizers import join_scales, split_scales
from chiasm.tokenizers.autoencoder import QuantizedAutoencoder, VideoAutoencoder
from chiasm.tokenizers.quantizers import Quantized, Quantizer

COLOURS = 4  # codes: how red a patch is, in quarters


class Quarters(Quantizer):
    """The code of one channel in [0, 1] is which quarter it lies in, its vector the quarter's middle."""

    width, codebook_size = 1, COLOURS

    def forward(self, latents):
        assert not torch.is_autocast_enabled("cpu")
        codes = self.encode(latents)
        vectors = self.vectors(codes)
        losses = {"commitment": Loss.of((latents - vectors).square(), 0.5)}
        return Quantized(latents + (vectors - latents).detach(), codes, losses)

    def encode(self, latents):
        assert latents.dtype == torch.float32
        return (latents[..., 0] * COLOURS).long().clamp(0, COLOURS - 1)

    def vectors(self, codes):
        return (codes[..., None] + 0.5) / COLOURS


class Patches(QuantizedAutoencoder):
    """The mean red of patches of 2 x 2 pixels; drawn in red, green and blue at `bright` times that."""

    name = "patches"

    def __init__(self, size=4, bright=1.0, **options):
        super().__init__(size=size, factor=2, quantizer=Quarters(), **options)
        self.bright = bright
        self.decoder = nn.Module()
        self.decoder.conv_out = nn.Conv2d(1, 1, 1)

    def latents(self, pixels):
        return pixels[:, :1].unflatten(3, (-1, 2)).mean(-1).unflatten(2, (-1, 2)).mean(3).permute(0, 2, 3, 1)

    def render(self, vectors):
        return self.bright * vectors.permute(0, 3, 1, 2).repeat(1, 3, 1, 1).repeat_interleave(
            2, 2
        ).repeat_interleave(2, 3)


class Clips(VideoAutoencoder, Patches):
    """Pairs of frames as one grid: the mean red of both."""

    name = "clips"
    still = 2

    def time_grids(self, frames):
        return frames // 2

    def video_latents(self, video):
        both = video.unflatten(1, (-1, 2)).mean(2)
        return torch.stack([Patches.latents(self, each) for each in both.unbind(1)], 1)

    def render_video(self, vectors):
        frames = torch.stack([Patches.render(self, each) for each in vectors.unbind(1)], 1)
        return frames.repeat_interleave(2, 1)


def grey(*values):
    """A picture of 4 x 4 pixels for each row of four: of each of its patches, how bright."""
    patches = torch.tensor(values).view(-1, 1, 2, 2).expand(-1, 3, -1, -1)
    return patches.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_codes_stand_in_a_grid_of_patches_and_pixels_are_cut_off():
    tokenizer = Patches(bright=2.0)
    assert tokenizer.grid == (2, 2)
    assert (tokenizer.scales, tokenizer.codebooks, tokenizer.end) == (((2, 2),), 1, None)
    codes = tokenizer.encode(grey([0.1, 0.3, 0.6, 1.0]))
    assert codes.tolist() == [[[0, 1], [2, 3]]]
    assert torch.equal(tokenizer.decode(codes), grey([0.25, 0.75, 1.0, 1.0]))
    assert tokenizer.decode(0 * codes).min() == 0.25
    tokenizer.bright = -1.0
    assert tokenizer.decode(codes).max() == 0


def test_its_arithmetic_is_fp32_whatever_the_autocast():
    tokenizer, pixels = Patches(), grey([0.1, 0.3, 0.6, 1.0])
    with torch.autocast("cpu", torch.bfloat16):
        assert tokenizer.encode(pixels.bfloat16()).tolist() == [[[0, 1], [2, 3]]]
        assert set(tokenizer.losses(pixels)) == {"reconstruction", "commitment"}


def test_losses_are_the_absolute_error_in_minus_one_to_one_and_the_quantizers():
    tokenizer, pixels = Patches(), grey([0.1, 0.3, 0.6, 1.0], [0.0, 0.0, 0.0, 0.0])
    losses = tokenizer.losses(pixels)
    misses = torch.tensor([0.025, 0.075, 0.025, 0.125, *[0.125] * 4])
    assert float(losses["reconstruction"].sum) == pytest.approx(float(2 * misses.sum() * 12), rel=1e-5)
    assert losses["reconstruction"].count == 2 * 3 * 16
    assert float(losses["commitment"].mean) == pytest.approx(float(misses.square().mean()), rel=1e-5)
    assert losses["commitment"].weight == 0.5


class Listening(nn.Module):
    """A critic that is only handed on."""


def test_critics_are_asked_about_pictures_behind_their_error(monkeypatch):
    heard = []

    def criticised(critics, made, true, reconstruction, last):
        heard.append((list(critics), made, true, reconstruction, last))
        return {"reconstruction": reconstruction, "critic": Loss.of(made)}

    monkeypatch.setattr("chiasm.tokenizers.autoencoder.criticised", criticised)
    critic = Listening()
    tokenizer, video = Clips(critics=[critic]), pictures(2, 4, 3, 4, 4)
    losses = tokenizer.video_losses(video)
    assert set(losses) == {"reconstruction", "critic", "commitment"}
    critics, made, true, reconstruction, last = heard[0]
    assert critics == [critic]
    assert torch.equal(true, video.flatten(0, 1))
    assert made.shape == true.shape
    assert float(reconstruction.sum) == pytest.approx(float(2 * (made - true).abs().sum()), rel=1e-5)
    assert last is tokenizer.decoder.conv_out.weight


def counted(tokenizer, *batches):
    """One step over micro-batches."""
    for each in batches:
        tokenizer.losses(each)
    after_step(tokenizer)
    return tokenizer.frequency.tolist()


def test_the_use_of_codes_is_a_moving_average_over_steps_in_training():
    tokenizer = Patches().train()
    first, second = grey([0.1, 0.1, 0.3, 0.6]), grey([0.1, 0.6, 0.6, 0.6], [0.3, 0.3, 0.3, 0.3])
    assert counted(tokenizer, first, second) == pytest.approx([0.03, 0.05, 0.04, 0.0])
    assert counted(tokenizer, first) == pytest.approx(
        [0.99 * 0.03 + 0.02, 0.99 * 0.05 + 0.01, 0.99 * 0.04 + 0.01, 0.0]
    )
    before = tokenizer.frequency.clone()
    counted(tokenizer)
    tokenizer.losses(first)
    forget(tokenizer)
    counted(tokenizer)
    counted(tokenizer.eval(), first)
    assert torch.equal(tokenizer.frequency, before)
    assert "frequency" not in tokenizer.state_dict()


def test_health_is_the_share_of_codes_used_of_late_and_the_perplexity_of_their_use():
    tokenizer = Patches()
    assert tokenizer.health() == {"codebook_use": 0.0, "perplexity": 1.0}
    tokenizer.frequency.copy_(torch.tensor([2.0, 1.0, 1.0, 0.0]))
    entropy = 0.5 * math.log(2) + 2 * 0.25 * math.log(4)
    assert tokenizer.health() == {"codebook_use": 0.75, "perplexity": pytest.approx(math.exp(entropy))}
    tokenizer.frequency.copy_(
        torch.tensor([1.0, 1.0, 1e-3, 1e-4])
    )  # a thousandth of an even share counts no more
    assert tokenizer.health()["codebook_use"] == 0.75
    tokenizer.frequency.copy_(torch.tensor([8.0, 0.0, 0.0, 0.0]))
    assert tokenizer.health() == {"codebook_use": 0.25, "perplexity": pytest.approx(1.0)}
    tokenizer.quantize.health = lambda: {"revived": 3.0}
    assert tokenizer.health()["revived"] == 3.0


def test_what_does_not_fit_is_refused():
    tokenizer = Patches()
    with pytest.raises(RecipeError, match="image_tokenizer 'patches': size 5 is no multiple of 2"):
        Patches(size=5)
    for call in (tokenizer.encode, tokenizer.losses):
        with pytest.raises(ChiasmError, match=r"\(3, 4, 6\) given to a tokenizer of \(3, 4, 4\)"):
            call(torch.zeros(1, 3, 4, 6))
    with pytest.raises(ChiasmError, match=r"shape \(1, 2, 3\) given to a tokenizer of grid \(2, 2\)"):
        tokenizer.decode(torch.zeros(1, 2, 3, dtype=torch.long))
    for codes, least, most in (([0, 4], 0, 4), ([-1, 3], -1, 3)):
        with pytest.raises(ChiasmError, match=rf"codes from {least} to {most} .* of 4 codes \(0 to 3\)"):
            tokenizer.decode(torch.tensor(codes).repeat(2).view(1, 2, 2))
    assert tokenizer.decode(torch.zeros(0, 2, 2, dtype=torch.long)).shape == (0, 3, 4, 4)


def test_a_picture_is_a_video_that_stands_still():
    tokenizer = Clips()
    pixels = grey([0.1, 0.3, 0.6, 1.0], [0.9, 0.9, 0.0, 0.0])
    assert torch.equal(tokenizer.encode(pixels), Patches().encode(pixels))
    codes = tokenizer.encode(pixels)
    assert torch.equal(tokenizer.decode(codes), Patches().decode(codes))
    clip = torch.stack([pixels, pixels.flip(0), pixels, pixels], 1)
    grids = tokenizer.encode_video(clip)
    assert grids.shape == (2, 2, 2, 2)
    assert torch.equal(grids[:, 1], codes)
    assert grids[0, 0].tolist() == [[2, 2], [1, 2]]  # the means of both
    frames = tokenizer.decode_video(grids)
    assert frames.shape == clip.shape
    assert torch.equal(frames[:, 2], tokenizer.decode(codes))
    assert 0 <= frames.min() <= frames.max() <= 1


def test_losses_of_videos_are_those_of_their_frames():
    tokenizer, clip = Clips().train(), pictures(2, 4, 3, 4, 4)
    losses = tokenizer.video_losses(clip)
    made = tokenizer.decode_video(tokenizer.encode_video(clip))
    assert float(losses["reconstruction"].mean) == pytest.approx(
        float(2 * (made - clip).abs().mean()), rel=1e-5
    )
    assert losses["reconstruction"].count == clip.numel()
    assert losses["commitment"].count == 2 * 2 * 4
    after_step(tokenizer)
    assert float(tokenizer.frequency.sum()) == pytest.approx(0.01 * 2 * 2 * 4)


def test_videos_are_cut_off_and_refused_like_pictures():
    tokenizer = Clips(bright=3.0)
    codes = torch.full((1, 2, 2, 2), 3)
    assert tokenizer.decode_video(codes).max() == 1
    tokenizer.bright = -3.0
    assert tokenizer.decode_video(codes).min() == 0
    with pytest.raises(ChiasmError, match="codes from 3 to 4"):
        tokenizer.decode_video(codes.index_fill(1, torch.tensor([1]), 4))
    for call in (tokenizer.encode_video, tokenizer.video_losses):
        with pytest.raises(ChiasmError, match=r"\(3, 4, 2\) given to a tokenizer of \(3, 4, 4\)"):
            call(torch.zeros(1, 2, 3, 4, 2))
    tokenizer.render_video = lambda vectors: torch.zeros(len(vectors), 6, 3, 4, 4)
    with pytest.raises(
        ChiasmError, match=r"clips of 4 frames given to image_tokenizer 'clips', .* stand for 6;"
    ):
        tokenizer.video_losses(torch.zeros(1, 4, 3, 4, 4))


def test_scales_stand_in_one_row_the_coarsest_first_each_in_raster_order():
    scales = [(1, 1), (2, 3)]
    grids = [torch.tensor([[[9]], [[8]]]), torch.arange(12).view(2, 2, 3)]
    row = join_scales(grids)
    assert row.tolist() == [[[9, 0, 1, 2, 3, 4, 5]], [[8, 6, 7, 8, 9, 10, 11]]]
    assert all(torch.equal(a, b) for a, b in zip(split_scales(row, scales), grids, strict=True))
