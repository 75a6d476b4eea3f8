"""mPLUG-Owl's abstractor, told where a view lies, and DocOwl-1.5's H-Reducer."""

import pytest
import torch
from torch.nn import functional

from chiasm import parts
from chiasm.errors import RecipeError


def connector(name, **options):
    torch.manual_seed(0)
    return parts.build("connector", {"type": name, **options}, 6, 10)


def abstractor(**options):
    return connector("visual_abstractor", queries=3, depth=2, heads=2, hidden=8, **options)


def test_a_place_is_the_mean_of_its_row_and_its_column():
    part, grid = abstractor(cells=4, closing=0), torch.rand(1, 2, 2, 6)
    at = torch.tensor([[2, 1]])
    place = (part.rows[2] + part.columns[1]) / 2
    apart = part(grid, at) - part(grid)
    torch.testing.assert_close(apart, (place @ part.output.weight.T).expand(1, 3, 10))


def test_the_closing_token_of_a_view_knows_no_place():
    part, grid = abstractor(cells=4), torch.rand(1, 2, 2, 6)
    one, other = (part(grid, torch.tensor([[row, 0]])) for row in (0, 3))
    assert torch.equal(one[:, -1], other[:, -1])
    assert not torch.allclose(one[:, :-1], other[:, :-1])


def test_heads_divide_the_width_of_the_features():
    with pytest.raises(RecipeError, match="4 heads do not divide the features' width 6"):
        connector("visual_abstractor", heads=4)


def test_fixed_positions_tell_features_apart_that_are_alike():
    """mPLUG-Owl2's: without them the order of the features behind the class token does not matter."""
    grid = torch.rand(1, 1, 10, 6)
    turned = torch.cat([grid[:, :, :1], grid[:, :, 1:].flip(2)], 2)
    for side, told in ((None, False), (3, True)):
        part = abstractor(positions=side).eval()
        assert torch.allclose(part(grid), part(turned), atol=1e-5) != told
    with pytest.raises(RecipeError, match=r"positions for 10 features, .* an image has 9"):
        part.tokens((1, 9))


def test_places_of_queries_and_features_are_mplug_owl2s():
    first = abstractor(positions=2).layers[0]
    frequencies = 10000.0 ** -(torch.arange(3) / 3)
    angles = torch.outer(torch.arange(3.0), frequencies)
    torch.testing.assert_close(first.query_positions, torch.cat([angles.sin(), angles.cos()], 1))
    assert not first.feature_positions[0].any()  # of the class token
    last = abstractor(positions=2).layers[1].feature_positions[4]  # of column 1 and row 1
    assert torch.equal(last[:2], last[4:])


@pytest.mark.parametrize("kernel", [(1, 4), (2, 2), (2, 1), (1, 1)])
def test_a_reducer_makes_one_token_of_each_block(kernel):
    part = connector("h_reducer", kernel=kernel, closing=0)
    assert part.tokens((8, 8)) == 64 // (kernel[0] * kernel[1])
    assert part(torch.rand(2, 8, 8, 6)).shape == (2, part.tokens((8, 8)), 10)


def test_four_in_a_row_become_one_token_of_what_the_first_convolution_makes_of_them():
    part, grid = connector("h_reducer", closing=0), torch.rand(1, 2, 8, 6)
    block = grid[0, 1, 4:8].flatten()  # the second block of the second row
    mix = part.mix.weight[:, :, 0].transpose(1, 2).flatten(1)  # to a row of the block's features
    four = functional.gelu(mix @ block + part.mix.bias).view(4, 6)
    reduce = part.reduce.weight[:, :, 0].transpose(1, 2).flatten(1)
    token = part.output(reduce @ four.flatten() + part.reduce.bias)
    torch.testing.assert_close(part(grid)[0, 3], token)


def test_a_grid_that_is_no_multiple_of_blocks_is_refused():
    with pytest.raises(RecipeError, match="cannot reduce a 6x8 grid by 2x2: its rows must be divisible by 4"):
        connector("h_reducer", kernel=(2, 2)).tokens((6, 8))
