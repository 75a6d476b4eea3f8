"""Noise added and taken away."""

import pytest
import torch

from chiasm import parts
from chiasm.decoders.schedulers.diffusers_schedulers import DDIM
from chiasm.errors import RecipeError

ALL = parts.names("scheduler")


def built(name, **config):
    spec = {"type": name}
    if config:
        (option,) = (each for each in parts.options(parts.lookup("scheduler", name)).values())
        spec["config"] = {**option.default, **config}
    return parts.build("scheduler", spec)


def no_noise():
    return torch.zeros(2, 3, 4, 4)


@pytest.mark.parametrize("name", ALL)
def test_a_denoiser_that_knows_the_image_generates_it(name):
    """Whatever noise it began with: a prediction that is right at every step leads there."""
    scheduler, clean = built(name), torch.randn(2, 3, 4, 4)
    sampler = scheduler.sampler(20)
    x = sampler.start * torch.randn(2, 3, 4, 4)
    for time in sampler.times:
        if name == "flow":
            predicted = (x - clean) / (time / 1000)
        else:
            alpha = scheduler.inner.alphas_cumprod[time.long()]
            predicted = (sampler.scaled(x, time) - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        x = sampler.step(predicted, time, x, no_noise)
    torch.testing.assert_close(x, clean, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("name", ALL)
def test_times_of_training_go_from_the_image_to_noise(name):
    scheduler, clean, noise = built(name), torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    times = scheduler.times(torch.tensor([0.0, 1 - 1e-6]))
    first, last = scheduler.noised(clean, noise, times)
    torch.testing.assert_close(first, clean[0], atol=0.15, rtol=0)
    torch.testing.assert_close(last, noise[1], atol=0.3, rtol=0)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_what_is_predicted_is_the_schedulers(kind):
    scheduler, clean, noise = (
        built("ddim", prediction_type=kind),
        torch.randn(2, 3, 4, 4),
        torch.randn(2, 3, 4, 4),
    )
    times = torch.tensor([10, 900])
    alpha = scheduler.inner.alphas_cumprod[times].view(2, 1, 1, 1)
    expected = {
        "epsilon": noise,
        "sample": clean,
        "v_prediction": alpha.sqrt() * noise - (1 - alpha).sqrt() * clean,
    }
    torch.testing.assert_close(scheduler.target(clean, noise, times), expected[kind])


def test_ancestral_steps_are_those_of_diffusers():
    from diffusers import DDPMScheduler

    scheduler, predicted, x = built("ddpm"), torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    sampler, theirs = scheduler.sampler(5), DDPMScheduler(**scheduler.spec["config"])
    theirs.set_timesteps(5)
    for time in sampler.times:
        noise = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(int(time)))
        expected = theirs.step(predicted, time, x, torch.Generator().manual_seed(int(time))).prev_sample
        ours = sampler.step(predicted, time, x, lambda noise=noise: noise)
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_a_generation_leaves_nothing_to_the_next():
    scheduler = built("pndm")
    x = torch.randn(1, 3, 4, 4)
    ends = []
    for _ in range(2):
        sampler, state = scheduler.sampler(4), x
        for time in sampler.times:
            state = sampler.step(state.tanh(), time, state, no_noise)
        ends.append(state)
    assert torch.equal(*ends)


def test_bounded_signal_to_noise_ratios_weigh_the_loss():
    """Section 3.4 of arXiv 2303.09556: epsilon is learnt as an image whose weight is at most the bound."""
    scheduler, times = built("ddim"), torch.tensor([1, 500, 998])
    alpha = scheduler.inner.alphas_cumprod[times]
    ratio = alpha / (1 - alpha)
    bounded = ratio.clamp(max=5)
    torch.testing.assert_close(scheduler.min_snr_weights(times, 5.0), bounded / ratio)
    velocity = built("ddim", prediction_type="v_prediction").min_snr_weights(times, 5.0)
    torch.testing.assert_close(velocity, bounded / (ratio + 1))
    torch.testing.assert_close(built("ddim", prediction_type="sample").min_snr_weights(times, 5.0), bounded)


def test_a_shifted_flow_spends_more_of_its_time_near_the_noise():
    half = torch.tensor([0.5])
    assert float(built("flow").times(half)) == 500
    assert float(parts.build("scheduler", {"type": "flow", "shift": 3.0}).times(half)) == 750
    with pytest.raises(RecipeError, match="scheduler 'flow' has no min-SNR weights"):
        built("flow").min_snr_weights(half, 5.0)


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("ddim", {"beta_begin": 1}, "diffusers refuses the configuration: .*beta_begin"),
        ("euler", {"prediction_type": "score"}, "prediction_type is 'score'"),
        ("ddpm", {"variance_type": "learned"}, "variance_type is 'learned'"),
    ],
)
def test_a_configuration_that_nothing_here_can_follow_is_refused(name, config, words):
    with pytest.raises(RecipeError, match=words):
        built(name, **config)


def test_more_steps_than_the_schedule_has_are_refused():
    with pytest.raises(RecipeError, match="scheduler 'ddim' cannot generate in 1001 steps"):
        built("ddim", **DDIM).sampler(1001)
