"""TextMonkey's token resampler: which features it keeps, and what it makes of them."""

import pytest
import torch

from chiasm import parts
from chiasm.connectors.token_resampler import least_redundant
from chiasm.errors import RecipeError


def connector(**options):
    torch.manual_seed(0)
    small = {"width": 8, "heads": 2, "head_width": 4}
    return parts.build("connector", {"type": "token_resampler", **small, **options}, 6, 6)


def test_what_a_later_feature_repeats_goes_first():
    a, b, c, d = torch.eye(4)
    features = torch.stack([a, b, 2 * a, c + 0.2 * b, d, 3 * b])[None]  # a comes again, and so does b
    assert least_redundant(features, 4).tolist() == [[2, 3, 4, 5]]
    assert least_redundant(features, 3).tolist() == [[2, 4, 5]]  # c is nearer to b than d to any


def test_the_last_feature_stays_whatever_it_is_like():
    assert least_redundant(torch.ones(1, 5, 3), 1).tolist() == [[4]]


def test_at_first_what_is_kept_passes_as_it_is_and_the_overview_behind_it():
    grid = torch.rand(2, 5, 4, 6)
    features = grid.flatten(1, 2)
    kept = least_redundant(features[:, :16], 7)
    expected = torch.cat([features[torch.arange(2)[:, None], kept], features[:, 16:]], dim=1)
    torch.testing.assert_close(connector(retained=7, overview=4)(grid), expected)


def test_what_is_kept_learns_of_all_features_but_the_overview():
    part, grid = connector(retained=2, overview=4), torch.rand(1, 5, 4, 6, requires_grad=True)
    torch.nn.init.normal_(part.layers[0].down.weight)
    part(grid)[0, 0].sum().backward()
    seen = grid.grad.flatten(1, 2)[0].abs().sum(-1) > 0
    assert seen.tolist() == [True] * 16 + [False] * 4


def test_an_image_of_too_few_features_is_a_sentence():
    with pytest.raises(RecipeError, match="keep 7 of 4 features: a grid of 2x4 without 4 of an overview"):
        connector(retained=7, overview=4).tokens((2, 4))
