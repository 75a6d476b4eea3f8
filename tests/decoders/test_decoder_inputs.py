"""What an image decoder is handed and cannot use: a sentence that says what would be right."""

import pytest
import torch

from chiasm import parts
from chiasm.decoders import DecoderContext
from chiasm.decoders.denoisers.unet import EXAMPLE_UNET
from chiasm.errors import ChiasmError, RecipeError
from chiasm.nn.generators import Generators

UNALIKE = {
    "generators": (lambda d: d.decode(target(2), generators=Generators([0])), "2 targets, but 1 generators"),
    "sources": (
        lambda d: d.decode(target(1), source=torch.rand(2, 3, 32, 32)),
        "1 targets, but 2 source images; there must be one for each",
    ),
    "images": (
        lambda d: d.losses(target(1), torch.rand(2, 3, 32, 32), source=torch.rand(1, 3, 32, 32)),
        "1 targets, but 2 images",
    ),
    "channels of a source": (
        lambda d: d.decode(target(1), source=torch.rand(1, 1, 32, 32)),
        r"source images of three channels, \(images, 3, height, width\), not \(1, 1, 32, 32\)",
    ),
    "a guidance in words": (
        lambda d: d.decode(target(1), source=torch.rand(1, 3, 32, 32), guidance="much"),
        "guidance: it must be a number from 0 to 100, not 'much'",
    ),
    "a guidance that is a truth": (
        lambda d: d.decode(target(1), source=torch.rand(1, 3, 32, 32), guidance=True),
        "guidance: it must be a number from 0 to 100, not True",
    ),
}


def target(count):
    return torch.randn(count, 1, 4, 24)


def editor():
    denoiser = {
        "type": "unet",
        "config": {**EXAMPLE_UNET, "cross_attention_dim": 24, "in_channels": 6, "out_channels": 3},
    }
    return built(edits=True, denoiser=denoiser)


def built(**options):
    spec = {
        "type": "diffusion",
        "size": 32,
        "steps": 2,
        "conditioner": {"type": "vectors"},
        "scheduler": {"type": "ddim"},
    }
    return parts.build("image_decoder", {**spec, **options}, DecoderContext(None)).eval()


@pytest.mark.parametrize("name", UNALIKE)
def test_inputs_that_do_not_belong_together_are_sentences(name):
    run, sentence = UNALIKE[name]
    with pytest.raises(ChiasmError, match=sentence):
        run(editor())


def test_a_network_of_latents_without_its_autoencoder_is_named():
    latents = {"type": "unet", "config": {**EXAMPLE_UNET, "cross_attention_dim": 24}}
    with pytest.raises(RecipeError, match=r"needs its autoencoder: \{type: vae"):
        built(denoiser=latents)
