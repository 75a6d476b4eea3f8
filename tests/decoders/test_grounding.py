"""A network that reads boxes: closed gates, absent boxes, the schedule of the gates, and what is refused."""

import sys

import pytest
import torch
from torch import nn

from chiasm import parts
from chiasm.decoders.conditions import Condition
from chiasm.decoders.denoisers.unet import EXAMPLE_UNET
from chiasm.decoders.grounding import BoxTokens, GatedBlock, grounding_scales
from chiasm.errors import ChiasmError, RecipeError

UNET = {**EXAMPLE_UNET, "cross_attention_dim": 12, "sample_size": 8}


def built(config=(), source=0, **options):
    spec = {"type": "grounded_unet", "config": {**UNET, **dict(config)}, "phrase_width": 10, **options}
    return parts.build("denoiser", spec, 4, source).eval()


def boxed(seed=0, rows=1, count=3):
    """What a network reads of boxes at random places."""
    generator = torch.Generator().manual_seed(seed)
    boxes, phrases = (torch.rand(rows, count, width, generator=generator) for width in (4, 10))
    return {"boxes": boxes, "phrases": phrases, "present": torch.ones(rows, count)}


@pytest.fixture(params=["self", "cross"])
def network(request):
    torch.manual_seed(0)
    made = built(gate=request.param)
    for module in made.modules():
        if isinstance(module, GatedBlock):
            nn.init.constant_(module.gate, 0.5)
            nn.init.constant_(module.mlp_gate, 0.5)
    return made


def predicted(network, added, gates=1.0, source=None):
    generator = torch.Generator().manual_seed(1)
    latents, context = (torch.randn(*s, generator=generator) for s in ((1, 4, 8, 8), (1, 5, 12)))
    with torch.no_grad():
        return network(latents, torch.tensor([500]), Condition(context, None, added, source, gates))


def test_boxes_change_what_is_predicted_and_closed_gates_leave_it(network):
    assert not torch.allclose(predicted(network, boxed(0)), predicted(network, boxed(1)))
    assert torch.equal(predicted(network, boxed(0), 0.0), predicted(network, boxed(1), 0.0))
    assert torch.equal(predicted(network, boxed(0), 0.0), predicted(network, None))


def test_half_open_gates_lie_between(network):
    whole, half, none = (predicted(network, boxed(), gates) for gates in (1.0, 0.5, 0.0))
    assert 0 < (half - none).norm() < (whole - none).norm()


def test_gates_begin_closed_so_that_a_trained_network_is_unchanged():
    torch.manual_seed(0)
    fresh = built()
    torch.testing.assert_close(predicted(fresh, boxed()), predicted(fresh, None))
    plain = parts.build("denoiser", {"type": "unet", "config": UNET}, 4, 0).eval()
    weights = {f"inner.{name}": each for name, each in fresh.unet.state_dict().items() if "fuser" not in name}
    plain.load_state_dict(weights)
    torch.testing.assert_close(predicted(fresh, boxed()), predicted(plain, None))


def test_it_paints_into_the_boxes_and_reads_the_source_outside_of_them():
    network = built({"in_channels": 9}, source=4)
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.25], [0.75, 0.5, 1.0, 1.0], [0.5, 0.0, 1.0, 1.0]]])
    added = {**boxed(), "boxes": boxes, "present": torch.tensor([[1.0, 1.0, 0.0]])}
    condition = Condition(torch.randn(1, 5, 12), added=added)
    drawn = torch.zeros(8, 8)
    drawn[:2, :4] = drawn[4:, 6:] = 1  # rows, columns; the third box is not there
    assert torch.equal(network.keeps(condition, (8, 8))[0, 0], 1 - drawn)
    latents = torch.randn(1, 4, 8, 8)
    source = network.source(latents, 7 * latents, condition)
    assert torch.equal(source, torch.cat([latents * (1 - drawn), (1 - drawn)[None, None]], 1))
    assert predicted(network, added, source=source).shape == (1, 4, 8, 8)
    with pytest.raises(ChiasmError, match="paints into boxes, and is given none"):
        network.source(latents, latents, condition._replace(added=None))


def test_boxes_lie_on_the_grid_of_the_latents_whatever_sample_size_says():
    network = built({"in_channels": 9, "sample_size": None}, source=4)
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.25]]])
    added = {"boxes": boxes, "phrases": torch.zeros(1, 1, 10), "present": torch.ones(1, 1)}
    latents = torch.ones(1, 4, 4, 6)
    source = network.source(latents, latents, Condition(torch.randn(1, 5, 12), added=added))
    drawn = torch.zeros(4, 6)
    drawn[:1, :3] = 1
    assert torch.equal(source, (1 - drawn).expand(1, 5, 4, 6))


def test_an_absent_box_has_one_token_wherever_it_is():
    boxes = BoxTokens(10, 12)
    nn.init.normal_(boxes.no_phrase)
    tokens = boxes(torch.rand(1, 3, 4), torch.randn(1, 3, 10), torch.tensor([[1.0, 0.0, 0.0]]))
    torch.testing.assert_close(tokens[0, 1], tokens[0, 2])
    assert not torch.allclose(tokens[0, 0], tokens[0, 1])


def test_gates_are_open_then_close_step_by_step_then_stay_closed():
    assert grounding_scales(10) == [1.0] * 3 + [0.0] * 7
    assert grounding_scales(10, (0.3, 0.4, 0.3)) == [1.0] * 3 + [0.75, 0.5, 0.25, 0.0] + [0.0] * 3
    with pytest.raises(RecipeError, match="they must add up to 1"):
        grounding_scales(10, (0.3, 0.4, 0.4))


@pytest.mark.parametrize(("steps", "shares"), [(3, (0.3, 0.0, 0.7)), (4, (0.0, 0.3, 0.7))])
def test_so_few_steps_that_no_box_would_be_read_are_a_sentence(steps, shares):
    with pytest.raises(RecipeError, match=f"are open in none of {steps}: boxes would not be read; take more"):
        grounding_scales(steps, shares)
    assert any(grounding_scales(2 * steps, shares))
    assert not any(grounding_scales(steps, (0.0, 0.0, 1.0)))  # as it was asked


def test_other_channels_than_the_networks_are_refused():
    network = built({"in_channels": 9}, source=4)
    with pytest.raises(
        ChiasmError, match="4 channels given to a denoiser 'grounded_unet' of 9, which are latents"
    ):
        predicted(network, boxed())


@pytest.mark.parametrize(
    ("config", "options", "sentence"),
    [
        (
            {"in_channels": 9},
            {},
            "in_channels 9 and out_channels 4, but the images have 4 channels: they must be 4",
        ),
        ({}, {"source": 4}, "4 of the image to change and its mask: they must be 9 and 4"),
        ({"attention_type": "gated"}, {}, "has gates of its own; leave attention_type out"),
        (
            {
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 8,
                "projection_class_embeddings_input_dim": 60,
            },
            {},
            "reads tokens and boxes; its configuration asks for other inputs: addition_embed_type text_time",
        ),
        ({"class_embed_type": "timestep"}, {}, "asks for other inputs: class_embed_type"),
        ({"num_class_embeds": 4}, {}, "asks for other inputs: num_class_embeds"),
        ({"encoder_hid_dim": 16}, {}, "asks for other inputs: encoder_hid_dim_type, encoder_hid_dim"),
        ({"cross_attention_dim": [12, 12]}, {}, r"cross_attention_dim is \[12, 12\]; it must be one number"),
        ({}, {"shares": [0.3, 0.3, 0.3]}, "they must add up to 1"),
        ({"brand_new": 1}, {}, "diffusers refuses the configuration"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(config, options, sentence):
    with pytest.raises(RecipeError, match=sentence):
        built(config, **options)


def test_a_network_without_boxes_is_no_gated_one():
    with pytest.raises(
        RecipeError, match="reads no boxes, but its attention_type is 'gated'; take denoiser 'grounded"
    ):
        parts.build("denoiser", {"type": "unet", "config": {**UNET, "attention_type": "gated"}}, 4, 0)


def test_without_diffusers_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(RecipeError, match=r"pip install 'chiasm\[diffusion\]'"):
        built()
