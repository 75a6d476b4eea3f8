"""MiniCPM-V's three resamplers: what their positions are, and that a grid's tokens are its own."""

import pytest
import torch

from chiasm import parts
from chiasm.errors import RecipeError


def connector(**options):
    torch.manual_seed(0)
    return parts.build(
        "connector", {"type": "resampler_2d", "queries": 4, "heads": 2, **options}, 6, 8
    ).eval()


@pytest.mark.parametrize("positions", ["keys", "both", "resized"])
def test_features_are_known_by_their_places(positions):
    """The same features in another order are other tokens, on grids of every form."""
    made = connector(positions=positions)
    grid = torch.randn(2, 3, 5, 6)
    tokens = made(grid)
    assert tokens.shape == (2, 4, 8)
    assert not torch.allclose(tokens, made(grid.flip(1)), atol=1e-4)
    assert not torch.allclose(tokens, made(grid.flip(2)), atol=1e-4)
    assert not torch.allclose(tokens, made(grid.reshape(2, 5, 3, 6)), atol=1e-4)


def test_queries_have_positions_in_older_versions_alone():
    assert connector().query_positions is None
    assert connector(positions="both").query_positions.shape == (4, 8)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heads": 3}, "3 heads do not divide the width 8"),
        ({"queries": 5, "positions": "both"}, "5 queries make no square"),
    ],
)
def test_what_does_not_fit_is_refused(options, words):
    with pytest.raises(RecipeError, match=words):
        connector(**options)
