"""Mask2Former's pixel decoder against transformers' own."""

import pytest
import torch
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import Mask2FormerPixelDecoder

from chiasm.errors import RecipeError
from chiasm.nn.pixel_decoder import PixelDecoder

WIDTHS = (6, 8, 10, 12)  # of the pyramid, finest first
SIZES = ((16, 24), (8, 12), (4, 6), (2, 3))
LAYER = {
    "attention.offsets": "self_attn.sampling_offsets",
    "attention.weights": "self_attn.attention_weights",
    "attention.value": "self_attn.value_proj",
    "attention.output": "self_attn.output_proj",
    "attention_norm": "self_attn_layer_norm",
    "mlp.0": "fc1",
    "mlp.2": "fc2",
    "mlp_norm": "final_layer_norm",
}


def decoder(**options) -> PixelDecoder:
    options = {"attended": 3, "fused": 1, "width": 32, "mask_width": 5, "heads": 4, **options}
    module = PixelDecoder(WIDTHS, hidden=24, depth=2, **options)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def pyramid() -> list[torch.Tensor]:
    return [torch.randn(2, *size, width) for size, width in zip(SIZES, WIDTHS, strict=True)]


def theirs_of(ours: PixelDecoder) -> Mask2FormerPixelDecoder:
    """transformers' decoder with the weights of ours."""
    config = Mask2FormerConfig(
        feature_size=32,
        mask_feature_size=5,
        encoder_feedforward_dim=24,
        encoder_layers=2,
        num_attention_heads=4,
        dropout=0.0,
    )
    theirs = Mask2FormerPixelDecoder(config, list(WIDTHS))
    pairs = [
        (ours.projections, theirs.input_projections),
        (ours.lateral[0], theirs.adapter_1),
        (ours.smooth[0], theirs.layer_1),
        (ours.mask_features, theirs.mask_projection),
    ]
    for layer, theirs_layer in zip(ours.layers, theirs.encoder.layers, strict=True):
        pairs += [(layer.get_submodule(a), theirs_layer.get_submodule(b)) for a, b in LAYER.items()]
    for module, theirs_module in pairs:
        theirs_module.load_state_dict(module.state_dict())
    theirs.level_embed.data.copy_(ours.level_embeddings)
    return theirs


@torch.no_grad()
def test_it_is_that_of_mask2former():
    """But for the ReLU of what a finer level adds, which PSALM has and transformers leaves out."""
    ours, grids = decoder(), pyramid()
    for module in (ours.lateral[0][0], ours.smooth[0][0]):  # theirs have none
        module.bias = None
    expected = theirs_of(ours)
    del ours.lateral[0][2]
    theirs = expected([grid.permute(0, 3, 1, 2) for grid in grids])
    features, levels = ours(grids)
    torch.testing.assert_close(features, theirs.mask_features, atol=1e-5, rtol=1e-5)
    assert [tuple(level.shape[2:]) for level in levels] == [*SIZES[::-1]]
    for level, theirs_level in zip(levels[:3], theirs.multi_scale_features, strict=True):
        torch.testing.assert_close(level, theirs_level, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_a_finer_level_adds_is_normed_and_not_negative():
    module, grids = decoder(), pyramid()
    added = module.lateral[0](grids[0].permute(0, 3, 1, 2))
    assert added.min() == 0
    assert added.max() > 0
    assert [type(each).__name__ for each in module.smooth[0]] == ["Conv2d", "GroupNorm", "ReLU"]


@torch.no_grad()
@pytest.mark.parametrize(
    ("attended", "fused", "looked_at"),
    [(1, 0, [3]), (2, 1, [0, 2, 3]), (2, 2, [0, 1, 2, 3]), (4, 0, [0, 1, 2, 3])],
)
def test_the_coarsest_levels_are_joined_and_the_finest_added(attended, fused, looked_at):
    module, grids = decoder(attended=attended, fused=fused), pyramid()
    features, levels = module(grids)
    sizes = [*SIZES[::-1][:attended], *SIZES[:fused][::-1]]
    assert [tuple(level.shape) for level in levels] == [(2, 32, *size) for size in sizes]
    assert features.shape == (2, 5, *sizes[-1])
    changing = []
    for i in range(len(SIZES)):
        others = [grid + torch.randn_like(grid) if i == place else grid for place, grid in enumerate(grids)]
        if not torch.equal(module(others)[0], features):
            changing.append(i)
    assert changing == looked_at


def test_levels_widths_and_heads_that_do_not_fit_are_refused():
    with pytest.raises(RecipeError, match=r"3 attended and 2 fused levels needs as many .* which has 4"):
        decoder(fused=2)
    with pytest.raises(RecipeError, match="3 heads do not divide the width 32"):
        decoder(heads=3)
    with pytest.raises(RecipeError, match="a multiple of 32, not 48"):
        decoder(width=48)
