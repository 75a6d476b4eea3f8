"""Spaces: how many positions an image has, and which scales a tokenizer says."""

from test_autoencoder import Patches

from chiasm.tokenizers.spaces import Codes, Vectors


def test_an_image_has_a_position_for_each_cell_of_its_grid():
    assert Codes((2, 3), 5).length == Vectors((2, 3), 5).length == 6


def test_two_scales_are_scales_and_one_is_the_grid():
    class TwoScales(Patches):
        scales = ((1, 1), (2, 2))

    assert TwoScales(bright=1.0).space.scales == ((1, 1), (2, 2))
    assert Patches(bright=1.0).space.scales is None
