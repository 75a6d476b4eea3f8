"""Vectors from noise, step by step, by a small network behind the hidden state."""

import pytest
import torch
from writing import Vocabulary

from chiasm.heads import HeadContext, Sampling
from chiasm.heads.alphabets.diffusion import LEVELS, NoiseLevels
from chiasm.heads.building import build_head
from chiasm.heads.noise import noise_like
from chiasm.heads.straight_line import StraightLine
from chiasm.nn.generators import Generators
from chiasm.tokenizers.spaces import Vectors

SPACE = Vectors((2, 2), 3)
SMALL = {"steps": 4, "depth": 1, "hidden": 8}
PATHS = {
    "flow": StraightLine(False, 1.0),
    "shifted": StraightLine(True, 3.0),
    "flow to x": StraightLine(False, 3.0, velocity=False),
    "epsilon": NoiseLevels(cosine=True, predicts="epsilon"),
    "v": NoiseLevels(cosine=False, predicts="v"),
    "x": NoiseLevels(cosine=True, predicts="x"),
}


def alphabet(name, **options):
    spec = {"type": "raster", "alphabet": {"type": name, **SMALL, **options}}
    return build_head(spec, HeadContext(4, SPACE, Vocabulary(4))).alphabet


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("count", [1, 7])
def test_true_predictions_lead_from_noise_to_the_values(path, count):
    values, noise = torch.randn(5, 3), torch.randn(5, 3)
    steps = path.steps(count)
    noisy = path.noisy(values, noise, torch.full((5,), steps[0][0]))
    for step in steps:
        predicted = path.target(values, noise, torch.full((5,), step[0]))
        noisy = path.advance(noisy, predicted, step, None)
        noise = path_noise(path, noisy, values, step[1], noise)
    torch.testing.assert_close(noisy, values, rtol=1e-3, atol=1e-3)


def test_one_point_of_a_path_is_the_same_whatever_is_predicted_of_it():
    """With two predictions of the same vector, a step leads to the same place."""
    values, noise = torch.randn(5, 3), torch.randn(5, 3)
    for one, other in (("flow", "flow to x"), ("epsilon", "x")):
        noisy = PATHS[one].noisy(values, noise, torch.full((5,), 0.5))
        steps = [
            path.advance(noisy, path.target(values, noise, torch.full((5,), 0.5)), (0.5, 0.3), None)
            for path in (PATHS[one], PATHS[other])
        ]
        torch.testing.assert_close(*steps, rtol=1e-4, atol=1e-4)


def path_noise(path, noisy, values, time, noise):
    """The noise that is left in values behind a step that added none."""
    if not path.random() or time < 0:
        return noise
    signal = path._signal_at(time)
    return (noisy - signal**0.5 * values) / (1 - signal) ** 0.5


def test_a_diffusion_step_is_that_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False)
    path = NoiseLevels(cosine=True, predicts="epsilon")
    torch.testing.assert_close(path._signal.float(), scheduler.alphas_cumprod, rtol=1e-4, atol=1e-6)
    noisy, predicted = torch.randn(2, 3, 1, 1), torch.randn(2, 3, 1, 1)
    for level in (800, 3, 0):
        expected = scheduler.step(
            predicted, level, noisy, generator=torch.Generator().manual_seed(1)
        ).prev_sample
        fresh = torch.randn(noisy.shape, generator=torch.Generator().manual_seed(1))
        later = (level - 1) / LEVELS if level else -1.0
        step = path.advance(noisy, predicted, (level / LEVELS, later), fresh)
        torch.testing.assert_close(step, expected, rtol=1e-4, atol=1e-4)


def test_the_loss_is_the_squared_error_of_the_velocity():
    flow = alphabet("flow", repeats=2)
    hidden, values = torch.randn(5, 4), torch.randn(5, 3)
    torch.manual_seed(7)
    loss = flow.loss(hidden, values)
    torch.manual_seed(7)
    numbers = torch.rand(5, 2, 4)
    noise = noise_like(numbers[..., 1:])
    # A fresh network predicts zeros.
    torch.testing.assert_close(loss, (values[:, None] - noise).square().mean((1, 2)).sum())


def test_noise_is_normal():
    noise = noise_like(torch.rand(200_000, generator=torch.Generator().manual_seed(0)))
    assert noise.isfinite().all()
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    assert noise_like(torch.tensor([0.0, 1 - 2.0**-24])).isfinite().all()


@pytest.mark.parametrize("name", ["flow", "diffusion"])
def test_an_evaluation_can_be_repeated_and_training_draws_anew_item_by_item(name):
    part = alphabet(name)
    for parameter in part.parameters():
        torch.nn.init.normal_(parameter)
    hidden, values = torch.randn(6, 4), torch.randn(6, 3)
    with torch.no_grad():
        whole = part.loss(hidden, values)
        parts_ = [part.loss(hidden[rows], values[rows]) for rows in (slice(0, 2), slice(2, 6))]
        torch.testing.assert_close(whole, sum(parts_))
    torch.manual_seed(3)
    trained = part.loss(hidden, values)
    assert not torch.isclose(trained, whole)
    torch.manual_seed(3)
    parts_ = [part.loss(hidden[rows], values[rows]) for rows in (slice(0, 2), slice(2, 6))]
    torch.testing.assert_close(trained, sum(parts_))


@pytest.mark.parametrize("name", ["flow", "diffusion"])
def test_each_row_is_drawn_by_its_own_seed_and_without_temperature_there_is_no_noise(name):
    part = alphabet(name).eval()
    for parameter in part.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    hidden = torch.randn(2, 5, 4)
    with torch.no_grad():
        both = part.draw(hidden, Sampling(), Generators([1, 2])).values
        torch.testing.assert_close(both[1:], part.draw(hidden[1:], Sampling(), Generators([2])).values)
        assert not torch.allclose(both[1:], part.draw(hidden[1:], Sampling(), Generators([3])).values)
        cold = [
            part.draw(hidden, Sampling(temperature=0), generators).values
            for generators in (None, Generators([5, 6]))
        ]
        assert torch.equal(*cold)
        guided = part.draw(hidden.repeat(2, 1, 1), Sampling(guidance=3.0), Generators([1, 2])).values
        torch.testing.assert_close(guided, both)  # with and without the prompt alike


@pytest.mark.parametrize("name", ["flow", "diffusion"])
def test_a_small_network_learns_a_distribution_that_regression_would_average(name):
    """Vectors are (1, 1, 1) or (-1, -1, -1), whatever the hidden state: draws are of both kinds and of no mean."""
    torch.manual_seed(0)
    part = alphabet(name, hidden=32, depth=2, steps=25)
    optimiser = torch.optim.Adam(part.parameters(), 5e-3)
    for _ in range(300):
        values = (torch.randint(0, 2, (256, 1)) * 2.0 - 1).expand(256, 3)
        loss = part.loss(torch.zeros(256, 4), values) / 256
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        drawn = part.draw(torch.zeros(100, 4), Sampling(), Generators(range(100))).values
    signs = drawn.sign()
    assert ((signs == signs[:, :1]).all(1)).float().mean() > 0.9
    assert 0.3 < (signs[:, 0] > 0).float().mean() < 0.7
    assert drawn.abs().mean() > 0.8


def test_of_two_vectors_that_may_follow_regression_draws_the_mean_and_a_flow_or_a_diffusion_one():
    """One hidden state, behind which one of two opposite vectors stands: how a regression alone collapses."""
    vectors = torch.tensor([[1.0, -1.0, 0.5], [-1.0, 1.0, -0.5]])
    hidden, sampling = torch.ones(64, 4), Sampling()
    nearest = {}
    for name in ("regression", "flow", "diffusion"):
        torch.manual_seed(0)
        options = {} if name == "regression" else {"steps": 20, "depth": 1, "hidden": 32}
        spec = {"type": "raster", "alphabet": {"type": name, **options}}
        learner = build_head(spec, HeadContext(4, SPACE, Vocabulary(4))).alphabet.train()
        optimiser = torch.optim.AdamW(learner.parameters(), lr=1e-2)
        for _ in range(150):
            optimiser.zero_grad()
            (learner.loss(hidden, vectors.repeat(32, 1)) / len(hidden)).backward()
            optimiser.step()
        with torch.no_grad():
            drawn = learner.eval().draw(hidden, sampling, Generators(range(64))).values
        distances = torch.cdist(drawn.float(), vectors)
        nearest[name] = (float(distances.min(1).values.mean()), distances.argmin(1).bincount(minlength=2))
        if name == "regression":
            assert (drawn - vectors.mean(0)).norm(dim=-1).max() < 0.1
    assert nearest["regression"][0] > 1.3  # as far from either as the mean is
    for name in ("flow", "diffusion"):
        distance, counts = nearest[name]
        assert distance < 0.5
        assert counts.min() > 10
