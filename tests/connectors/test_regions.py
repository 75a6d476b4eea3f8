"""A region's token: which features it takes the mean of, and what it refuses."""

import pytest
import torch

from chiasm.connectors.regions import RegionToken
from chiasm.errors import ChiasmError


@pytest.fixture
def region():
    torch.manual_seed(0)
    return RegionToken(6, 8, size=32)


def test_a_region_is_read_across_the_diagonal_as_the_original_reads_it(region):
    grid = torch.zeros(1, 4, 4, 6)
    mask = region.mask(grid, torch.tensor([[8.0, 16.0, 16.0, 32.0]]))  # x 8 to 16, y 16 to 32
    assert mask[0].nonzero().tolist() == [[1, 2], [1, 3]]


def test_features_outside_the_region_change_nothing_and_those_within_do(region):
    grid, box = torch.randn(1, 4, 4, 6), torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    outside, within = grid.clone(), grid.clone()
    outside[:, 2:] += 1
    within[:, 0, 0] += 1
    token = region(grid, box)
    assert token.shape == (1, 1, 8)
    assert torch.equal(token, region(outside, box))
    assert not torch.allclose(token, region(within, box))


def test_two_places_of_the_same_features_are_told_apart(region):
    grid = torch.ones(2, 4, 4, 6)
    one, other = region(grid, torch.tensor([[0.0, 0.0, 8.0, 8.0], [8.0, 8.0, 16.0, 16.0]]))
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("box", [(8, 8, 8, 20), (20, 0, 10, 10), (0, 0, 33, 8), (-4, 0, 8, 8)])
def test_a_box_without_an_area_in_the_image_is_refused(region, box):
    with pytest.raises(ChiasmError, match="has no area within an image of 32 x 32 pixels"):
        region(torch.zeros(1, 4, 4, 6), torch.tensor([box], dtype=torch.float))
