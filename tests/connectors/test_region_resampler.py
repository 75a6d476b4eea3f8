"""LLaVA-UHD's resampler: regions of a view whatever its form, and queries that see no more than theirs."""

import pytest
import torch

from chiasm import parts
from chiasm.connectors.region_resampler import bins, region_weights
from chiasm.errors import RecipeError


def connector(**options):
    torch.manual_seed(0)
    options = {"queries": 4, "heads": 2, **options}
    return parts.build("connector", {"type": "region_resampler", **options}, 6, 8).eval()


def test_a_token_is_of_its_region_alone():
    """Of four regions of 4 x 6 features a change within the last reaches the last token."""
    made, grid = connector(), torch.randn(1, 8, 12, 6)
    before = made(grid)
    grid[0, 6, 9] += 1
    assert (made(grid) != before).any(-1)[0].tolist() == [False, False, False, True]


def test_tokens_are_as_many_for_views_of_any_form():
    made = connector()
    for rows, columns in ((1, 1), (1, 9), (7, 2), (24, 24)):
        assert made(torch.randn(2, rows, columns, 6)).shape == (2, 4, 8)
        assert made.tokens((rows, columns)) == 4
        assert made.token_grid((rows, columns)) == (2, 2)


@pytest.mark.parametrize(
    ("grid", "expected"), [((10, 10), (3, 3)), ((10, 20), (2, 4)), ((20, 10), (4, 2)), ((9, 12), (3, 4))]
)
def test_a_region_is_pooled_to_about_the_views_aspect_ratio(grid, expected):
    assert bins(*grid) == expected


def test_a_bin_is_the_mean_of_samples_between_features():
    """4 features, 2 cells of 2 bins: each bin has one sample, half way between a feature and the next."""
    half = [[0.5, 0.5, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0.5, 0.5], [0, 0, 0, 1]]
    torch.testing.assert_close(region_weights(4, 2, 2), torch.tensor(half, dtype=torch.float32))


def test_a_bin_has_as_many_samples_as_it_covers_features():
    """8 features, 1 cell of 2 bins: four samples a bin, at 0.5, 1.5, 2.5 and 3.5 in the first."""
    first = torch.tensor([0.125, 0.25, 0.25, 0.25, 0.125, 0, 0, 0])
    torch.testing.assert_close(region_weights(8, 1, 2)[0], first)


def test_a_cell_is_a_feature_long_at_least_and_nothing_lies_beyond_the_last():
    """2 features, 4 cells: the last begins at 1.5, and its second bin's sample lies at 2.25."""
    torch.testing.assert_close(region_weights(2, 4, 2)[-2:], torch.tensor([[0, 1.0], [0, 0]]))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"heads": 3}, "3 heads do not divide the width 8"), ({"queries": 5}, "5 queries make no square")],
)
def test_what_does_not_fit_is_refused(options, words):
    with pytest.raises(RecipeError, match=words):
        connector(**options)
