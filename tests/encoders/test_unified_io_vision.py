"""Unified-IO 2's vision transformer: what a feature joins, and patches that are hidden."""

import pytest
import torch

from chiasm.encoders.unified_io import UnifiedIOVision
from chiasm.errors import RecipeError


def encoder(**options):
    torch.manual_seed(0)
    return UnifiedIOVision(**{**UnifiedIOVision.example(), **options}).eval()


def test_a_feature_is_the_last_output_and_behind_it_an_early_one():
    made, pixels = encoder(depth=4), torch.rand(2, 3, 24, 24)
    outputs = []
    for block in made.blocks:
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output[:, 1:]))
    features = made(pixels)
    assert features.shape == (2, 3, 3, 32)
    assert torch.equal(features.flatten(1, 2), torch.cat([outputs[3], outputs[1]], -1))


def test_some_patches_are_seen_from_where_they_lie():
    made, pixels = encoder(), torch.rand(1, 3, 24, 24)
    everything = torch.arange(9)[None]
    torch.testing.assert_close(made.visible(pixels, everything), made(pixels).flatten(1, 2))
    turned = made.visible(pixels, everything.flip(1))
    torch.testing.assert_close(turned.flip(1), made(pixels).flatten(1, 2))


def test_a_hidden_patch_is_as_if_it_were_not_there():
    made, patches, places = encoder(), torch.randn(1, 4, 192), torch.tensor([[0, 3, 5, 7]])
    real = torch.tensor([[True, True, False, True]])
    kept = [0, 1, 3]
    hidden = made.features(patches, places, (3, 3), real)[:, kept]
    torch.testing.assert_close(hidden, made.features(patches[:, kept], places[:, kept], (3, 3)))


def test_other_sizes_take_the_table_interpolated():
    assert encoder()(torch.rand(1, 3, 32, 16)).shape == (1, 4, 2, 32)
    with pytest.raises(RecipeError, match="cannot cut 30x32 pixels into patches of 8"):
        encoder().grid(30, 32)
    with pytest.raises(RecipeError, match="early is 3, but there are 3 blocks"):
        encoder(early=3)
