"""The KL autoencoder as an image tokenizer of vectors."""

import pytest
import torch

from chiasm import parts
from chiasm.errors import ChiasmError, RecipeError
from chiasm.nn.losses import objective
from chiasm.nn.training_noise import TrainingNoise
from chiasm.tokenizers.spaces import Vectors
from chiasm.tokenizers.vae import EXAMPLE_VAE


def built(**config):
    torch.manual_seed(0)
    return parts.build(
        "image_tokenizer", {"type": "vae", "size": 32, "config": {**EXAMPLE_VAE, **config}}
    ).eval()


def test_a_vector_is_a_shifted_and_scaled_latent_and_comes_back():
    vae, pixels = built(scaling_factor=0.5, shift_factor=0.25), torch.rand(2, 3, 32, 32)
    vectors = vae.encode(pixels)
    assert vae.space == Vectors((4, 4), 4)
    assert vectors.shape == (2, 4, 4, 4)
    torch.testing.assert_close(vectors[1, 2, 3], 0.5 * (vae.latents(pixels)[1, :, 2, 3] - 0.25))
    torch.testing.assert_close(vae.decode(vectors), vae.pixels(vae.latents(pixels)).clamp(0, 1))


def test_vectors_are_told_from_pixels_by_their_shape():
    vae, pixels = built(), torch.rand(2, 3, 32, 32)
    assert vae.is_encoded(vae.encode(pixels))
    assert not vae.is_encoded(pixels)
    assert not vae.is_encoded(torch.zeros(2, 4, 4, 5))


def test_in_training_it_rebuilds_a_latent_drawn_round_the_mean(monkeypatch):
    vae, pixels, noise = built(), torch.rand(2, 3, 32, 32), torch.randn(2, 4, 4, 4)
    monkeypatch.setattr(TrainingNoise, "normal", lambda self, *shape: noise.view(2, *shape))
    posterior = vae.posterior(pixels)
    expected = vae.pixels(posterior.mean + noise * posterior.std)
    found = vae.losses(pixels)["reconstruction"].mean
    torch.testing.assert_close(found, 2 * (expected - pixels).abs().mean())


def test_it_learns_to_rebuild_images_and_to_keep_its_latents_small():
    vae, pixels = built().train(), torch.rand(4, 3, 32, 32)
    optimiser = torch.optim.Adam(vae.parameters(), 1e-2)
    values = []
    for _ in range(8):
        losses = vae.losses(pixels)
        assert set(losses) == {"reconstruction", "kl"}
        values.append(float(objective(losses)))
        optimiser.zero_grad()
        objective(losses).backward()
        optimiser.step()
    assert values[-1] < values[0]
    assert all(parameter.grad is not None for parameter in vae.parameters())


@pytest.mark.parametrize(
    ("size", "config", "words"),
    [
        (20, {}, "size 20 is no multiple of 8"),
        (32, {"in_channels": 1}, "images have 3 channels, but in_channels and out_channels are 1 and 3"),
        (32, {"latents_std": [1.0]}, "by scaling_factor and shift_factor, not by latents_std"),
        (32, {"chs": [8]}, "diffusers refuses the configuration: .*chs"),
    ],
)
def test_a_configuration_that_it_cannot_follow_is_refused(size, config, words):
    with pytest.raises(RecipeError, match=words):
        parts.build("image_tokenizer", {"type": "vae", "size": size, "config": {**EXAMPLE_VAE, **config}})


def test_vectors_of_another_width_and_images_of_odd_sides_are_refused():
    with pytest.raises(ChiasmError, match="whose vectors have 4 numbers"):
        built().decode(torch.zeros(1, 4, 4, 8))
    with pytest.raises(ChiasmError, match="multiples of 8 pixels"):
        built().encode(torch.zeros(1, 3, 30, 32))
