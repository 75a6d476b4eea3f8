"""VQ-VAE-2 equals the networks written out: two levels, of which the fine one knows the coarse."""

import inspect

import pytest
import torch
from plain import noise, pictures, shaken
from torch.nn import functional

from chiasm.errors import ChiasmError, RecipeError
from chiasm.nn.stepwise import after_step
from chiasm.tokenizers.vqvae2 import VQVAE2

DEPTH = 2


def tokenizer(**options):
    spec = {"size": 16, "width": 8, "depth": DEPTH, "residual_width": 6, "code_width": 4, "codebook_size": 12}
    torch.manual_seed(0)
    return shaken(VQVAE2(**(spec | options)))


def conv(x, w, name, stride=1):
    kernel = w[f"{name}.weight"].shape[-1]
    assert kernel == (4 if stride == 2 else kernel)
    padding = 1 if kernel > 1 else 0
    return functional.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride, padding)


def enlarged(x, w, name):
    """Each value put down 4 x 4 wide at every second place; one row and column are cut off all round."""
    weight, (n, _, rows, columns) = w[f"{name}.weight"], x.shape
    made = torch.zeros(n, weight.shape[1], 2 * rows + 2, 2 * columns + 2)
    for row in range(rows):
        for column in range(columns):
            made[:, :, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4] += torch.einsum(
                "nc,cdhw->ndhw", x[:, :, row, column], weight
            )
    return made[:, :, 1:-1, 1:-1] + w[f"{name}.bias"].view(-1, 1, 1)


def residuals(x, w, name, first):
    for i in range(first, first + DEPTH):
        hidden = conv(x.relu(), w, f"{name}.blocks.{i}.conv.1").relu()
        x = x + conv(hidden, w, f"{name}.blocks.{i}.conv.3")
    return x.relu()


def encoded(x, w, name, halvings):
    for i in range(halvings):
        x = conv(x, w, f"{name}.blocks.{2 * i}", 2).relu()
    x = conv(x, w, f"{name}.blocks.{2 * halvings}")
    return residuals(x, w, name, 2 * halvings + 1)


def decoded(x, w, name, doublings):
    x = residuals(conv(x, w, f"{name}.blocks.0"), w, name, 1)
    x = enlarged(x, w, f"{name}.blocks.{DEPTH + 2}")
    return x if doublings == 1 else enlarged(x.relu(), w, f"{name}.blocks.{DEPTH + 4}")


def quantized(x, w, name):
    """Codes in a grid, and their vectors, channels first."""
    flat, codebook = x.permute(0, 2, 3, 1), w[f"{name}.vectors"]
    codes = (flat[..., None, :] - codebook).square().sum(-1).argmin(-1)
    return codes, codebook[codes].permute(0, 3, 1, 2)


def written_out(pixels, w):
    """Codes of both levels, their latents and vectors, and the pixels that they become, not yet cut."""
    fine_features = encoded(2 * pixels - 1, w, "enc_b", 2)
    coarse = conv(encoded(fine_features, w, "enc_t", 1), w, "quantize_conv_t")
    coarse_codes, coarse_vectors = quantized(coarse, w, "quantize_t")
    known = decoded(coarse_vectors, w, "dec_t", 1)
    fine = conv(torch.cat([known, fine_features], 1), w, "quantize_conv_b")
    fine_codes, fine_vectors = quantized(fine, w, "quantize_b")
    both = torch.cat([enlarged(coarse_vectors, w, "upsample_t"), fine_vectors], 1)
    made = (decoded(both, w, "dec", 2) + 1) / 2
    misses = (coarse - coarse_vectors).square(), (fine - fine_vectors).square()
    return (coarse_codes, fine_codes), misses, made


def test_codes_pixels_and_losses_are_those_of_the_networks_written_out():
    vqvae, pixels = tokenizer(commitment=0.5), pictures(2, 3, 16, 16)
    codes, misses, made = written_out(pixels, vqvae.state_dict())
    assert vqvae.scales == ((2, 2), (4, 4))
    assert vqvae.grid == (1, 20)
    assert vqvae.codebooks == 2
    row = torch.cat([each.flatten(1) for each in codes], 1)[:, None]
    assert torch.equal(vqvae.encode(pixels), row)
    assert len(row.unique()) > 4
    assert made.min() < 0 < 1 < made.max()
    torch.testing.assert_close(vqvae.decode(row), made.clamp(0, 1), rtol=1e-4, atol=1e-4)
    losses = vqvae.losses(pixels)
    expected = {
        "reconstruction": ((2 * made - 2 * pixels).square(), 1.0),
        "commitment_coarse": (misses[0], 0.5),
        "commitment_fine": (misses[1], 0.5),
    }
    assert losses.keys() == expected.keys()
    for name, (terms, weight) in expected.items():
        torch.testing.assert_close(losses[name].sum, terms.sum(), rtol=1e-4, atol=1e-4)
        assert (float(losses[name].count), losses[name].weight) == (terms.numel(), weight)


def test_encoding_teaches_nothing_and_leaves_the_mode():
    vqvae = tokenizer()
    for mode in (True, False):
        vqvae.train(mode)
        before = {name: value.clone() for name, value in vqvae.state_dict().items()}
        vqvae.encode(pictures(2, 3, 16, 16))
        after_step(vqvae)
        assert all(torch.equal(value, before[name]) for name, value in vqvae.state_dict().items())
        assert {module.training for module in vqvae.modules()} == {mode}


def test_both_codebooks_learn_and_tell_how_much_they_are_used():
    vqvae = tokenizer(decay=0.5, revive_after=3).train()
    for level in (vqvae.quantize_t, vqvae.quantize_b):
        assert (level.decay, level.revive_after) == (0.5, 3)
    for _ in range(2):
        vqvae.losses(pictures(4, 3, 16, 16))
        after_step(vqvae)
    kinds = ("codebook_use", "perplexity", "revived")
    assert set(vqvae.health()) == {f"{kind}_{level}" for kind in kinds for level in ("coarse", "fine")}


def test_what_does_not_fit_is_refused():
    vqvae = tokenizer()
    codes = torch.zeros(1, 1, 20, dtype=torch.long)
    assert vqvae.decode(codes).shape == (1, 3, 16, 16)
    assert vqvae.decode(codes[:0]).shape == (0, 3, 16, 16)
    assert vqvae.decode(codes + 11).shape == (1, 3, 16, 16)
    for wrong in (-1, 12):
        codes[0, 0, 3] = wrong
        with pytest.raises(
            ChiasmError, match=rf"codes from {min(wrong, 0)} to {max(wrong, 0)} given .* \(0 to 11\)"
        ):
            vqvae.decode(codes)
    with pytest.raises(
        ChiasmError, match=r"codes of shape \(1, 1, 19\) given to a tokenizer of grid \(1, 20\)"
    ):
        vqvae.decode(codes[..., :-1])
    for call in (vqvae.encode, vqvae.losses):
        with pytest.raises(ChiasmError, match=r"\(3, 16, 8\) given to a tokenizer of \(3, 16, 16\)"):
            call(pictures(1, 3, 16, 8))
    with pytest.raises(RecipeError, match="size 20 is no multiple of 8"):
        tokenizer(size=20)


def test_by_default_it_is_the_published_network():
    """rosinality's: 256 pixels, 128 channels, two blocks of 32, 512 codes of 64."""
    defaults = {name: each.default for name, each in inspect.signature(VQVAE2).parameters.items()}
    assert defaults.pop("revive_after") == 20  # not in the original: without it codes die
    assert defaults == {
        "size": 256,
        "width": 128,
        "depth": 2,
        "residual_width": 32,
        "code_width": 64,
        "codebook_size": 512,
        "commitment": 0.25,
        "decay": 0.99,
    }
    widths = {name: tuple(p.shape) for name, p in VQVAE2(size=8).named_parameters() if "blocks.0" in name}
    assert widths["enc_b.blocks.0.weight"] == (64, 3, 4, 4)
    assert widths["enc_t.blocks.0.weight"] == (64, 128, 4, 4)
    assert widths["dec.blocks.0.weight"] == (128, 128, 3, 3)


def test_the_written_out_enlarging_is_a_transposed_convolution():
    w = {"n.weight": noise(3, 2, 4, 4), "n.bias": noise(2)}
    x = noise(2, 3, 3, 5, seed=4)
    expected = functional.conv_transpose2d(x, w["n.weight"], w["n.bias"], 2, 1)
    torch.testing.assert_close(enlarged(x, w, "n"), expected, rtol=1e-5, atol=1e-5)
