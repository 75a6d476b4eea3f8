"""Learnt queries in the decoder of a transformer whose encoder reads the features."""

import pytest
import torch
from torch import nn

from chiasm import parts
from chiasm.errors import RecipeError

SIZES = {"queries": 3, "width": 8, "depth": 2, "heads": 2, "hidden": 16}


def transformer(**options):
    torch.manual_seed(0)
    return parts.build("connector", {"type": "query_transformer", **SIZES, **options}, 6, 10).eval()


def test_it_is_torchs_transformer_between_two_linear_layers():
    part, grid = transformer(), torch.rand(2, 3, 4, 6)
    theirs = nn.Transformer(8, 2, 2, 2, 16, dropout=0.0, batch_first=True, norm_first=True).eval()
    inner = {
        name: tensor
        for name, tensor in part.state_dict().items()
        if name.startswith(("encoder.", "decoder."))
    }
    theirs.load_state_dict(inner)
    expected = part.output(theirs(part.input(grid.flatten(1, 2)), part.queries.expand(2, -1, -1)))
    torch.testing.assert_close(part(grid), expected)
    assert part.tokens((3, 4)) == 3


def test_the_layers_begin_differently():
    first, second = transformer().encoder.layers
    assert not torch.equal(first.linear1.weight, second.linear1.weight)


def test_heads_must_divide_the_width():
    with pytest.raises(RecipeError, match="3 heads do not divide the width 8"):
        transformer(heads=3)
