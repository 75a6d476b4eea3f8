"""Any quantizer in any network: codes and pictures, gradients, and weights that come back."""

import pytest
import torch

from chiasm import parts
from chiasm.nn.losses import objective
from chiasm.nn.stepwise import after_step
from chiasm.tokenizers.quantizers import Quantized, Quantizer

SHAPE = {"size": 8, "width": 32, "multipliers": [1, 1], "depth": 1}


def takers():
    """The image tokenizers that hold a quantizer."""
    networks = (parts.lookup("image_tokenizer", name) for name in parts.names("image_tokenizer"))
    return [each for each in networks if "quantizer" in parts.options(each)]


def test_the_published_networks_take_any_quantizer():
    assert {each.name for each in takers()} >= {"vqgan", "vqgan_video", "open_magvit2", "open_magvit2_video"}


@pytest.mark.parametrize("network", takers(), ids=lambda each: each.name)
@pytest.mark.parametrize("quantizer", parts.names("quantizer"))
def test_a_network_takes_a_quantizer(network, quantizer):
    torch.manual_seed(0)
    codes = {"type": quantizer, **parts.lookup("quantizer", quantizer).example()}
    spec = {"type": network.name, **network.example(), **SHAPE, "quantizer": codes}
    tokenizer, pixels = parts.build("image_tokenizer", spec), torch.rand(2, 3, 8, 8)
    assert tokenizer.codebook_size == tokenizer.quantize.codebook_size
    losses = tokenizer.train().losses(pixels)
    objective(losses).backward()
    for name, parameter in tokenizer.named_parameters():
        assert parameter.grad is not None, name
    after_step(tokenizer)
    assert tokenizer.health()["perplexity"] >= 1
    codes = tokenizer.eval().encode(pixels)
    assert codes.shape == (2, *tokenizer.grid)
    assert 0 <= codes.min() <= codes.max() < tokenizer.codebook_size
    again = parts.build("image_tokenizer", tokenizer.spec).eval()
    again.load_state_dict(tokenizer.state_dict())
    assert torch.equal(again.encode(pixels), codes)
    assert torch.equal(again.decode(codes), tokenizer.decode(codes))


def test_a_strangers_quantizer_is_one_class(nothing_left_behind):
    class Halves(Quantizer, name="test_halves"):
        """One bit: whether the first channel is above 0.

        Args:
            width: channels.
        """

        codebook_size = 2

        def __init__(self, *, width: int = 3):
            super().__init__()
            self.width = width

        def forward(self, latents):
            codes = self.encode(latents)
            return Quantized(latents + (self.vectors(codes) - latents).detach(), codes, {})

        def encode(self, latents):
            return (latents[..., 0] > 0).long()

        def vectors(self, codes):
            return codes[..., None].expand(*codes.shape, self.width) * 2.0 - 1.0

    spec = {"type": "vqgan", **SHAPE, "latent_width": 8, "quantizer": {"type": "test_halves", "width": 5}}
    tokenizer = parts.build("image_tokenizer", spec)
    assert tokenizer.quant_conv.weight.shape == (5, 8, 1, 1)
    codes = tokenizer.encode(torch.rand(2, 3, 8, 8))
    assert set(codes.unique().tolist()) <= {0, 1}
    assert tokenizer.decode(codes).shape == (2, 3, 8, 8)
