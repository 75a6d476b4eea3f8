"""Attention to points that queries choose, against transformers' Deformable DETR."""

import torch
from transformers import DeformableDetrConfig
from transformers.models.deformable_detr.modeling_deformable_detr import (
    DeformableDetrMultiscaleDeformableAttention,
)

from chiasm.nn.deformable import DeformableAttention

NAMES = {
    "offsets": "sampling_offsets",
    "weights": "attention_weights",
    "value": "value_proj",
    "output": "output_proj",
}


def pair() -> tuple[DeformableAttention, DeformableDetrMultiscaleDeformableAttention]:
    config = DeformableDetrConfig(d_model=16, num_feature_levels=2)
    return (
        DeformableAttention(16, heads=4, points=3, levels=2),
        DeformableDetrMultiscaleDeformableAttention(config, num_heads=4, n_points=3),
    )


@torch.no_grad()
def test_it_is_that_of_deformable_detr():
    ours, theirs = pair()
    for name, theirs_name in NAMES.items():
        torch.nn.init.normal_(getattr(ours, name).weight, std=0.3)
        getattr(theirs, theirs_name).load_state_dict(getattr(ours, name).state_dict())
    query, references = torch.randn(2, 5, 16), torch.rand(5, 2)
    levels = [torch.randn(2, 4, 6, 16), torch.randn(2, 2, 3, 16)]
    shapes = [tuple(level.shape[1:3]) for level in levels]
    expected, _ = theirs(
        query,
        encoder_hidden_states=torch.cat([level.flatten(1, 2) for level in levels], 1),
        reference_points=references[None, :, None].expand(2, -1, 2, -1),
        spatial_shapes=torch.tensor(shapes),
        spatial_shapes_list=shapes,
        level_start_index=torch.tensor([0, 24]),
    )
    torch.testing.assert_close(ours(query, references, levels), expected, atol=1e-5, rtol=1e-5)


def test_each_head_starts_in_a_direction_of_its_own_and_reads_its_points_alike():
    ours, _ = pair()
    start = ours.offsets.bias.view(4, 2, 3, 2)  # of each head, level and point
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    steps = torch.tensor([1.0, 2.0, 3.0])
    expected = directions[:, None, None] * steps[:, None]
    torch.testing.assert_close(start, expected.expand(4, 2, 3, 2), atol=1e-6, rtol=0)
    assert not ours.offsets.weight.any()
    assert not ours.weights.weight.any()
    assert not ours.weights.bias.any()
    diagonal = DeformableAttention(16, heads=8, points=1, levels=1).offsets.bias.view(8, 2)[1]
    torch.testing.assert_close(diagonal, torch.ones(2))  # as far as the others, by the larger of x and y
