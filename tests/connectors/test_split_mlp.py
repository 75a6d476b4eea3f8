import pytest
import torch

from chiasm import parts
from chiasm.errors import RecipeError


def test_an_encoders_channels_reach_only_its_own_share():
    part = parts.build("connector", {"type": "split_mlp", "widths": [4, 2], "depth": 1}, 6, 10)
    grid = torch.rand(1, 2, 2, 6)
    changed = grid.clone()
    changed[..., 4:] = 0
    assert torch.equal(part(grid)[..., :5], part(changed)[..., :5])
    assert not torch.equal(part(grid)[..., 5:], part(changed)[..., 5:])


def test_widths_that_do_not_add_up_are_a_sentence():
    with pytest.raises(RecipeError, match=r"cannot split 6 channels as 4 \+ 4"):
        parts.build("connector", {"type": "split_mlp", "widths": [4, 4]}, 6, 10)
