"""VAR's quantizer equals a loop over its scales, and its training is what the paper's losses say."""

import inspect

import pytest
import torch
from plain import noise, pictures, shaken
from torch.nn import functional

from chiasm.errors import RecipeError
from chiasm.nn.stepwise import after_step
from chiasm.tokenizers.multi_scale import MultiScale, ResidualScales, nearest_convolution

SCALES = [1, 2, 3, 6]
QUANTIZER = {"convolutions": 2, "blend": 0.25, "cosine": False, "codebook_weight": 2.0, "commitment": 0.5}


def quantizer(scales=SCALES, codebook_size=9, **options):
    made = shaken(ResidualScales(codebook_size, 4, scales, **(QUANTIZER | options)))
    with torch.no_grad():
        made.embedding.weight[: codebook_size // 2] *= (
            3  # lengths differ: direction and distance choose otherwise
        )
    return made


def said(quantizer, codes, index):
    """What a scale's codes say at full size: enlarged, and a quarter of it smoothed."""
    weights, scales = quantizer.state_dict(), quantizer.scales
    x = weights["embedding.weight"][codes].permute(0, 3, 1, 2)
    if index < len(scales) - 1:
        x = functional.interpolate(x, size=(scales[-1], scales[-1]), mode="bicubic")
    if quantizer.blend == 0:
        return x
    which = nearest_convolution(index, len(scales), sum("smooth" in name for name in weights) // 2)
    smooth = functional.conv2d(
        x, weights[f"smooth.{which}.weight"], weights[f"smooth.{which}.bias"], padding=1
    )
    return x - quantizer.blend * x + quantizer.blend * smooth


def written_out(quantizer, latents):
    """Codes of each scale, and what was said up to it."""
    codebook = quantizer.embedding.weight.detach()
    rest, total = latents.permute(0, 3, 1, 2), 0
    codes, progress = [], []
    for index, side in enumerate(quantizer.scales):
        asked = functional.adaptive_avg_pool2d(rest, side).permute(0, 2, 3, 1)
        if quantizer.cosine:
            found = (asked @ (codebook / codebook.norm(dim=1, keepdim=True)).T).argmax(-1)
        else:
            found = (asked[..., None, :] - codebook).norm(dim=-1).argmin(-1)
        codes.append(found)
        step = said(quantizer, found, index)
        rest, total = rest - step, total + step
        progress.append(total)
    return torch.cat([each.flatten(1) for each in codes], 1)[:, None], progress


@pytest.mark.parametrize(
    "options", [{}, {"cosine": True}, {"blend": 0.0}, {"convolutions": 0}, {"scales": [3]}]
)
def test_it_is_the_loop_over_its_scales(options):
    made, latents = quantizer(**options), 2 * noise(5, *2 * [options.get("scales", SCALES)[-1]], 4)
    codes, progress = written_out(made, latents)
    assert len(codes.unique()) > 3
    assert torch.equal(made.encode(latents), codes)
    quantized = made(latents)
    assert torch.equal(quantized.codes, codes)
    torch.testing.assert_close(
        quantized.vectors.detach(), progress[-1].permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(made.vectors(codes), progress[-1].permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(made.progress(codes), progress, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_its_losses_are_the_errors_of_all_scales_for_codes_and_for_latents():
    made, latents = quantizer(), noise(2, 6, 6, 4).requires_grad_()
    progress = written_out(made, latents.detach())[1]
    losses = made(latents).losses
    target = latents.detach().permute(0, 3, 1, 2)
    total = sum(float((each - target).square().sum()) for each in progress)
    for name, weight in (("codebook", 2.0), ("commitment", 0.5)):
        assert float(losses[name].sum.detach()) == pytest.approx(total, rel=1e-4)
        assert (float(losses[name].count), losses[name].weight) == (4 * 2 * 6 * 6 * 4, weight)
    losses["codebook"].sum.backward(retain_graph=True)
    assert latents.grad is None
    assert bool((made.embedding.weight.grad != 0).any())
    made.zero_grad()
    losses["commitment"].sum.backward()
    expected = 2 * sum(target - each.detach() for each in progress).permute(0, 2, 3, 1)
    torch.testing.assert_close(latents.grad, expected, rtol=1e-4, atol=1e-4)
    assert made.embedding.weight.grad is None


def test_the_gradient_passes_straight_to_the_latents():
    made, latents = quantizer(), noise(2, 6, 6, 4).requires_grad_()
    (3 * made(latents).vectors).sum().backward()
    assert torch.equal(latents.grad, torch.full_like(latents, 3.0))


def test_what_the_next_scale_reads_is_what_the_coarser_ones_said_averaged():
    made, latents = quantizer(), noise(3, 6, 6, 4)
    codes, progress = written_out(made, latents)
    expected = [
        functional.adaptive_avg_pool2d(said_so_far, side).flatten(2).mT
        for said_so_far, side in zip(progress[:-1], SCALES[1:], strict=True)
    ]
    torch.testing.assert_close(made.next_inputs(codes), torch.cat(expected, 1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        made.next_inputs(codes[..., :5]), torch.cat(expected[:2], 1), rtol=1e-4, atol=1e-5
    )
    assert [len(made.progress(codes[..., :length])) for length in (1, 5, 14, 50)] == [1, 2, 3, 4]


def test_codes_begin_small_and_even_and_convolutions_as_many_as_asked():
    made = ResidualScales(50, 4, SCALES, **QUANTIZER)
    weights = made.embedding.weight.detach()
    assert weights.shape == (50, 4)
    assert -1 / 50 <= float(weights.min()) < -0.9 / 50
    assert 0.9 / 50 < float(weights.max()) <= 1 / 50
    for options, count in (({}, 2), ({"convolutions": 0}, 4), ({"blend": 0.0}, 0)):
        assert len(ResidualScales(5, 4, SCALES, **(QUANTIZER | options)).smooth) == count


@pytest.mark.parametrize("convolutions", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("scales", [2, 9, 14])
def test_convolutions_are_spread_evenly_over_the_scales(scales, convolutions):
    """Each serves an equal part of the way, but for the four that are published, which begin at a twelfth of it."""
    edge = 1 / 12 if convolutions == 4 else 1 / (2 * convolutions)
    for index in range(scales):
        way = index / (scales - 1)
        gaps = [
            abs(way - (edge + i * (1 - 2 * edge) / max(convolutions - 1, 1))) for i in range(convolutions)
        ]
        first, *second = sorted(gaps)
        if not second or second[0] - first > 1e-6:  # of two equally near, rounding decides
            assert nearest_convolution(index, scales, convolutions) == gaps.index(first)


def test_one_convolution_serves_a_single_scale():
    assert nearest_convolution(0, 1, 1) == 0


def test_dead_codes_are_revived_only_where_asked_for_and_in_training_only():
    assert quantizer().revival is None
    made, latents = quantizer(codebook_size=40, revive_after=2), noise(2, 6, 6, 4)
    made(latents)
    after_step(made)
    assert not made.revival.idle.any()
    used = written_out(made, latents)[0].unique()
    made.train()(latents)
    after_step(made)
    idle = torch.ones(40, dtype=torch.long)
    idle[used] = 0
    assert torch.equal(made.revival.idle, idle)
    before = made.embedding.weight.detach().clone()
    made(latents)
    after_step(made)
    assert made.revival.revived == 40 - len(used)
    moved = (made.embedding.weight != before).any(1)
    assert torch.equal(moved, idle > 0)


def tokenizer(**options):
    spec = {"scales": [1, 2, 4], "width": 32, "multipliers": [1, 1, 2], "depth": 1, "code_width": 8}
    return shaken(MultiScale(**(spec | {"codebook_size": 12, "convolutions": 0} | options)))


def test_codes_stand_in_one_row_for_pictures_of_the_last_scales_side():
    made = tokenizer()
    assert (made.size, made.grid, made.scales) == (16, (1, 21), ((1, 1), (2, 2), (4, 4)))
    assert made.encode(pictures(2, 3, 16, 16)).shape == (2, 1, 21)
    attending = {name.rsplit(".", 2)[0] for name in made.state_dict() if ".q.weight" in name}
    lowest = ["encoder.down.2.attn.0", "decoder.up.2.attn.0", "decoder.up.2.attn.1"]
    assert attending == {"encoder.mid.attn_1", "decoder.mid.attn_1", *lowest}
    assert made.quant_conv.kernel_size == made.post_quant_conv.kernel_size == (3, 3)
    assert tokenizer(kernel=1).quant_conv.kernel_size == (1, 1)


def test_the_coarsest_scales_alone_are_an_image_and_all_of_them_the_whole_one():
    tokenizer = MultiScale(**MultiScale.example()).eval()
    codes = torch.randint(16, (2, *tokenizer.grid))
    torch.testing.assert_close(tokenizer.decode_scales(codes), tokenizer.decode(codes))
    coarse = tokenizer.decode_scales(codes[..., : 1 + 4])
    expected = tokenizer.render(tokenizer.quantize.vectors(codes[..., : 1 + 4]))
    assert coarse.shape == tokenizer.decode(codes).shape
    assert not torch.equal(coarse, tokenizer.decode(codes))
    with torch.no_grad():  # more than white is white, and less than black is black
        tokenizer.render = lambda vectors: 3 * expected - 1
        assert (tokenizer.decode_scales(codes).min(), tokenizer.decode_scales(codes).max()) == (0, 1)


def test_the_error_of_pixels_is_absolute_and_squared_and_weighs_the_foreground():
    made = tokenizer(squared=0.5, foreground=3.0)
    pixels = torch.full((2, 3, 16, 16), 0.25)
    pixels[:, :, :4] = 0.75  # a quarter of the picture; the rest is its median
    rebuilt = pictures(2, 3, 16, 16)
    error = 2 * (rebuilt - pixels)
    terms = error.abs() + 0.5 * error**2
    loss = made.reconstruction(rebuilt, pixels)
    assert float(loss.sum) == pytest.approx(
        float(3 * terms[:, :, :4].sum() + terms[:, :, 4:].sum()), rel=1e-5
    )
    assert loss.count == 2 * 3 * 16 * 16


@pytest.mark.parametrize("scales", [[], [0, 1], [1, 1, 2], [2, 1], [-1, 2]])
def test_scales_that_do_not_grow_from_one_on_are_refused(scales):
    with pytest.raises(RecipeError, match="must grow from 1 on"):
        tokenizer(scales=scales)


def test_by_default_it_is_the_published_network():
    """VAR's vae_ch160v4096z32, with the losses of its quantizer and no critic."""
    defaults = {name: each.default for name, each in inspect.signature(MultiScale).parameters.items()}
    assert defaults == {
        "scales": [1, 2, 3, 4, 5, 6, 8, 10, 13, 16],
        "width": 160,
        "multipliers": [1, 1, 2, 2, 4],
        "depth": 2,
        "code_width": 32,
        "codebook_size": 4096,
        "convolutions": 4,
        "blend": 0.5,
        "cosine": False,
        "kernel": 3,
        "codebook_weight": 1.0,
        "commitment": 0.25,
        "squared": 0.0,
        "foreground": 1.0,
        "critics": [],
        "revive_after": 0,
    }
    assert inspect.signature(ResidualScales).parameters["revive_after"].default == 0


def test_its_options_reach_its_quantizer():
    options = {"blend": 0.75, "cosine": True, "codebook_weight": 3.0, "commitment": 0.125}
    made = tokenizer(**options, revive_after=7)
    assert {name: getattr(made.quantize, name) for name in options} == options
    assert made.quantize.revival.after == 7
