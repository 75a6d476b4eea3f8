"""Honeybee's abstractors and the perceivers: properties that are seen without the original."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from chiasm import parts
from chiasm.errors import RecipeError


def connector(name, in_width=6, out_width=10, **options):
    torch.manual_seed(0)
    return parts.build("connector", {"type": name, **options}, in_width, out_width)


def test_average_pool_is_the_mean_of_each_cell():
    part, grid = connector("average_pool", side=2), torch.rand(1, 4, 6, 6)
    part.layers = nn.Identity()
    made = part(grid)
    assert part.token_grid((4, 6)) == (2, 2)
    torch.testing.assert_close(made[0, 1], grid[0, :2, 3:].mean((0, 1)))
    torch.testing.assert_close(made[0, 2], grid[0, 2:, :3].mean((0, 1)))


def test_a_c_abstractor_of_depth_zero_averages():
    part, grid = connector("c_abstractor", side=2, depth=0, mlp_depth=1), torch.rand(1, 4, 4, 6)
    torch.testing.assert_close(part(grid)[0, 3], part.readout(grid[0, 2:, 2:].mean((0, 1))))


def test_a_bottleneck_filters_each_channel_by_itself():
    part = connector("c_abstractor", depth=1)
    assert part.before[0].filter.weight.shape == (6, 1, 3, 3)
    assert not hasattr(part.before[0], "shortcut")
    assert connector("c_abstractor", depth=1, width=8).before[0].shortcut.weight.shape == (8, 6, 1, 1)


@pytest.mark.parametrize("name", ["c_abstractor", "d_abstractor", "honeybee_mlp", "honeybee_resampler"])
def test_closing_tokens_stand_behind_those_of_the_picture(name):
    grid = torch.rand(2, 4, 4, 6)
    part, plain = connector(name, closing=3), connector(name)
    assert part.tokens((4, 4)) == plain.tokens((4, 4)) + 3
    made = part(grid)
    assert torch.equal(made[0, -3:], made[1, -3:])
    assert not torch.equal(made[0, -4], made[1, -4])
    assert part.token_grid((4, 4)) == (1, part.tokens((4, 4)))


@pytest.mark.parametrize("name", ["c_abstractor", "d_abstractor", "honeybee_mlp", "honeybee_resampler"])
def test_learnt_positions_are_added_and_fit_other_grids(name):
    part = connector(name, positions=(4, 4))
    table = part.positions.table
    assert table.shape[:2] == (4, 4)
    zeros = torch.zeros(1, 4, 4, table.shape[-1])
    assert torch.equal(part.positions(zeros)[0], table)
    assert part(torch.rand(1, 3, 5, 6)).shape[-1] == 10


def test_a_d_abstractor_reads_the_features_at_its_reference_points():
    """With offsets of zero and one point, what is read is the feature itself, before the output layer."""
    part = connector("d_abstractor", in_width=8, side=2, depth=1, width=8, heads=2, points=1)
    look, features = part.layers[0].look, torch.rand(1, 1, 2, 2, 8)
    nn.init.zeros_(look.offsets.bias)
    read = look(torch.rand(1, 4, 8), part.references, features)
    assert part.references.tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    torch.testing.assert_close(read, look.output(look.value(features.flatten(1, 3))))


def test_levels_of_a_d_abstractor_are_told_apart():
    part = connector("d_abstractor", in_width=12, side=2, depth=1, width=8, heads=2, levels=2, pooled="none")
    grid = torch.rand(1, 4, 4, 12)
    swapped = torch.cat(grid.chunk(2, -1)[::-1], -1)
    assert not torch.allclose(part(grid), part(swapped))
    with pytest.raises(RecipeError, match="pools one level only"):
        connector("d_abstractor", in_width=12, levels=2)


@pytest.mark.parametrize("name", ["perceiver_resampler", "idefics2_resampler", "honeybee_resampler"])
def test_resamplers_without_positions_do_not_see_the_order_of_features(name):
    part, grid = connector(name, depth=2), torch.rand(1, 4, 4, 6)
    shuffled = grid.flatten(1, 2)[:, torch.randperm(16)].view(1, 2, 8, 6)
    torch.testing.assert_close(part(grid), part(shuffled), atol=1e-5, rtol=1e-4)


def test_a_perceiver_of_one_layer_by_hand():
    part = connector("perceiver_resampler", 6, 6, depth=1, heads=1, head_width=6, latents=2)
    layer, features = part.layers[0], torch.rand(1, 3, 6)
    assert isinstance(part.output, nn.Identity)
    own, seen = functional.layer_norm(part.latents, (6,)), functional.layer_norm(features[0], (6,))
    seen = torch.cat([seen, own])
    scores = layer.query(own) @ layer.key(seen).T / 6**0.5
    x = part.latents + layer.output(scores.softmax(-1) @ layer.value(seen))
    x = x + layer.mlp(x)
    torch.testing.assert_close(part(features[None])[0], functional.layer_norm(x, (6,)))


def test_a_perceiver_tells_pictures_and_frames_apart_where_it_learns_to():
    features = torch.rand(1, 1, 1, 5, 6).expand(1, 2, 3, 5, 6)
    plain = connector("perceiver_resampler", depth=1).resample(features)
    torch.testing.assert_close(plain[:, 0], plain[:, 1])
    ordered = connector("perceiver_resampler", depth=1, pictures=2, frames=3).resample(features)
    assert not torch.allclose(ordered[:, 0], ordered[:, 1])


def test_heads_that_do_not_divide_are_named():
    with pytest.raises(RecipeError, match="3 key heads do not divide 16 heads"):
        connector("idefics2_resampler", key_heads=3)
    with pytest.raises(RecipeError, match="5 heads do not divide the width 256"):
        connector("honeybee_resampler", heads=5)
