"""Qwen-VL's encoder: one grid of features, whatever the size of the images."""

import pytest
import torch

from chiasm import parts
from chiasm.errors import RecipeError


def small():
    torch.manual_seed(0)
    cls = parts.lookup("encoder", "qwen_vl")
    return parts.build("encoder", {"type": "qwen_vl", **cls.example()}).eval()


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 32), (64, 16), (128, 128)])
def test_images_of_any_size_become_one_square_of_features(size):
    encoder = small()
    assert encoder(torch.rand(2, 3, *size)).shape == (2, *encoder.grid(*size), 16) == (2, 2, 2, 16)


def test_a_size_that_patches_do_not_fill_is_refused():
    with pytest.raises(RecipeError, match="32x30 pixels into patches of 8"):
        small().grid(32, 30)
