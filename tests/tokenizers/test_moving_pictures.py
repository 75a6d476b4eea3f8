"""The tokenizers of moving pictures, and Open-MAGVIT2's: networks round quantizers, and Emu3's written out."""

import pytest
import torch
from plain import decode, encode, group_norm, noise, pictures, shaken, silu
from torch.nn import functional

from chiasm import parts
from chiasm.errors import RecipeError
from chiasm.tokenizers.magvit import CausalConv3d
from chiasm.tokenizers.quantizers.nearest import Nearest
from chiasm.tokenizers.vqgan_video import VideoVQGAN


def emu3(codes=(), **options):
    """codes: options of its codebook."""
    spec = {
        "size": 8,
        "width": 32,
        "multipliers": [1, 2],
        "depth": 1,
        "attention_levels": [1],
        "quantizer": Nearest(**({"codebook_size": 12, "width": 4} | dict(codes))),
    }
    tokenizer = shaken(VideoVQGAN(**(spec | options)))
    generator = torch.Generator().manual_seed(3)
    for name, buffer in tokenizer.named_buffers():  # of the batch norms
        if "running" in name:
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return tokenizer


def under(tokenizer, prefix):
    return {k.removeprefix(prefix): v for k, v in tokenizer.state_dict().items() if k.startswith(prefix)}


def causal(x, w, name, stride=1):
    """Two frames of zeros before the first, whatever the kernel, and none behind the last."""
    weight = w[f"{name}.weight"]
    reach, side = weight.shape[2], weight.shape[3] // 2
    padded = torch.cat([torch.zeros_like(x[:, :, :1]).expand(-1, -1, 2, -1, -1), x], 2)
    frames = []
    for t in range(0, padded.shape[2] - reach + 1, stride):
        seen = [functional.conv2d(padded[:, :, t + k], weight[:, :, k], padding=side) for k in range(reach)]
        frames.append(sum(seen))
    return torch.stack(frames, 2) + w[f"{name}.bias"].view(-1, 1, 1, 1)


def batch_norm(x, w, name):
    scale = w[f"{name}.weight"] / (w[f"{name}.running_var"] + 1e-5).sqrt()
    shift = w[f"{name}.bias"] - w[f"{name}.running_mean"] * scale
    return x * scale.view(-1, 1, 1, 1) + shift.view(-1, 1, 1, 1)


def residuals(x, w, depth):
    for i in range(depth):
        name = f"time_res_stack.{i}"
        hidden = causal(silu(batch_norm(x, w, f"{name}.norm1")), w, f"{name}.conv1")
        x = x + causal(silu(batch_norm(hidden, w, f"{name}.norm2")), w, f"{name}.conv2")
    assert f"time_res_stack.{depth}.norm1.weight" not in w
    return x


def latents(video, w, depth, halvings, heads):
    frames = [encode(2 * frame - 1, w, 2, heads) for frame in video.unbind(1)]
    x = torch.stack(frames, 2)
    for i in range(halvings):
        x = silu(causal(x, w, f"time_conv.{i}", 2))
    assert f"time_conv.{halvings}.weight" not in w
    return residuals(x, w, depth)


def through_time(x, w, depth, doublings):
    x = residuals(x, w, depth)
    for i in range(doublings):
        x = silu(causal(x.repeat_interleave(2, 2), w, f"time_conv.{i}"))
    return x


def drawn(vectors, codes, w, depth, doublings, heads):
    """Frames, whose normalisations scale and shift by the code of each place."""
    vectors, codes = (through_time(each, w, depth, doublings) for each in (vectors, codes))

    def frame(x, code):
        def norm(x, w, name):
            times = x.shape[-1] // code.shape[-1]
            told = code.repeat_interleave(times, 2).repeat_interleave(times, 3)
            scale, shift = (
                functional.conv2d(told, w[f"{name}.{each}.weight"], w[f"{name}.{each}.bias"])
                for each in ("conv_y", "conv_b")
            )
            return group_norm(x, w, f"{name}.norm_layer") * scale + shift

        return (decode(x, w, 2, heads, norm) + 1) / 2

    return torch.stack(
        [frame(x, code) for x, code in zip(vectors.unbind(2), codes.unbind(2), strict=True)], 1
    )


@pytest.mark.parametrize(
    ("depth", "downsample", "heads", "frames"), [(1, 4, 1, 4), (2, 2, 2, 4), (1, 1, 1, 2)]
)
def test_emu3s_networks_are_those_written_out(depth, downsample, heads, frames):
    tokenizer = emu3(depth=depth, downsample_time=downsample, heads=heads)
    assert tokenizer.still == downsample
    halvings = downsample.bit_length() - 1
    video, w = pictures(2, frames, 3, 8, 8), tokenizer.state_dict()
    expected = causal(latents(video, under(tokenizer, "encoder."), depth, halvings, heads), w, "quant_conv")
    mine = tokenizer.video_latents(video)
    assert mine.shape == (2, frames // downsample, 4, 4, 4)
    torch.testing.assert_close(mine, expected.permute(0, 2, 3, 4, 1), rtol=1e-4, atol=1e-4)
    vectors = noise(2, frames // downsample, 4, 4, 4)
    codes = vectors.permute(0, 4, 1, 2, 3)
    into = causal(codes, w, "post_quant_conv")
    expected = drawn(into, codes, under(tokenizer, "decoder."), depth, halvings, heads)
    assert expected.shape == video.shape
    torch.testing.assert_close(tokenizer.render_video(vectors), expected, rtol=1e-4, atol=1e-3)


def test_emu3s_decoder_has_a_block_more_and_attention_where_asked_for():
    tokenizer = emu3()
    names = set(tokenizer.state_dict())
    for level in (0, 1):
        assert f"encoder.down.{level}.block.0.conv1.weight" in names
        assert f"encoder.down.{level}.block.1.conv1.weight" not in names
        assert f"decoder.up.{level}.block.1.conv1.weight" in names
        assert f"decoder.up.{level}.block.2.conv1.weight" not in names
        for attending in (f"encoder.down.{level}.attn.0", f"decoder.up.{level}.attn.0"):
            assert (f"{attending}.q.weight" in names) == (level == 1)
    assert {"encoder.mid.attn_1.q.weight", "decoder.mid.attn_1.q.weight"} <= names
    kernels = {each.kernel_size for each in tokenizer.encoder.time_conv}
    assert kernels == {(4, 3, 3)}
    assert {each.kernel_size for each in tokenizer.decoder.time_conv} == {(3, 3, 3)}
    assert tokenizer.quant_conv.kernel_size == tokenizer.post_quant_conv.kernel_size == (3, 1, 1)


def test_options_of_emu3s_reach_its_codebook():
    codes = {"codebook_weight": 2.0, "commitment": 0.5, "revive_after": 3, "width": 5}
    quantize = emu3(codes).quantize
    assert (quantize.codebook_weight, quantize.commitment, quantize.revival.after) == (2.0, 0.5, 3)
    assert quantize.embedding.weight.shape == (12, 5)
    assert emu3().quantize.revival is None
    for downsample in (3, 6, 12):
        with pytest.raises(RecipeError, match=f"downsample_time is {downsample}; it must be a power of two"):
            emu3(downsample_time=downsample)


LOOKUP_FREE = {"size": 16, "width": 32, "multipliers": [2, 1, 1], "depth": 1}
CODES = {"type": "lfq", "bits": 5, "commitment": 0.5}


@pytest.mark.parametrize("name", ["open_magvit2", "open_magvit2_video"])
def test_open_magvit2s_are_their_networks_round_a_quantizer(name):
    tokenizer = shaken(parts.build("image_tokenizer", {"type": name, **LOOKUP_FREE, "quantizer": CODES}))
    pixels = pictures(2, 3, 16, 16)
    assert (tokenizer.grid, tokenizer.codebook_size) == ((4, 4), 32)
    assert (tokenizer.quantize.name, tokenizer.quantize.commitment) == ("lfq", 0.5)
    vectors = noise(2, 4, 4, 5)
    if name == "open_magvit2":
        inner, codes = 2 * pixels - 1, vectors.permute(0, 3, 1, 2)
        features, made = tokenizer.encoder(inner), (tokenizer.decoder(codes) + 1) / 2
    else:
        assert any(isinstance(each, CausalConv3d) for each in tokenizer.modules())
        inner, codes = 2 * pixels[:, :, None] - 1, vectors.permute(0, 3, 1, 2)[:, :, None]
        features, made = tokenizer.encoder(inner)[:, :, 0], (tokenizer.decoder(codes)[:, :, 0] + 1) / 2
    torch.testing.assert_close(tokenizer.latents(pixels), features.permute(0, 2, 3, 1))
    torch.testing.assert_close(tokenizer.render(vectors), made)
    blocks = [key for key in tokenizer.state_dict() if key.startswith("encoder.down.0.block.")]
    assert {key.split(".")[4] for key in blocks} == {"0"}


def test_frames_keep_their_order_in_open_magvit2s():
    tokenizer = shaken(
        parts.build("image_tokenizer", {"type": "open_magvit2_video", **LOOKUP_FREE, "quantizer": CODES})
    )
    video = pictures(2, 3, 3, 16, 16)
    features = tokenizer.encoder((2 * video - 1).transpose(1, 2))
    torch.testing.assert_close(tokenizer.video_latents(video), features.permute(0, 2, 3, 4, 1))
    vectors = noise(2, 2, 4, 4, 5)
    made = (tokenizer.decoder(vectors.permute(0, 4, 1, 2, 3)).transpose(1, 2) + 1) / 2
    torch.testing.assert_close(tokenizer.render_video(vectors), made)
    assert made.shape == video.shape
