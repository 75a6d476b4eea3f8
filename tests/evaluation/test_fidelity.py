"""Measures of reconstruction and of codes, against figures known by hand."""

import math

import pytest
import torch

from chiasm.evaluation.fidelity import frechet, psnr, ssim, use_of


def test_psnr_of_an_even_error():
    true = torch.full((2, 3, 8, 8), 0.5)
    made = true + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    assert psnr(made, true).tolist() == pytest.approx([20.0, 40.0], abs=1e-3)
    assert psnr(true, true).tolist() == [100.0, 100.0]


def test_ssim_is_one_for_the_same_and_falls_with_noise_and_contrast():
    torch.manual_seed(0)
    true = torch.rand(3, 3, 24, 24)
    assert ssim(true, true).tolist() == pytest.approx([1.0] * 3, abs=1e-5)
    little, much = (ssim((true + s * torch.randn_like(true)).clamp(0, 1), true).mean() for s in (0.05, 0.3))
    assert 1 > little > much > 0
    assert ssim(torch.rand(1, 3, 5, 5), torch.rand(1, 3, 5, 5)).shape == (1,)


def test_ssim_of_two_grounds_is_its_luminance_term():
    one, other = torch.full((1, 3, 16, 16), 0.2), torch.full((1, 3, 16, 16), 0.6)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert float(ssim(one, other)) == pytest.approx(expected, abs=1e-4)


def test_frechet_distance_of_gaussians_on_the_axes():
    torch.manual_seed(0)
    one = torch.randn(20_000, 3)
    other = one * torch.tensor([2.0, 1.0, 3.0]) + torch.tensor([1.0, 0.0, 2.0])
    # |difference of means|^2 + the squared differences of the deviations
    assert frechet(other, one) == pytest.approx(1 + 4 + 1 + 0 + 4, rel=0.03)
    assert frechet(one, one) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_is_defined_with_fewer_pictures_than_features():
    torch.manual_seed(0)
    assert frechet(torch.randn(4, 20), torch.randn(4, 20)) > 0


def test_use_of_codes_counted_by_hand():
    use = use_of([torch.tensor([0, 0, 1, 2])], pictures=2, codebook_size=8)
    assert (use.codes, use.size, use.used, use.dead, use.share) == (2, 8, 3, 5, 3 / 8)
    assert use.entropy == pytest.approx(1.5)
    assert use.perplexity == pytest.approx(2**1.5)
    assert use.coded == pytest.approx(3.0)


def test_scales_have_counts_of_their_own_and_books_of_their_own_are_added_up():
    parts = [torch.tensor([0, 0]), torch.tensor([1, 1, 1, 1])]
    shared, apart = (use_of(parts, 2, 2, apart) for apart in (False, True))
    assert shared.coded == apart.coded == 0  # a coder that knows the scale knows the code
    assert shared.entropy == pytest.approx(-(math.log2(1 / 3) / 3 + 2 * math.log2(2 / 3) / 3))
    assert (shared.size, shared.used, apart.size, apart.used) == (2, 2, 4, 2)
