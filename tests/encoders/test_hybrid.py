import pytest
import torch

from chiasm import parts
from chiasm.errors import RecipeError


def hybrid(*sizes):
    towers = [{"type": "patches", "patch_size": 8}, {"type": "patches", "patch_size": 4}]
    return parts.build("encoder", {"type": "hybrid", "encoders": towers, "sizes": list(sizes)})


def test_features_are_joined_in_the_order_of_the_encoders():
    part, pixels = hybrid(None, 16), torch.rand(2, 3, 32, 32)
    made = part(pixels)
    assert made.shape == (2, 4, 4, 3 * 64 + 3 * 16)
    torch.testing.assert_close(made[..., :192], part.encoders[0](pixels))


def test_a_uniform_picture_stays_so_at_every_size():
    part = hybrid(None, 16)
    made = part(torch.full((1, 3, 32, 32), 0.25))
    torch.testing.assert_close(made, torch.full_like(made, -0.5))


def test_grids_that_differ_are_a_sentence():
    with pytest.raises(RecipeError, match=r"differ \(4x4, 8x8\)"):
        hybrid(None, None).grid(32, 32)


def test_grids_that_differ_can_be_resized_to_the_largest():
    towers = [{"type": "patches", "patch_size": 8}, {"type": "patches", "patch_size": 4}]
    spec = {"type": "hybrid", "encoders": towers, "sizes": [None, None], "resize": True}
    part, pixels = parts.build("encoder", spec), torch.rand(1, 3, 32, 32)
    assert part.grid(32, 32) == (8, 8)
    joined = part(pixels)
    assert joined.shape == (1, 8, 8, 3 * 64 + 3 * 16)
    torch.testing.assert_close(joined[..., 192:], part.encoders[1](pixels))
    even = part(torch.full((1, 3, 32, 32), 0.25))
    torch.testing.assert_close(even, torch.full_like(even, -0.5))


def test_a_size_for_each_encoder_is_asked_for():
    with pytest.raises(RecipeError, match="has 2 encoders but 1 sizes"):
        hybrid(None)


def test_it_is_rebuilt_from_what_it_says_of_itself():
    part = hybrid(None, 16)
    again = parts.build("encoder", part.spec | part.standalone())
    assert [tower.patch_size for tower in again.encoders] == [8, 4]
