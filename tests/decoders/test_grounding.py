"""A network that reads boxes: closed gates, absent boxes, the schedule of the gates, and what is refused."""

import sys

import pytest
import torch
from torch import nn

from chiasm.decoders.diffusion import EXAMPLE_UNET
from chiasm.decoders.grounding import BoxTokens, GatedBlock, GroundedUNet, Grounding, grounding_scales
from chiasm.errors import ChiasmError, RecipeError

UNET = {**EXAMPLE_UNET, "cross_attention_dim": 12}


@pytest.fixture(params=["self", "cross"])
def network(request):
    torch.manual_seed(0)
    made = GroundedUNet(UNET, phrase_width=10, gate=request.param).eval()
    for module in made.modules():
        if isinstance(module, GatedBlock):
            nn.init.constant_(module.gate, 0.5)
            nn.init.constant_(module.mlp_gate, 0.5)
    return made


def predicted(network, tokens, scale=1.0):
    generator = torch.Generator().manual_seed(1)
    latents, context = (torch.randn(*s, generator=generator) for s in ((1, 4, 8, 8), (1, 5, 12)))
    with torch.no_grad():
        return network(latents, torch.tensor([500]), context, Grounding(tokens, scale))


def test_boxes_change_what_is_predicted_and_closed_gates_leave_it(network):
    one, other = torch.randn(2, 1, 3, 12)
    assert not torch.allclose(predicted(network, one), predicted(network, other))
    assert torch.equal(predicted(network, one, 0.0), predicted(network, other, 0.0))


def test_half_open_gates_lie_between(network):
    tokens = torch.randn(1, 3, 12)
    whole, half, none = (predicted(network, tokens, scale) for scale in (1.0, 0.5, 0.0))
    assert 0 < (half - none).norm() < (whole - none).norm()


def test_gates_begin_closed_so_that_a_trained_network_is_unchanged():
    torch.manual_seed(0)
    fresh = GroundedUNet(UNET, phrase_width=10).eval()
    tokens = torch.randn(1, 3, 12)
    torch.testing.assert_close(predicted(fresh, tokens), predicted(fresh, tokens, 0.0))


def test_an_absent_box_has_one_token_wherever_it_is():
    boxes = BoxTokens(10, 12)
    nn.init.normal_(boxes.no_phrase)
    tokens = boxes(torch.rand(1, 3, 4), torch.randn(1, 3, 10), torch.tensor([[1.0, 0.0, 0.0]]))
    assert torch.equal(tokens[0, 1], tokens[0, 2])
    assert not torch.allclose(tokens[0, 0], tokens[0, 1])


def test_gates_are_open_then_close_step_by_step_then_stay_closed():
    assert grounding_scales(10) == [1.0] * 3 + [0.0] * 7
    assert grounding_scales(10, (0.3, 0.4, 0.3)) == [1.0] * 3 + [0.75, 0.5, 0.25, 0.0] + [0.0] * 3
    with pytest.raises(ChiasmError, match="they must add up to 1"):
        grounding_scales(10, (0.3, 0.4, 0.4))


def test_other_channels_than_the_networks_are_refused():
    network = GroundedUNet({**UNET, "in_channels": 9}, phrase_width=10)
    with pytest.raises(
        ChiasmError, match="4 channels given to a grounded network of 9, which are latents, source"
    ):
        predicted(network, torch.randn(1, 3, 12))


def test_without_diffusers_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(RecipeError, match=r"pip install 'chiasm\[diffusion\]'"):
        GroundedUNet(UNET, phrase_width=10)
