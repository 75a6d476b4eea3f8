"""The one-layer resampler against torch's own attention, and its positions against their formula."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from chiasm.errors import RecipeError
from chiasm.nn.grid_resampler import GridResampler, sinusoids


def test_positions_are_sines_and_cosines_of_the_column_then_of_the_row():
    table = sinusoids(3, 3, 8).view(3, 3, 8)
    row, column = 2, 1
    expected = [
        f(place / 10000 ** (i / 2)) for place in (column, row) for f in (math.sin, math.cos) for i in range(2)
    ]
    torch.testing.assert_close(table[row, column], torch.tensor(expected))


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (2, 2)])
@torch.no_grad()
def test_it_is_attention_of_queries_to_keys_that_carry_positions_and_values_that_do_not(grid):
    torch.manual_seed(0)
    ours = GridResampler(6, 8, 2, heads=2)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.5)
    theirs = nn.MultiheadAttention(8, 2, batch_first=True)
    theirs.in_proj_weight.copy_(torch.cat([each.weight for each in (ours.query, ours.key, ours.value)]))
    theirs.in_proj_bias.copy_(torch.cat([each.bias for each in (ours.query, ours.key, ours.value)]))
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    image = torch.randn(3, *grid, 6)
    table = ours.positions.view(1, 2, 2, 8).permute(0, 3, 1, 2)
    if grid != (2, 2):
        table = functional.interpolate(table, grid, mode="bicubic")
    table = table.permute(0, 2, 3, 1).flatten(1, 2)
    features = ours.feature_norm(ours.input(image.flatten(1, 2)))
    queries = (ours.query_norm(ours.queries) + ours.positions).expand(3, -1, -1)
    expected, _ = theirs(queries, features + table, features)
    torch.testing.assert_close(ours(image), expected, atol=1e-6, rtol=1e-5)


def test_equal_widths_need_no_projection():
    assert not list(GridResampler(8, 8, 2, heads=2).input.parameters())


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(RecipeError, match="3 heads of a grid resampler do not divide its width 8"):
        GridResampler(8, 8, 2, heads=3)
