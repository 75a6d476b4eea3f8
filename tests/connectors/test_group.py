"""GroupViT's grouping: features become groups by being assigned to them."""

import pytest
import torch
from torch import nn

from chiasm import parts
from chiasm.connectors.group import Assignment
from chiasm.errors import RecipeError

SIZES = {"depths": [1, 2, 1], "group_tokens": [5, 3, 0], "groups": [4, 2], "width": 8, "heads": 2}


def group(**options):
    torch.manual_seed(0)
    return parts.build("connector", {"type": "group", **SIZES, **options}, 6, 10).eval()


def test_there_are_as_many_tokens_as_the_last_groups_whatever_the_grid():
    part = group()
    assert part.tokens((3, 4)) == part.tokens((1, 9)) == 2
    assert part(torch.rand(2, 3, 4, 6)).shape == (2, 2, 10)


def test_one_stage_groups_nothing():
    part = group(depths=[1], group_tokens=[3], groups=[])
    assert part.tokens((3, 4)) == 12
    assert part(torch.rand(1, 3, 4, 6)).shape == (1, 12, 10)


def test_the_order_of_the_features_does_not_matter():
    part, grid = group(), torch.rand(2, 1, 5, 6)
    torch.testing.assert_close(part(grid), part(grid.flip(2)))


@pytest.mark.parametrize("training", [False, True])
def test_a_group_is_the_mean_of_its_features_and_of_one_that_is_zero(training):
    assignment = Assignment(2).train(training)
    for layer in (assignment.query, assignment.key, assignment.value, assignment.out):
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    assignment.query.weight.data *= 100  # so far apart that no draw of Gumbel noise changes the choice
    groups = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]])
    features = torch.tensor([[[3.0, 0.0], [5.0, 0.0], [0.0, 7.0]]])
    expected = torch.tensor([[[8 / 3, 0.0], [0.0, 7 / 2], [0.0, 0.0]]])
    torch.testing.assert_close(assignment(groups, features), expected)


def test_a_draw_of_the_assignment_has_a_gradient_to_the_features():
    part, grid = group().train(), torch.rand(1, 2, 3, 6)
    part(grid).square().sum().backward()
    assert part.stages[0].grouping.assignment.key.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": [1, 1]}, "group_tokens needs as many numbers and has 3, groups one fewer and has 2"),
        ({"groups": [4]}, "has 3 stages of depths"),
        ({"group_tokens": [5, 0, 0]}, "needs group tokens in every stage but the last"),
        ({"heads": 3}, "3 heads do not divide the width 8"),
    ],
)
def test_stages_that_do_not_fit_each_other_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        group(**options)
