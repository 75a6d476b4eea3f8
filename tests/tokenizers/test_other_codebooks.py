"""Codebooks beside taming's: by direction, by distance but drawn as directions, and drawn by chance."""

import math

import pytest
import torch
from plain import noise, shaken

from chiasm.tokenizers.entropy import choice_entropy
from chiasm.tokenizers.quantizers.cosine import Cosine
from chiasm.tokenizers.quantizers.gumbel import Gumbel
from chiasm.tokenizers.quantizers.unit import Unit


def entropy_of(chances):
    return float(-(chances * chances.log()).sum())


def test_the_cosine_codebook_looks_at_directions_only():
    codebook = Cosine(codebook_size=2, width=2, commitment=0.25, entropy=0.0)
    codebook.embedding.weight.data = torch.tensor([[5.0, 0], [0, 0.1]])
    assert codebook.encode(torch.tensor([1.0, 2.0]).view(1, 1, 1, 2)).item() == 1
    assert torch.equal(codebook.vectors(torch.tensor([[[0]]])).flatten(), torch.tensor([1.0, 0.0]))


def test_the_cosine_codebook_compares_and_learns_directions():
    codebook = Cosine(codebook_size=3, width=2, commitment=0.25, entropy=0.5)
    weights = codebook.embedding.weight.detach()
    assert float(weights.abs().max()) <= 1 / 3
    assert float(weights.min()) < 0 < float(weights.max())
    codebook.embedding.weight.data = torch.tensor([[5.0, 0], [0, 0.1], [-3.0, -4.0]])
    latents = torch.tensor([[3.0, 4.0], [-1.0, 0.0]]).view(1, 1, 2, 2).requires_grad_()
    quantized = codebook(latents)
    assert quantized.codes.tolist() == [[[1, 2]]]
    expected = torch.tensor([[0.0, 1.0], [-0.6, -0.8]])
    torch.testing.assert_close(quantized.vectors.detach().view(2, 2), expected)
    torch.testing.assert_close(codebook.vectors(quantized.codes).detach().view(2, 2), expected)
    total = 0.6**2 + 0.2**2 + 0.4**2 + 0.8**2
    for name, weight in (("codebook", 1.0), ("commitment", 0.25)):
        assert float(quantized.losses[name].sum.detach()) == pytest.approx(total)
        assert (float(quantized.losses[name].count), quantized.losses[name].weight) == (4.0, weight)
    directions = torch.tensor([[0.6, 0.8], [-1.0, 0.0]])
    codes = torch.tensor([[1.0, 0], [0, 1.0], [-0.6, -0.8]])
    torch.testing.assert_close(quantized.losses["entropy"].sum, choice_entropy(directions, codes, 1.0).sum)
    assert quantized.losses["entropy"].weight == 0.5
    quantized.losses["codebook"].sum.backward(retain_graph=True)
    assert latents.grad is None
    codebook.zero_grad()
    quantized.losses["commitment"].sum.backward()
    assert codebook.embedding.weight.grad is None or not codebook.embedding.weight.grad.any()
    assert latents.grad.any()
    assert codebook.indivisible(ranks=True, rows=1)
    assert (
        Cosine(codebook_size=3, width=2, commitment=0.25, entropy=0.0).indivisible(ranks=True, rows=1) is None
    )


def test_janus_codes_are_looked_up_by_distance_and_drawn_as_directions():
    codebook = Unit(codebook_size=12, width=2, codebook_weight=3.0, commitment=0.5)
    codebook.embedding.weight.data = torch.tensor([[3.0, 4.0], [0.1, 0.0], *[[90.0, 0.0]] * 10])
    latents = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).view(1, 1, 2, 2).requires_grad_()
    quantized = codebook(latents)
    assert quantized.codes.tolist() == [[[1, 0]]]  # by direction both would be the first
    expected = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    torch.testing.assert_close(quantized.vectors.detach().view(2, 2), expected)
    torch.testing.assert_close(codebook.vectors(quantized.codes).detach().view(2, 2), expected)
    assert float(quantized.losses["codebook"].sum.detach()) == pytest.approx(0.01 + 1 + 1 + 1)
    assert (quantized.losses["codebook"].weight, quantized.losses["commitment"].weight) == (3.0, 0.5)
    quantized.vectors.sum().backward()
    assert torch.equal(latents.grad, torch.ones_like(latents))


def gumbel(size=3, **options):
    torch.manual_seed(0)
    return shaken(Gumbel(codebook_size=size, width=4, **({"temperature": 0.5, "kl": 0.25} | options)))


def test_gumbels_draw_is_hard_with_the_gradient_of_its_softmax():
    codebook, latents, given = gumbel(), noise(2, 1, 2, 4), noise(2, 1, 2, 3, seed=5)
    weights = codebook.state_dict()
    logits = latents @ weights["proj.weight"].flatten(1).T + weights["proj.bias"]
    quantized = codebook.draw(latents.requires_grad_(), given)
    codes = (logits + given).argmax(-1)
    assert torch.equal(quantized.codes, codes)
    torch.testing.assert_close(quantized.vectors, codebook.embed.weight[codes])
    gradient = torch.autograd.grad(quantized.vectors.sum(), latents, retain_graph=True)[0]
    soft = ((latents @ weights["proj.weight"].flatten(1).T + weights["proj.bias"] + given) / 0.5).softmax(-1)
    expected = torch.autograd.grad((soft @ weights["embed.weight"]).sum(), latents)[0]
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)
    chances = logits.softmax(-1)
    divergence = [math.log(3) - entropy_of(row) for row in chances.view(-1, 3)]
    loss = quantized.losses["divergence"]
    assert float(loss.sum.detach()) == pytest.approx(sum(divergence), rel=1e-4)
    assert (float(loss.count), loss.weight) == (4.0, 0.25)


def test_gumbel_draws_in_training_as_often_as_its_chances_say_and_else_takes_the_likeliest():
    codebook, latents = gumbel(), noise(1, 1, 1, 4)
    chances = codebook.logits(latents).softmax(-1).flatten()
    many = latents.expand(1, 100, 200, 4)
    torch.manual_seed(0)
    drawn = torch.bincount(codebook.train()(many).codes.flatten(), minlength=3) / 20_000
    torch.testing.assert_close(drawn, chances.detach(), atol=0.015, rtol=0)
    codebook.eval()
    likeliest = int(chances.argmax())
    assert set(codebook(many).codes.unique().tolist()) == {likeliest}
    assert codebook.encode(latents).item() == likeliest
    assert torch.equal(codebook.vectors(codebook.encode(latents)).flatten(), codebook.embed.weight[likeliest])
