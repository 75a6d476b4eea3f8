"""The VQGANs: shapes, gradients, learning, and what they refuse."""

import pytest
import torch

from chiasm import parts
from chiasm.errors import ChiasmError, RecipeError
from chiasm.losses import objective
from chiasm.stepwise import after_step
from chiasm.tokenizers.vqgan import Codebook
from chiasm.tokenizers.vqgan_cosine import CosineCodebook
from chiasm.tokenizers.vqgan_gumbel import GumbelCodebook

NAMES = ["vqgan", "vqgan_gumbel", "vqgan_cosine"]


def tiny(name, **options):
    spec = {
        "size": 16,
        "width": 32,
        "multipliers": [1, 1],
        "depth": 1,
        "latent_width": 8,
        "codebook_size": 12,
    }
    return parts.build("image_tokenizer", {"type": name, **spec, **options})


@pytest.mark.parametrize("name", NAMES)
def test_codes_have_the_grid_and_become_pixels(name):
    tokenizer = tiny(name).eval()
    codes = tokenizer.encode(torch.rand(2, 3, 16, 16))
    assert codes.shape == (2, *tokenizer.grid) == (2, 8, 8)
    made = tokenizer.decode(codes)
    assert made.shape == (2, 3, 16, 16)
    assert made.min() >= 0
    assert made.max() <= 1
    assert torch.equal(tokenizer.encode(torch.ones(1, 3, 16, 16)), tokenizer.encode(torch.ones(1, 3, 16, 16)))


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_learns_and_the_loss_falls(name):
    torch.manual_seed(0)
    tokenizer, pictures = tiny(name).train(), torch.rand(4, 3, 16, 16)
    optimiser = torch.optim.AdamW(tokenizer.parameters(), 2e-3)
    history = []
    for _ in range(12):
        losses = tokenizer.losses(pictures)
        optimiser.zero_grad()
        objective(losses).backward()
        assert all(parameter.grad is not None for parameter in tokenizer.parameters())
        optimiser.step()
        after_step(tokenizer)
        history.append(losses["reconstruction"].mean.item())
    assert history[-1] < 0.95 * history[0]
    assert 0 < tokenizer.health()["codebook_use"] <= 1
    assert tokenizer.health()["perplexity"] >= 1


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_is_refused_in_words(name):
    with pytest.raises(ChiasmError, match=r"\(3, 16, 20\) given to a tokenizer of \(3, 16, 16\)"):
        tiny(name).encode(torch.rand(1, 3, 16, 20))
    with pytest.raises(ChiasmError, match="codes from 0 to 12 given to a tokenizer of 12 codes"):
        tiny(name).decode(torch.arange(13).clamp(max=12).repeat(5)[:64].view(1, 8, 8))
    with pytest.raises(ChiasmError, match="grid"):
        tiny(name).decode(torch.zeros(1, 4, 8, dtype=torch.long))
    with pytest.raises(RecipeError, match="size 15 is no multiple of 2"):
        tiny(name, size=15)
    with pytest.raises(RecipeError, match="48 channels cannot be normalised in 32 groups"):
        tiny(name, width=48)


def test_the_nearest_code_is_taken_and_the_gradient_goes_straight_through():
    codebook = Codebook(3, 2, codebook_weight=1.0, commitment=1.0)
    codebook.embedding.weight.data = torch.tensor([[0.0, 0], [1, 0], [0, 2]])
    latents = torch.tensor([0.9, 0.2]).view(1, 1, 1, 2).requires_grad_()
    quantized = codebook(latents)
    assert quantized.codes.item() == 1
    quantized.vectors.sum().backward()
    assert torch.equal(latents.grad.flatten(), torch.ones(2))
    assert quantized.losses["codebook"].mean.item() == pytest.approx((0.01 + 0.04) / 2)


def test_the_cosine_codebook_looks_at_directions_only():
    codebook = CosineCodebook(2, 2, commitment=0.25, entropy=0.0)
    codebook.embedding.weight.data = torch.tensor([[5.0, 0], [0, 0.1]])
    assert codebook.encode(torch.tensor([1.0, 2.0]).view(1, 1, 1, 2)).item() == 1
    assert torch.equal(codebook.vectors(torch.tensor([[[0]]])).flatten(), torch.tensor([1.0, 0.0]))


def test_gumbel_noise_decides_the_draw():
    codebook = GumbelCodebook(4, 3, 2, temperature=1.0, kl=1.0)
    noise = torch.zeros(1, 1, 1, 3)
    noise[..., 2] = 100.0
    drawn = codebook.draw(torch.zeros(1, 1, 1, 4), noise)
    assert drawn.codes.item() == 2
    assert torch.allclose(drawn.vectors.flatten(), codebook.embed.weight[2])
