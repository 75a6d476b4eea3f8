"""Open-MAGVIT2's encoder and decoder equal the network written out, of pictures and of moving pictures."""

import pytest
import torch
from plain import convolve, group_norm, noise, shaken, silu
from torch.nn import functional

from chiasm.errors import RecipeError
from chiasm.tokenizers.magvit import CausalConv3d, MagvitDecoder, MagvitEncoder, flat

MULTIPLIERS = [
    2,
    1,
    2,
]  # moving pictures lose half of their frames behind the first level, and none behind the second


def causal(x, w, name, stride=(1, 1, 1)):
    """Each frame as the sum of what it and the frames before it give; before the first there are zeros."""
    weight, bias = w[f"{name}.weight"], w.get(f"{name}.bias")
    reach = weight.shape[2]
    frames = []
    for t in range(0, x.shape[2], stride[0]):
        parts = [
            functional.conv2d(
                x[:, :, t - back], weight[:, :, reach - 1 - back], None, stride[1], weight.shape[3] // 2
            )
            for back in range(min(reach, t + 1))
        ]
        frames.append(sum(parts))
    made = torch.stack(frames, 2)
    return made if bias is None else made + bias.view(-1, 1, 1, 1)


def still(x, w, name, stride=(1, 1, 1)):
    every = convolve(x, w, name)
    return every[:, :, :: stride[1], :: stride[2]]


def residual(x, w, name, conv):
    assert f"{name}.conv1.bias" not in w
    assert f"{name}.conv2.bias" not in w
    hidden = conv(silu(group_norm(x, w, f"{name}.norm1")), w, f"{name}.conv1")
    hidden = conv(silu(group_norm(hidden, w, f"{name}.norm2")), w, f"{name}.conv2")
    if f"{name}.nin_shortcut.weight" not in w:
        return hidden + x
    assert f"{name}.nin_shortcut.bias" not in w
    return hidden + conv(x, w, f"{name}.nin_shortcut")


def blocks(x, w, name, depth, conv):
    for i in range(depth):
        x = residual(x, w, f"{name}.{i}", conv)
    assert not any(each.startswith(f"{name}.{depth}.") for each in w)
    return x


def encode(x, w, depth, conv):
    assert "conv_in.bias" not in w
    x = conv(x, w, "conv_in")
    for level, multiplier in enumerate(MULTIPLIERS):
        x = blocks(x, w, f"down.{level}.block", depth, conv)
        if level < 2:
            x = conv(x, w, f"down.{level}.downsample", (1 if multiplier == 1 else 2, 2, 2))
    x = blocks(x, w, "mid_block", depth, conv)
    return conv(silu(group_norm(x, w, "norm_out")), w, "conv_out")


def unfolded(x, moving):
    """Each position becomes two a side, and of moving pictures each frame but the first two in time."""
    if x.ndim == 4:
        return unfolded(x[:, :, None], False)[:, :, 0]
    n, channels, t, h, w = x.shape
    s = 2 if moving else 1
    parts = x.view(n, s, 2, 2, channels // (4 * s), t, h, w)
    made = torch.zeros(n, channels // (4 * s), t * s, h * 2, w * 2)
    for i in range(s):
        for a in range(2):
            for b in range(2):
                made[:, :, i::s, a::2, b::2] = parts[:, i, a, b]
    return made[:, :, [0, *range(2, t * s)]] if moving else made


def styled(x, codes, w, name):
    """A group norm whose scale and shift the codes' deviation and mean give."""
    along = (...,) + (None,) * (x.ndim - 2)
    flat_codes = codes.flatten(2)
    mean = flat_codes.mean(2)
    deviation = ((flat_codes - mean[..., None]).square().sum(2) / (flat_codes.shape[2] - 1) + 1e-6).sqrt()
    scale = deviation @ w[f"{name}.gamma.weight"].T + w[f"{name}.gamma.bias"]
    shift = mean @ w[f"{name}.beta.weight"].T + w[f"{name}.beta.bias"]
    plain = {"n.weight": torch.ones(x.shape[1]), "n.bias": torch.zeros(x.shape[1])}
    return scale[along] * group_norm(x, plain, "n") + shift[along]


def decode(codes, w, depth, conv):
    x = blocks(conv(codes, w, "conv_in"), w, "mid_block", depth, conv)
    for level in reversed(range(3)):
        x = styled(x, codes, w, f"adaptive.{level}")
        x = blocks(x, w, f"up.{level}.block", depth, conv)
        if level:
            moving = conv is causal and MULTIPLIERS[level - 1] != 1
            x = unfolded(conv(x, w, f"up.{level}.upsample.conv1"), moving)
    return conv(silu(group_norm(x, w, "norm_out")), w, "conv_out")


KINDS = {"pictures": (flat, still, ()), "moving pictures": (CausalConv3d, causal, (3,))}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [1, 2])
def test_the_encoder_is_the_network_written_out(kind, depth):
    convolution, plain, frames = KINDS[kind]
    encoder = shaken(MagvitEncoder(32, MULTIPLIERS, depth, 5, convolution))
    pixels = noise(2, 3, *frames, 8, 8)
    expected = encode(pixels, encoder.state_dict(), depth, plain)
    assert expected.shape == (2, 5, *((2,) if frames else ()), 2, 2)
    torch.testing.assert_close(encoder(pixels), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [1, 2])
def test_the_decoder_is_the_network_written_out(kind, depth):
    convolution, plain, frames = KINDS[kind]
    decoder = shaken(MagvitDecoder(32, MULTIPLIERS, depth, 5, convolution))
    codes = noise(2, 5, *frames, 2, 2)
    expected = decode(codes, decoder.state_dict(), depth, plain)
    assert expected.shape == (2, 3, *((5,) if frames else ()), 8, 8)
    torch.testing.assert_close(decoder(codes), expected, rtol=1e-4, atol=1e-4)


def test_no_frame_knows_a_later_one_and_a_single_frame_is_seen_as_a_still():
    layer = shaken(CausalConv3d(2, 4, 3))
    video = noise(1, 2, 5, 4, 4)
    changed = video.clone()
    changed[:, :, 3:] += 1
    before, after = layer(video), layer(changed)
    assert torch.equal(before[:, :, :3], after[:, :, :3])
    assert not torch.equal(before[:, :, 3], after[:, :, 3])
    alone = functional.conv2d(video[:, :, 0], layer.weight[:, :, -1], layer.bias, padding=1)
    torch.testing.assert_close(before[:, :, 0], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [MagvitEncoder, MagvitDecoder])
def test_widths_that_cannot_be_normalised_are_refused(kind):
    with pytest.raises(RecipeError, match="48 channels cannot be normalised in 32 groups"):
        kind(48, [2], 1, 5, flat)
