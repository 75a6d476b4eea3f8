"""Attention in heads, its pooling and SAM's two-way layers, against torch's and transformers' own."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers.models.sam.configuration_sam import SamMaskDecoderConfig
from transformers.models.sam.modeling_sam import SamTwoWayTransformer

from chiasm.errors import RecipeError
from chiasm.nn.attention_pool import AttentionPool
from chiasm.nn.deformable import DeformableAttention
from chiasm.nn.grid_resampler import GridResampler
from chiasm.nn.multi_head import MultiHeadAttention, attend_in_heads
from chiasm.nn.two_way import TwoWayTransformer


def theirs_of(ours, width: int, heads: int, in_width: int) -> nn.MultiheadAttention:
    """torch's attention with the weights of ours."""
    theirs = nn.MultiheadAttention(width, heads, kdim=in_width, vdim=in_width, batch_first=True)
    with torch.no_grad():
        for name, layer in zip("qkv", (ours.query, ours.key, ours.value), strict=True):
            if in_width != width:
                getattr(theirs, f"{name}_proj_weight").copy_(layer.weight)
        if in_width == width:
            theirs.in_proj_weight.copy_(
                torch.cat([each.weight for each in (ours.query, ours.key, ours.value)])
            )
        theirs.in_proj_bias.copy_(torch.cat([each.bias for each in (ours.query, ours.key, ours.value)]))
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    return theirs


@pytest.mark.parametrize("in_width", [None, 6])
@torch.no_grad()
def test_attention_in_heads_is_torchs(in_width):
    ours = MultiHeadAttention(8, 2, in_width=in_width)
    theirs = theirs_of(ours, 8, 2, in_width or 8)
    query, key, value = torch.randn(3, 4, 8), *torch.randn(2, 3, 5, in_width or 8)
    torch.testing.assert_close(ours(query, key, value), theirs(query, key, value)[0])
    seen = torch.rand(4, 5) > 0.4
    seen[:, 0] = True
    torch.testing.assert_close(ours(query, key, value, seen), theirs(query, key, value, attn_mask=~seen)[0])


def test_all_projections_but_the_last_may_go_without_a_bias_and_be_of_another_width():
    biased, plain = (MultiHeadAttention(8, 2, in_width=6, inner=4, bias=bias) for bias in (True, False))
    shapes = {name: tuple(weight.shape) for name, weight in plain.named_parameters()}
    assert shapes == {
        "query.weight": (4, 8),
        "key.weight": (4, 6),
        "value.weight": (4, 6),
        "out.weight": (8, 4),
        "out.bias": (8,),
    }
    assert {name for name, _ in biased.named_parameters()} - set(shapes) == {
        "query.bias",
        "key.bias",
        "value.bias",
    }
    assert {name for name, _ in MultiHeadAttention(8, 2).named_parameters()} >= {"query.bias", "value.bias"}


def test_queries_may_share_the_heads_of_keys():
    query, key, value = torch.randn(2, 3, 8), torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    for mask in (None, torch.rand(4, 3, 5), torch.tensor([True, False, True, True, False])[None]):
        shared = attend_in_heads(query, key, value, 2, mask)
        repeated = [each.view(2, 5, 2, 2).repeat_interleave(2, 2).flatten(2) for each in (key, value)]
        torch.testing.assert_close(shared, attend_in_heads(query, *repeated, 2, mask))


def test_what_is_printed_of_attention_tells_its_heads():
    """No weight has a shape that would."""
    modules = [
        MultiHeadAttention(8, 2),
        AttentionPool(6, 8, 2, 5),
        GridResampler(8, 8, 2, heads=2),
    ]
    assert all("heads=2" in str(module) for module in modules)
    assert "h=2, l=3, p=4" in str(DeformableAttention(8, 2, points=4, levels=3))


@torch.no_grad()
def test_pooling_is_attention_of_the_mean_to_itself_and_to_all_features():
    pool = AttentionPool(6, 8, 2, 5)
    features = torch.randn(3, 6, 8)
    x = torch.cat([features.mean(1)[:, None], features], 1) + pool.positions
    q, k, v = (functional.linear(x, each.weight, each.bias) for each in (pool.query, pool.key, pool.value))
    heads = [
        (q[:, :1, part] @ k[..., part].mT / 2).softmax(-1) @ v[..., part] for part in (slice(4), slice(4, 8))
    ]
    torch.testing.assert_close(pool(features), pool.out(torch.cat(heads, -1)[:, 0]))
    assert pool.positions.std() == pytest.approx(8**-0.5, rel=0.4)


SAM = {
    "self_attn": "among",
    "cross_attn_token_to_image": "to_image",
    "cross_attn_image_to_token": "to_tokens",
}
NORMS = dict(enumerate(["among_norm", "to_image_norm", "mlp_norm", "image_norm"], 1))


def copied(ours: nn.Module, theirs: nn.Module) -> None:
    for name in ("q", "k", "v", "out"):
        own = {"q": ours.query, "k": ours.key, "v": ours.value, "out": ours.out}[name]
        own.load_state_dict(getattr(theirs, f"{name}_proj").state_dict())


@torch.no_grad()
def test_the_two_way_transformer_is_sams():
    config = SamMaskDecoderConfig(
        hidden_size=8, mlp_dim=12, num_hidden_layers=3, num_attention_heads=2, layer_norm_eps=1e-5
    )
    config._attn_implementation = "eager"
    ours, theirs = TwoWayTransformer(8, depth=3, heads=2, hidden=12), SamTwoWayTransformer(config).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.5)
    for own, layer in zip(ours.layers, theirs.layers, strict=True):
        for name, attention in SAM.items():
            copied(getattr(own, attention), getattr(layer, name))
        for i, norm in NORMS.items():
            getattr(own, norm).load_state_dict(getattr(layer, f"layer_norm{i}").state_dict())
        own.mlp[0].load_state_dict(layer.mlp.lin1.state_dict())
        own.mlp[2].load_state_dict(layer.mlp.lin2.state_dict())
    copied(ours.last, theirs.final_attn_token_to_image)
    ours.norm.load_state_dict(theirs.layer_norm_final_attn.state_dict())
    tokens, image, positions = torch.randn(2, 3, 8), torch.randn(2, 20, 8), torch.randn(20, 8)
    grids = (each.mT.unflatten(-1, (4, 5)) for each in (image, positions.expand(2, -1, -1)))
    expected = theirs(tokens[:, None], *grids, None)
    for own, their in zip(ours(tokens, image, positions), expected, strict=True):
        torch.testing.assert_close(own, their[:, 0], atol=1e-5, rtol=1e-5)


def test_heads_divide_the_narrowed_width():
    TwoWayTransformer(8, depth=1, heads=4, hidden=8)
    with pytest.raises(RecipeError, match="8 heads do not divide 1/2 of the width 8"):
        TwoWayTransformer(8, depth=1, heads=8, hidden=8)
    assert TwoWayTransformer(12, depth=1, heads=2, hidden=8, narrowing=3).last.query.out_features == 4


@torch.no_grad()
def test_keys_of_fewer_heads_are_read_by_as_many_queries_each():
    query, (key, value) = (
        torch.randn(2, 5, 12),
        torch.randn(2, 2, 5, 6),
    )  # six heads of queries, three of keys
    repeated = (each.view(2, 5, 3, 2).repeat_interleave(2, 2).flatten(2) for each in (key, value))
    torch.testing.assert_close(attend_in_heads(query, key, value, 2), attend_in_heads(query, *repeated, 2))
