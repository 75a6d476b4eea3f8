"""EVA's towers against transformers' port of EVA-CLIP-g, and what EVA-02 adds."""

import pytest
import torch

from chiasm import parts
from chiasm.encoders.eva import _rotated
from chiasm.errors import CheckpointError, RecipeError
from chiasm.interop.shapes.eva import eva as eva_config

TINY = {"size": 28, "patch_size": 7, "width": 24, "depth": 2, "heads": 3, "hidden": 32}


def eva(**options):
    return parts.build("encoder", {"type": "eva", **TINY, **options}).eval()


def test_the_class_token_stands_first_in_a_row():
    part, pixels = eva(class_token="first"), torch.rand(2, 3, 28, 28)
    assert part(pixels).shape == (2, 1, 17, 24)
    other = eva()
    other.load_state_dict(part.state_dict())
    torch.testing.assert_close(other(pixels).flatten(1, 2), part(pixels)[:, 0, 1:])


def test_rotary_scores_depend_on_the_distance_only():
    part = eva(rotary=4)
    angles = part._angles(4, 4)
    q, k = torch.rand(8), torch.rand(8)
    both = torch.stack([q, k]).view(2, 1, 1, 8).expand(2, 1, 17, 8)
    turned_q, turned_k = _rotated(both, angles)[:, 0, 1:].view(2, 4, 4, 8)
    torch.testing.assert_close(turned_q[0, 0] @ turned_k[1, 2], turned_q[2, 1] @ turned_k[3, 3])
    torch.testing.assert_close(turned_q[1, 1] @ turned_k[1, 1], q @ k)


def test_rotary_positions_run_over_the_same_square_for_any_grid():
    part = eva(rotary=4)
    torch.testing.assert_close(part._angles(8, 8).view(8, 8, 8)[::2, ::2], part._angles(4, 4).view(4, 4, 8))


def test_rotary_and_norms_change_what_is_computed():
    pixels = torch.rand(1, 3, 28, 28)
    plain, rotary = eva(), eva(rotary=4)
    rotary.load_state_dict(plain.state_dict())
    assert not torch.allclose(plain(pixels), rotary(pixels))
    assert {"blocks.0.mlp.norm.weight", "blocks.0.attention.norm.weight"} <= set(
        eva(sub_norm=True).state_dict()
    )
    assert "blocks.0.mlp.gate.weight" in eva(gated=True).state_dict()
    assert "blocks.0.attention.key.bias" not in plain.state_dict()


def test_heads_too_narrow_to_turn_are_a_sentence():
    with pytest.raises(RecipeError, match="into multiples of 4"):
        eva(width=18, rotary=4)


def test_the_originals_options_become_ours_or_are_refused():
    config = {
        "img_size": 28,
        "patch_size": 7,
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 4,
        "mlp_ratio": 2.6667,
    }
    spec = eva_config({**config, "rope": True, "intp_freq": True, "pt_hw_seq_len": 16, "naiveswiglu": True})
    assert (spec["hidden"], spec["rotary"], spec["gated"], spec["bias"]) == (85, 16, True, "none")
    with pytest.raises(CheckpointError, match="use_rel_pos_bias"):
        eva_config({**config, "use_rel_pos_bias": True})
    with pytest.raises(CheckpointError, match="without intp_freq"):
        eva_config({**config, "rope": True, "pt_hw_seq_len": 16})
