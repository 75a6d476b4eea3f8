"""The painter equals the network written out, and its widths halve while its resolution doubles."""

from itertools import pairwise

import pytest
import torch
from plain import convolve, mixed_residual, narrow_norm, noise, pictures, shaken, silu, unfolded

from chiasm.errors import RecipeError
from chiasm.tokenizers.painter import Painter

# Width, side of the grid and size: channels at each resolution, and pixels of the patches painted at once.
SHAPES = {
    (32, 4, 32): ([32, 16], 4),
    (36, 2, 32): ([32, 16, 8], 4),  # the width is rounded to a multiple of 8, and so are its halves
    (41, 2, 32): ([40, 16, 8], 4),
    (44, 2, 24): ([48, 24, 8], 3),
    (16, 2, 12): ([16, 8], 3),
    (12, 4, 12): ([16], 3),
    (3, 2, 8): ([8], 4),
    (16, 1, 20): ([16, 8, 8], 5),
}


def painted(features, w, widths, patch, side):
    x = features.mT.unflatten(2, (side, side))
    x = mixed_residual(convolve(x, w, "layers.0"), w, "layers.1")
    layer = 2
    for _ in widths[1:]:
        x = unfolded(convolve(x, w, f"layers.{layer}"), 2)
        x = mixed_residual(x, w, f"layers.{layer + 2}")
        layer += 3
    x = convolve(silu(narrow_norm(x, w, f"layers.{layer}")), w, f"layers.{layer + 2}")
    return (unfolded(x, patch) + 1) / 2


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_network_written_out(shape):
    width, side, size = shape
    painter, (widths, patch) = shaken(Painter(6, width, (side, side), size)), SHAPES[shape]
    features, weights = noise(2, side * side, 6), painter.state_dict()
    assert weights["layers.0.weight"].shape == (widths[0], 6, 3, 3)
    doublings = [weights[f"layers.{2 + 3 * i}.weight"] for i in range(len(widths) - 1)]
    assert [d.shape for d in doublings] == [(4 * b, a, 1, 1) for a, b in pairwise(widths)]
    expected = painted(features, weights, widths, patch, side)
    assert expected.shape == (2, 3, size, size)
    torch.testing.assert_close(painter(features), expected, rtol=1e-4, atol=1e-4)


def test_its_error_is_absolute_and_squared_and_weighs_the_foreground():
    pixels = torch.full((2, 3, 8, 8), 0.25)
    pixels[:, 1, :2] = 0.75  # a quarter of the picture; the rest is its median
    made = pictures(2, 3, 8, 8)
    error = 2 * (made - pixels)
    terms = error.abs() + error.square()
    loss = Painter.loss(made, pixels, 3.0)
    assert float(loss.sum) == pytest.approx(
        float(3 * terms[:, :, :2].sum() + terms[:, :, 2:].sum()), rel=1e-5
    )
    assert loss.count == made.numel()


def test_a_grid_that_does_not_fit_is_refused():
    for grid, size in (((4, 2), 32), ((4, 4), 30)):
        with pytest.raises(RecipeError, match=f"{size} x {size} pixels from a grid of {grid[0]} x {grid[1]}"):
            Painter(6, 16, grid, size)
