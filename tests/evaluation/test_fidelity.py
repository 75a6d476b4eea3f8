"""Measures of reconstruction and of codes, against figures known by hand."""

import math

import pytest
import torch

from chiasm.evaluation import fidelity
from chiasm.evaluation.fidelity import features, frechet, psnr, ssim, use_of


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
    use = use_of([torch.tensor([0, 0, 1, 2])], images=2, codebook_size=8)
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


@pytest.mark.parametrize(("height", "width"), [(24, 31), (11, 11), (12, 30)])
def test_ssim_is_that_of_scikit_image(height, width):
    """With Wang's window of 11 pixels and 1.5 of deviation, over the places where the window fits."""
    metrics = pytest.importorskip("skimage.metrics")
    torch.manual_seed(0)
    true = torch.rand(4, 3, height, width, dtype=torch.float64)
    made = (0.7 * true + 0.3 * torch.rand_like(true)).clamp(0, 1)
    expected = [
        metrics.structural_similarity(
            one.numpy(), other.numpy(), channel_axis=0, data_range=1.0, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )
        for one, other in zip(made, true)
    ]  # fmt: skip
    assert ssim(made, true).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("side", "window"), [(1, 1), (2, 1), (3, 3), (8, 7), (10, 9), (11, 11), (12, 11)])
def test_the_window_of_ssim_is_the_widest_odd_one_that_fits(side, window, monkeypatch):
    seen = []
    monkeypatch.setattr(
        fidelity.functional, "conv2d", lambda values, kernel, groups: seen.append(kernel) or values
    )
    ssim(torch.rand(1, 3, side, 20), torch.rand(1, 3, side, 20))
    assert {kernel.shape[-2:] for kernel in seen} == {(window, window)}
    assert seen[0].sum(dim=(1, 2, 3)).tolist() == pytest.approx([1.0] * 3)
    middle = window // 2
    assert (seen[0] == seen[0].flip(-1)).all()
    assert seen[0][0, 0].argmax() == middle * window + middle


def test_frechet_distance_of_few_and_correlated_features_by_hand():
    # one feature: (mean - mean)^2 + (deviation - deviation)^2, with n - 1 below the variance
    one, other = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0], [9.0]])
    assert frechet(one, other) == pytest.approx(16 + (4 - 2**0.5) ** 2)
    # a turned copy: the same deviations along turned axes
    linalg = pytest.importorskip("scipy.linalg")
    torch.manual_seed(0)
    a, b = torch.randn(50, 4) @ torch.randn(4, 4), torch.randn(60, 4) @ torch.randn(4, 4) + 1
    covariances = [each.T.double().cov() for each in (a, b)]
    root = linalg.sqrtm((covariances[0] @ covariances[1]).numpy()).real.trace()
    means = (a.double().mean(0) - b.double().mean(0)).square().sum()
    expected = float(means + covariances[0].trace() + covariances[1].trace() - 2 * root)
    assert frechet(a, b) == pytest.approx(expected, rel=1e-5)
    assert frechet(a, b) == pytest.approx(frechet(b, a))
    assert frechet(one[:1], one[:1]) == 0


def test_features_are_means_over_the_last_map_at_the_size_the_network_knows(monkeypatch):
    """In parts of 32 pictures, each the same as alone."""
    seen = []

    def network(pictures):
        seen.append(pictures.shape)
        return torch.stack([pictures[:, 0, :2, :3], pictures[:, 1, :2, :3]], dim=-1)  # n h w c

    monkeypatch.setattr(fidelity, "_network", lambda: network)
    pictures = torch.rand(33, 3, 40, 50)
    together = features(pictures)
    assert seen == [(32, 3, 224, 224), (1, 3, 224, 224)]
    assert together.shape == (33, 2)
    assert torch.equal(together[5:6], features(pictures[5:6]))
    even = torch.full((1, 3, 9, 9), 0.25)
    assert features(even).tolist() == [[pytest.approx(0.25), pytest.approx(0.25)]]


def test_large_pictures_are_smoothed_before_they_are_looked_at(monkeypatch):
    """Else a pattern finer than the network's pixels would look like another."""
    monkeypatch.setattr(
        fidelity, "_network", lambda: lambda pictures: pictures.permute(0, 2, 3, 1)[:, 50:60, 50:60]
    )
    stripes = (torch.arange(896) % 4 < 1).float().expand(1, 3, 896, 896)
    assert features(stripes)[0].tolist() == pytest.approx([0.25] * 3, abs=0.02)


def test_the_network_of_the_distance_has_a_grid_of_a_32nd_and_its_named_features():
    network = fidelity._network()
    assert not network.training
    assert not any(weight.requires_grad for weight in network.parameters())
    with torch.inference_mode():
        assert network(torch.rand(1, 3, 64, 64)).shape == (1, 2, 2, fidelity.FEATURES)


def test_the_least_error_is_taken_for_none():
    true = torch.full((1, 3, 4, 4), 0.5)
    assert psnr(true + 1e-6, true).tolist() == [100.0]
    assert psnr(true + 1e-4, true).tolist() == pytest.approx([80.0], abs=0.1)


def test_codes_that_never_occur_cost_nothing():
    use = use_of([torch.tensor([], dtype=torch.long), torch.tensor([1, 1, 0, 0])], 2, 4)
    assert use.coded == pytest.approx(2.0)
    assert use.codes == 2
    assert (use.used, use.size) == (2, 4)
