import pytest
import torch
from safetensors.torch import load, save

from chiasm import parts
from chiasm.errors import RecipeError

# Options that make a part small enough for a test.
SMALL = {
    "qformer": {"queries": 3, "width": 8, "depth": 2, "heads": 2, "hidden": 16},
    "h_reducer": {"kernel": [1, 2]},
    "grid_resampler": {"side": 2, "heads": 2},
    "region_resampler": {"queries": 4, "heads": 2},
    "resampler_2d": {"queries": 4, "heads": 2},
    "transformer": {"depth": 1, "heads": 2},
    "visual_abstractor": {"depth": 1, "heads": 2, "hidden": 8},
    "token_resampler": {"retained": 5, "overview": 4, "width": 8, "heads": 2, "head_width": 4},
    "lavit": {"depth": 1, "heads": 2, "hidden": 16, "keep": 0.5},
}


def connector(name, in_width=6, out_width=10, **options):
    return parts.build("connector", {"type": name, **SMALL.get(name, {}), **options}, in_width, out_width)


@pytest.mark.parametrize("name", parts.names("connector"))
@pytest.mark.parametrize("grid", [(4, 4), (2, 6)])
def test_a_connector_makes_as_many_tokens_as_it_says(name, grid):
    made = connector(name)(torch.rand(3, *grid, 6))
    assert made.shape == (3, connector(name).tokens(grid), 10)


@pytest.mark.parametrize("name", parts.names("connector"))
def test_every_parameter_of_a_connector_gets_a_gradient(name):
    part = connector(name)
    part(torch.rand(2, 4, 4, 6)).square().sum().backward()
    assert [key for key, p in part.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("name", parts.names("connector"))
def test_a_saved_connector_is_bit_equal_when_loaded(name):
    part, other, grid = connector(name), connector(name), torch.rand(2, 4, 4, 6)
    other.load_state_dict(load(save(part.state_dict())))
    torch.manual_seed(0)  # some draw noise in training
    expected = part(grid)
    torch.manual_seed(0)
    assert torch.equal(other(grid), expected)


@pytest.mark.parametrize("name", parts.names("connector"))
def test_pictures_of_a_batch_do_not_see_each_other(name):
    part, grid = connector(name).eval(), torch.rand(2, 4, 4, 6)
    torch.testing.assert_close(part(grid)[:1], part(grid[:1]))


def test_linear_keeps_the_order_of_reading():
    part, grid = connector("linear"), torch.rand(1, 2, 3, 6)
    torch.testing.assert_close(part(grid)[0, 4], part.layer(grid[0, 1, 1]))


def test_mlp_of_depth_three_is_linear_gelu_linear_gelu_linear():
    kinds = [type(layer).__name__ for layer in connector("mlp", depth=3).layers]
    assert kinds == ["Linear", "GELU", "Linear", "GELU", "Linear"]


def test_pixel_shuffle_joins_each_block_by_row_column_channel():
    part, grid = connector("pixel_shuffle", factor=2), torch.rand(1, 4, 6, 6)
    part.norm, part.layers = torch.nn.Identity(), torch.nn.Identity()
    made = part(grid)[0]
    for row in range(2):
        for column in range(3):
            block = [grid[0, 2 * row + a, 2 * column + b] for a in (0, 1) for b in (0, 1)]
            assert torch.equal(made[3 * row + column], torch.cat(block))


def test_pixel_shuffle_orders_channels_as_idefics3():
    from transformers.models.idefics3.modeling_idefics3 import Idefics3Connector

    part, grid = connector("pixel_shuffle", factor=2), torch.rand(2, 4, 4, 6)
    part.norm, part.layers = torch.nn.Identity(), torch.nn.Identity()
    expected = Idefics3Connector.pixel_shuffle(None, grid.reshape(2, 16, 6), scale_factor=2)
    assert torch.equal(part(grid), expected)


def test_the_quickstart_grid_becomes_nine_tokens():
    assert connector("pixel_shuffle", in_width=432)(torch.rand(2, 6, 6, 432)).shape == (2, 9, 10)


def test_pixel_shuffle_refuses_a_grid_it_cannot_cut():
    with pytest.raises(RecipeError, match="cannot cut a 7x6 grid by 2"):
        connector("pixel_shuffle").tokens((7, 6))
    with pytest.raises(RecipeError, match="cannot cut a 7x6 grid by 2"):
        connector("pixel_shuffle")(torch.rand(1, 7, 6, 6))
