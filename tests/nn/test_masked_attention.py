"""Mask2Former's decoder: what a query sees of the image, and when."""

import pytest
import torch
from torch import nn

from chiasm.errors import RecipeError
from chiasm.nn.masked_attention import MaskedDecoder, MaskedLayer, mlp

SIZES = ((2, 2), (4, 4), (8, 8))  # of the levels, coarsest first


def decoder(**options) -> MaskedDecoder:
    return MaskedDecoder(
        8, 8, 4, **{"queries": 1, "heads": 2, "hidden": 12, "depth": 4, "prenorm": False, **options}
    )


def example(queries: int = 1):
    levels = [torch.randn(1, 8, *size) for size in SIZES]
    return torch.randn(1, queries, 8), torch.randn(1, 4, 16, 16), levels


def moved(module: MaskedDecoder, queries, features, levels, which: int) -> list[bool]:
    """Whether the mask behind each layer changes with the level."""
    before = module(queries, features, levels)
    others = [level + torch.randn_like(level) if i == which else level for i, level in enumerate(levels)]
    after = module(queries, features, others)
    return [not torch.equal(a.queries, b.queries) for a, b in zip(before, after, strict=True)]


@torch.no_grad()
@pytest.mark.parametrize("prenorm", [True, False])
def test_layers_look_at_the_levels_in_turn_the_coarsest_first(prenorm):
    queries, features, levels = example()
    features.zero_()  # every mask is empty or full: nothing is barred
    module = decoder(prenorm=prenorm, depth=5)
    first = [moved(module, queries, features, levels, i).index(True) for i in range(3)]
    assert first == [1, 2, 3]
    assert len(module(queries, features, levels)) == 6  # before the first layer and behind each
    module.layers = module.layers[:2]
    assert True not in moved(module, queries, features, levels, 2)


@torch.no_grad()
def test_a_query_sees_only_what_its_mask_holds_or_all_where_the_mask_is_empty():
    queries, features, levels = example()
    module = decoder(depth=1)
    embedding = module.mask(module.norm(queries))[0, 0]
    left = (torch.arange(16) < 8).float() * 2 - 1  # its mask is the left half
    for sign, sees_right in ((left, False), (-torch.ones(16), True)):
        features = (embedding / embedding.norm())[None, :, None, None] * sign.expand(1, 1, 16, 16)
        outcomes = []
        for column in (0, 1):
            other = levels[0].clone()
            other[..., column] += torch.randn(8, 2)
            before, after = (module(queries, features, [x, *levels[1:]])[1] for x in (levels[0], other))
            outcomes.append(not torch.equal(before.queries, after.queries))
        assert outcomes == [True, sees_right]


@torch.no_grad()
def test_each_query_has_a_mask_of_its_own_in_every_head():
    layer = MaskedLayer(8, 2, 12, prenorm=True)
    x, image = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    nothing = torch.zeros(3, 8), torch.zeros(5, 8)
    for row in range(2):
        for query in range(3):
            barred = torch.zeros(2, 3, 5, dtype=torch.bool)
            barred[row, query, 1:] = True
            layer.attention.out_proj.weight.zero_()  # queries do not see each other
            same = layer(x, nothing[0], image, nothing[1], torch.zeros_like(barred))
            changed = (layer(x, nothing[0], image, nothing[1], barred) != same).any(-1)
            assert changed.nonzero().tolist() == [[row, query]]


@torch.no_grad()
def test_norms_stand_in_front_or_behind():
    """In front, a layer that adds nothing is the identity; behind, what comes out is normed."""
    x, image = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    arguments = (torch.randn(3, 8), image, torch.randn(5, 8), torch.zeros(1, 3, 5, dtype=torch.bool))
    front, behind = (MaskedLayer(8, 2, 12, prenorm=prenorm) for prenorm in (True, False))
    for layer in (front, behind):
        for last in (layer.cross.out_proj, layer.attention.out_proj, layer.mlp[2]):
            nn.init.zeros_(last.weight), nn.init.zeros_(last.bias)
    torch.testing.assert_close(front(x, *arguments), x)
    normed = nn.functional.layer_norm(x, (8,))
    for _ in range(2):
        normed = nn.functional.layer_norm(normed, (8,))
    torch.testing.assert_close(behind(x, *arguments), normed)


@torch.no_grad()
@pytest.mark.parametrize("prenorm", [True, False])
def test_a_layer_attends_to_the_image_then_among_queries_then_has_its_mlp(prenorm):
    """Positions are added to queries and keys, not to values."""
    layer = MaskedLayer(8, 2, 12, prenorm=prenorm)
    for norm in (layer.cross_norm, layer.norm, layer.mlp_norm):
        nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    x, image = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    positions, places = torch.randn(3, 8), torch.randn(5, 8)

    def through(norm, x, part):
        return x + part(norm(x)) if prenorm else norm(x + part(x))

    y = through(layer.cross_norm, x, lambda q: layer.cross(q + positions, image + places, image)[0])
    y = through(layer.norm, y, lambda q: layer.attention(q + positions, q + positions, q)[0])
    y = through(layer.mlp_norm, y, layer.mlp)
    nothing = torch.zeros(2, 3, 5, dtype=torch.bool)
    torch.testing.assert_close(layer(x, positions, image, places, nothing), y)


def test_levels_of_another_width_are_projected_and_each_has_an_embedding():
    torch.manual_seed(0)
    assert [type(each) for each in decoder().projections] == [nn.Identity] * 3
    module = MaskedDecoder(8, 6, 4, queries=2, heads=2, hidden=12, depth=1, prenorm=False)
    levels = [torch.randn(1, 6, *size) for size in SIZES]
    masks = module(torch.randn(1, 2, 8), torch.randn(1, 4, 16, 16), levels)
    assert [tuple(each.logits.shape) for each in masks] == [(1, 2, 16, 16)] * 2
    masks[-1].logits.sum().backward()
    assert module.level_embeddings.grad[0].any()
    assert not module.level_embeddings.grad[1:].any()


def test_a_mask_decoder_wants_three_levels_and_heads_that_divide_its_width():
    queries, features, levels = example()
    with pytest.raises(RecipeError, match="3 levels of the image, but has 2"):
        decoder()(queries, features, levels[:2])
    with pytest.raises(RecipeError, match="3 heads do not divide the width 8"):
        decoder(heads=3)


def test_an_mlp_has_as_many_layers_as_its_depth_with_relu_between():
    kinds = [type(each).__name__ for each in mlp(2, 3, 4, depth=3)]
    assert kinds == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    widths = [(each.in_features, each.out_features) for each in mlp(2, 3, 4, depth=3)[::2]]
    assert widths == [(2, 3), (3, 3), (3, 4)]
    assert len(mlp(2, 3, 4, depth=1)) == 1


@torch.no_grad()
def test_levels_of_another_width_are_projected_place_by_place_and_know_which_they_are():
    queries, features, levels = example()
    levels = [torch.randn(1, 6, *size) for size in SIZES]
    module = MaskedDecoder(8, 6, 4, queries=1, heads=2, hidden=12, depth=4, prenorm=False)
    same = decoder()
    same.load_state_dict(
        {name: each for name, each in module.state_dict().items() if not name.startswith("projections")}
    )
    same.level_embeddings.zero_()
    ready = [
        torch.einsum("oi,nihw->nohw", conv.weight[..., 0, 0], level) + (conv.bias + own)[:, None, None]
        for conv, level, own in zip(module.projections, levels, module.level_embeddings, strict=True)
    ]
    for a, b in zip(module(queries, features, levels), same(queries, features, ready), strict=True):
        torch.testing.assert_close(a.queries, b.queries)
        torch.testing.assert_close(a.logits, b.logits)
