"""The VQ-VAE: it learns, repeats itself, resumes, and refuses what does not fit."""

import copy

import pytest
import torch
from safetensors.torch import load, save

from chiasm import parts
from chiasm.errors import ChiasmError, RecipeError
from chiasm.losses import objective
from chiasm.stepwise import after_step
from chiasm.tokenizers.vq import VQ


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
