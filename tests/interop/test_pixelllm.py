"""PixelLLM: parity, and what its parts cannot do."""

import json
import os
from pathlib import Path

import pytest

from chiasm.errors import CheckpointError
from chiasm.interop import verify
from chiasm.interop.families.pixelllm import specification

PLACE = os.environ.get("CHIASM_PARITY")
CONFIG = {
    "git_backbone_name": "eva02_vit",
    "git_backbone_args": {
        "embed_dim": 8,
        "depth": 1,
        "num_heads": 2,
        "patch_size": 8,
        "pretrain_img_size": 32,
    },
    "sam_backbone_name": "sam_vit",
    "sam_backbone_args": {
        "embed_dim": 8,
        "depth": 2,
        "num_heads": 2,
        "img_size": 32,
        "window_block_indexes": [0],
    },
    **dict.fromkeys(
        ("det_backbone_name", "box_decoder_name", "mask_decoder_name", "mask_adapter_name"), "none"
    ),
    "text_decoder_name": "git",
    "text_decoder_feature_key": "git_visual_features+sam_visual_features",
    "text_decoder_args": {"hidden_size": 24},
    "prompt_encoder_args": {"embed_dim": 16},
    "prompt_adapter_args": {"input_embedding_dim": 16, "num_outputs": 3},
    "point_predictor_name": "mlp_point_predictor",
    "point_predictor_args": {"num_classes": 4},
}


@pytest.mark.skipif(not PLACE, reason="CHIASM_PARITY does not name the folder of parity cases")
def test_every_case_agrees():
    results = verify([Path(PLACE or "") / "pixelllm"])
    assert results
    assert not [str(each) for each in results if not each.agrees]


def test_options_reach_the_parts():
    model, points = specification({**CONFIG, "prompt_fuse_fn": "dense", "box_points_per_side": 3}, 32)
    assert [tower["type"] for tower in model["encoder"]["encoders"]] == ["eva", "sam"]
    assert model["encoder"]["encoders"][1]["global_layers"] == [1]
    assert (model["connector"]["reads"], model["connector"]["prompt"], model["connector"]["points"]) == (
        "features",
        "points",
        3,
    )
    assert points["extra"] == 5
    alone, _ = specification({**CONFIG, "text_decoder_feature_key": "sam_visual_features"}, 32)
    assert [tower["type"] for tower in alone["encoder"]["encoders"]] == ["sam"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mask_decoder_name": "sam_mask_decoder"}, "mask_decoder_name"),
        ({"text_decoder_name": "t5_xl"}, "text_decoder_name"),
        ({"text_decoder_feature_key": "det_visual_features"}, "det_visual_features"),
        ({"point_predictor_args": {"mlp_activation": "silu"}}, "mlp_activation"),
        ({"sam_backbone_args": {"img_size": 64}}, "img_size"),
    ],
)
def test_what_has_no_part_is_refused_by_name(changes, words):
    with pytest.raises(CheckpointError, match=words):
        specification(json.loads(json.dumps({**CONFIG, **changes})), 32)
