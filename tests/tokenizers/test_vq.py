"""The VQ-VAE: it learns, repeats itself, resumes, and refuses what does not fit."""

import copy
import inspect

import pytest
import torch
from plain import convolve, folded, mixed_residual, narrow_norm, shaken, silu, unfolded
from plain import pictures as noisy
from safetensors.torch import load, save

from chiasm import parts
from chiasm.errors import ChiasmError, RecipeError
from chiasm.nn.losses import objective
from chiasm.nn.stepwise import after_step
from chiasm.tokenizers.vq import VQ, SmallResidualBlock, foreground_weight


def tiny(**options):
    defaults = {
        "size": 16,
        "downsample": 4,
        "codebook_size": 32,
        "code_width": 8,
        "width": 32,
        "depth": 1,
        "settle": 2,
    }
    return VQ(**(defaults | options))


def pictures(count=8, size=16):
    """Squares of one of four colours on one of two grounds."""
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    out = torch.randint(0, 2, (count, 1, 1, 1)).float().expand(-1, 3, size, size).clone()
    for picture in out:
        y, x = (torch.randint(0, size // 4 - 1, (2,)) * 4).tolist()
        picture[:, y : y + 8, x : x + 8] = colours[torch.randint(0, 4, ())][:, None, None]
    return out


def train(vq, optimiser, steps):
    for _ in range(steps):
        losses = vq.losses(pictures(16))
        optimiser.zero_grad()
        objective(losses).backward()
        optimiser.step()
        after_step(vq)
    return losses


def adam(vq):
    return torch.optim.AdamW(vq.parameters(), lr=3e-3)


@pytest.mark.parametrize(
    ("size", "downsample", "side"), [(96, 16, 6), (64, 8, 8), (16, 4, 4), (16, 2, 8), (64, 32, 2)]
)
def test_grid_is_what_encode_makes(size, downsample, side):
    vq = VQ(size=size, downsample=downsample, codebook_size=16, code_width=4, width=32, depth=1).eval()
    codes = vq.encode(torch.rand(2, 3, size, size))
    assert vq.grid == (side, side)
    assert codes.shape == (2, side, side)
    assert vq.decode(codes).shape == (2, 3, size, size)


def test_built_from_a_recipe_by_name():
    vq = parts.build("image_tokenizer", {"type": "vq", "size": 32, "downsample": 8, "codebook_size": 64})
    assert (vq.grid, vq.codebook_size) == ((4, 4), 64)


def test_it_learns_to_reconstruct():
    torch.manual_seed(0)
    vq = tiny().train()
    first = vq.losses(pictures(16))["reconstruction"].mean.item()
    last = train(vq, adam(vq), 250)["reconstruction"].mean.item()
    assert last < first / 5
    vq.eval()
    shown = pictures(32)
    error = (vq.decode(vq.encode(shown)) - shown).square().mean()
    assert error < 0.02  # 17 dB; the mean picture has 0.2
    assert vq.health()["codebook_use"] > 0.5


def test_losses_are_sums_over_elements():
    vq = tiny().eval()
    shown = pictures(3)
    losses = vq.losses(shown)
    codes = vq.encode(shown)
    error = 2 * (vq._pixels(vq.quantizer.vectors[codes]) - shown)
    assert losses["reconstruction"].count == 3 * 3 * 16 * 16
    assert torch.allclose(losses["reconstruction"].sum, (error.abs() + error**2).sum(), rtol=1e-4)
    assert losses["commitment"].count == 3 * 4 * 4 * 8
    assert losses["commitment"].weight == 0.25


def test_the_foreground_weighs_more():
    vq = tiny(foreground=4.0).eval()
    shown = torch.zeros(1, 3, 16, 16)
    shown[..., :4] = 1.0
    error = 2 * (vq._pixels(vq.quantizer.vectors[vq.encode(shown)]) - shown)
    weight = torch.ones(16).index_fill(0, torch.arange(4), 4.0)
    expected = ((error.abs() + error**2) * weight).sum()
    assert torch.allclose(vq.losses(shown)["reconstruction"].sum, expected, rtol=1e-4)


def test_codes_begin_when_the_features_have_settled():
    torch.manual_seed(0)
    vq = tiny(settle=2).train()
    before = vq.quantizer.vectors.clone()
    for _ in range(2):
        assert torch.equal(vq.quantizer.vectors, before)
        assert float(vq.losses(pictures())["commitment"].sum) == 0
        after_step(vq)
    assert float(vq.losses(pictures())["commitment"].sum) > 0
    assert not torch.equal(vq.quantizer.vectors, before)


def test_every_parameter_gets_a_gradient():
    vq = tiny().train()
    objective(vq.losses(pictures())).backward()
    assert [name for name, p in vq.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_encoding_is_deterministic_and_decoding_stays_in_range():
    torch.manual_seed(0)
    vq = tiny().eval()
    shown = pictures()
    assert torch.equal(vq.encode(shown), vq.encode(shown))
    vq.decoder[-2].bias.data += 100
    assert vq.decode(vq.encode(shown)).max() == 1.0


def test_a_restored_run_continues_bit_for_bit():
    torch.manual_seed(0)
    vq = tiny(revive_after=2)
    optimiser = adam(vq)
    train(vq.train(), optimiser, 10)
    saved = save(vq.state_dict()), copy.deepcopy(optimiser.state_dict()), torch.get_rng_state()
    train(vq, optimiser, 10)
    assert vq.health()["revived"] > 0

    restored = tiny(revive_after=2)
    restored.load_state_dict(load(saved[0]))
    optimiser = adam(restored)
    optimiser.load_state_dict(saved[1])
    torch.set_rng_state(saved[2])
    train(restored.train(), optimiser, 10)
    for name, value in vq.state_dict().items():
        assert torch.equal(value, restored.state_dict()[name]), name


def test_bf16_training_keeps_the_codebook_in_fp32():
    vq = tiny().train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = vq.losses(pictures())
    assert {loss.sum.dtype for loss in losses.values()} == {torch.float32}
    assert vq.quantizer.vectors.dtype == torch.float32
    objective(losses).backward()


def test_no_pictures_are_no_loss():
    losses = tiny().train().losses(torch.rand(0, 3, 16, 16))
    assert [(loss.sum.item(), loss.count.item()) for loss in losses.values()] == [(0, 0), (0, 0)]


def test_what_does_not_fit_is_refused():
    vq = tiny()
    with pytest.raises(ChiasmError, match=r"codes from 0 to 32 given to a tokenizer of 32 codes \(0 to 31\)"):
        vq.decode(torch.tensor([0, 32] * 8).view(1, 4, 4))
    with pytest.raises(ChiasmError, match="codes from -1"):
        vq.decode(torch.full((1, 4, 4), -1))
    with pytest.raises(ChiasmError, match=r"grid \(4, 4\)"):
        vq.decode(torch.zeros(1, 4, 5, dtype=torch.long))
    with pytest.raises(ChiasmError, match=r"\(3, 16, 17\)"):
        vq.encode(torch.rand(1, 3, 16, 17))
    with pytest.raises(RecipeError, match="power of two"):
        tiny(downsample=6)
    with pytest.raises(RecipeError, match="no multiple"):
        tiny(size=18)


# Options, with the channels that are expected at each resolution, the finest first.
NETWORKS = [
    ({"size": 32, "downsample": 16, "width": 32, "depth": 2}, [16, 24, 32]),  # thirds, up to multiples of 8
    ({"size": 16, "downsample": 8, "width": 40, "depth": 1}, [24, 40]),
    ({"size": 16, "downsample": 4, "width": 12, "depth": 1}, [16]),
    ({"size": 8, "downsample": 2, "width": 8, "depth": 1}, [8]),
]


def part(vq, name):
    return {k.removeprefix(name): v for k, v in vq.state_dict().items() if k.startswith(name)}


def features(pixels, w, patch, widths, depth):
    x = folded(2 * pixels - 1, patch)
    layer = 1
    for level, width in enumerate(widths):
        if level:
            x = torch.nn.functional.conv2d(x, w[f"{layer}.weight"], w[f"{layer}.bias"], stride=2)
        else:
            x = convolve(x, w, f"{layer}")
        assert x.shape[1] == width
        for _ in range(depth):
            layer += 1
            x = mixed_residual(x, w, f"{layer}")
        layer += 1
    x = convolve(silu(narrow_norm(x, w, f"{layer}")), w, f"{layer + 2}")
    return x / x.square().mean(1, keepdim=True).sqrt()  # of one length, the root of their number


def pixels_of(x, w, patch, widths, depth):
    x = convolve(x, w, "0")
    for layer in range(1, depth + 2):
        x = mixed_residual(x, w, f"{layer}")
    layer = depth + 2
    for width in widths[-2::-1]:
        x = unfolded(convolve(x, w, f"{layer}"), 2)
        assert x.shape[1] == width
        for i in range(depth):
            x = mixed_residual(x, w, f"{layer + 2 + i}")
        layer += 2 + depth
    x = convolve(silu(narrow_norm(x, w, f"{layer}")), w, f"{layer + 2}")
    return (unfolded(x, patch) + 1) / 2


@pytest.mark.parametrize(("options", "widths"), NETWORKS)
def test_it_is_the_network_written_out(options, widths):
    vq = shaken(VQ(codebook_size=16, code_width=6, **options))
    patch = 2 if options["downsample"] == 2 else 4
    shown = noisy(2, 3, options["size"], options["size"])
    expected = features(shown, part(vq, "encoder."), patch, widths, options["depth"]).permute(0, 2, 3, 1)
    assert expected.shape[1:3] == vq.grid
    torch.testing.assert_close(vq._features(shown), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(vq.encode(shown), torch.cdist(expected, vq.quantizer.vectors).argmin(-1))
    vectors = expected.permute(0, 3, 1, 2)
    made = pixels_of(vectors, part(vq, "decoder."), patch, widths, options["depth"])
    torch.testing.assert_close(vq._pixels(expected), made, rtol=1e-4, atol=1e-4)


def test_by_default_it_is_what_the_documentation_measures():
    defaults = {name: each.default for name, each in inspect.signature(VQ).parameters.items()}
    assert defaults == {
        "size": 96,
        "downsample": 16,
        "codebook_size": 512,
        "code_width": 32,
        "width": 192,
        "depth": 1,
        "commitment": 0.25,
        "foreground": 1.0,
        "decay": 0.97,
        "settle": 80,
        "revive_after": 20,
        "cosine": False,
        "critics": [],
    }


def test_its_options_reach_its_codebook():
    quantizer = tiny(decay=0.5, settle=7, revive_after=3, cosine=True).quantizer
    assert (quantizer.decay, quantizer.settle, quantizer.revive_after, quantizer.cosine) == (0.5, 7, 3, True)
    assert quantizer.vectors.shape == (32, 8)


def test_a_residual_block_begins_near_the_identity():
    torch.manual_seed(0)
    mixing = SmallResidualBlock(32).layers[-1].weight.detach().abs()
    bound = 0.1 * 32**-0.5  # a tenth of what a fresh convolution has
    assert 0.95 * bound < float(mixing.max()) <= bound


def test_foreground_is_what_differs_visibly_in_any_channel_from_the_median():
    shown = torch.full((1, 3, 4, 4), 0.5)
    shown[0, 0, 0, 0], shown[0, 1, 0, 1], shown[0, 2, 0, 2] = 0.531, 0.469, 0.529
    weights = foreground_weight(shown, 5.0)
    assert weights.shape == (1, 1, 4, 4)
    assert weights.flatten().tolist() == [5.0, 5.0] + [1.0] * 14


def test_critics_are_asked_about_pictures_behind_their_error(monkeypatch):
    heard = []

    def criticised(critics, made, true, reconstruction, last):
        heard.append((made, true, reconstruction, last))
        return {"reconstruction": reconstruction, "critic": reconstruction}

    monkeypatch.setattr("chiasm.tokenizers.vq.criticised", criticised)
    vq, shown = tiny().eval(), pictures(2)
    losses = vq.losses(shown)
    made, true, reconstruction, last = heard[0]
    assert set(losses) == {"reconstruction", "critic", "commitment"}
    assert torch.equal(true, shown)
    error = 2 * (made - shown)
    torch.testing.assert_close(reconstruction.sum, (error.abs() + error**2).sum())
    assert last.shape == (3 * 4**2, 32, 3, 3)


def test_the_edges_of_what_fits_are_taken():
    vq = tiny().eval()
    assert vq.decode(torch.full((1, 4, 4), 31)).shape == (1, 3, 16, 16)
    assert vq.decode(torch.zeros(0, 4, 4, dtype=torch.long)).shape == (0, 3, 16, 16)
    for downsample in (1, 3, 12):
        with pytest.raises(RecipeError, match=f"downsample is {downsample}; it must be a power of two >= 2"):
            tiny(downsample=downsample)
    assert tiny(downsample=2).grid == (8, 8)
