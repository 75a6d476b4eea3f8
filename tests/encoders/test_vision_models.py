"""Any vision model of transformers is an encoder whose features are transformers' own, or a sentence."""

import pytest
import torch
import transformers

from chiasm import parts
from chiasm.errors import RecipeError

VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16,
       "image_size": 32, "patch_size": 8}  # fmt: skip
DINO = {k: v for k, v in VIT.items() if k != "intermediate_size"}
CONV = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 12, 16, 20]}
SWIN = {
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [1, 2],
    "window_size": 4,
    "image_size": 32,
    "patch_size": 4,
}
PYRAMID = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32]}
SEGFORMER = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1, 1, 2, 2],
             "decoder_hidden_size": 8}  # fmt: skip
PVT = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1, 1, 2, 2]}
LEVIT = {"hidden_sizes": [16, 32, 48], "num_attention_heads": [1, 2, 3], "depths": [1, 1, 1], "key_dim": [8] * 3,
         "image_size": 64}  # fmt: skip
# Type, tiny config, size of an image, and what of the output is the grid.
PLAIN = {
    "aimv2_vision_model": {**VIT, "use_head": False},
    "beit": VIT,
    "clip_vision_model": VIT,
    "data2vec-vision": VIT,
    "deit": VIT,
    "dinov2": DINO,
    "dinov2_with_registers": DINO,
    "dinov3_vit": VIT,
    "dpt": {**VIT, "backbone_out_indices": [0, 1, 1, 1]},
    "ijepa": VIT,
    "internvl_vision": {**VIT, "image_size": [32, 32], "patch_size": [8, 8]},
    "mlcd_vision_model": VIT,
    "pixio": DINO,
    "siglip_vision_model": VIT,
    "vit": VIT,
    "vit_mae": {**VIT, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2},
    "vit_msn": VIT,
}  # fmt: skip
STAGED = {
    "bit": ({**CONV, "hidden_sizes": [8, 16, 24, 32], "embedding_size": 8, "num_groups": 2}, 64),
    "convnext": (CONV, 64),
    "convnextv2": (CONV, 64),
    "dinov3_convnext": (CONV, 64),
    "efficientnet": (
        {"width_coefficient": 0.25, "depth_coefficient": 0.1, "image_size": 64, "hidden_dim": 320},
        64,
    ),
    "focalnet": ({"embed_dim": 8, "depths": [1, 1, 1, 1], "image_size": 64}, 64),
    "hiera": (
        {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "image_size": [64, 64]},
        64,
    ),
    "levit": (LEVIT, 64),
    "mobilenet_v2": ({"depth_multiplier": 0.25, "image_size": 64}, 64),
    "mobilevit": ({"hidden_sizes": [16, 16, 16], "neck_hidden_sizes": [8] * 6 + [16], "image_size": 64}, 64),
    "poolformer": (PYRAMID, 64),
    "pvt": ({**PVT, "image_size": 64}, 64),
    "pvt_v2": ({**PVT, "image_size": 64}, 64),
    "regnet": ({**PYRAMID, "embedding_size": 8, "groups_width": 8}, 64),
    "resnet": ({**PYRAMID, "embedding_size": 8}, 64),
    "segformer": (SEGFORMER, 64),
    "swiftformer": ({"depths": [1, 1, 1, 1], "embed_dims": [8, 8, 16, 16], "image_size": 64}, 64),
    "swin": (SWIN, 32),
    "swinv2": (SWIN, 32),
    "vitdet": (DINO, 32),
}
NOT_OF_PIXELS = (
    "qwen2_5_vl_vision",
    "siglip2_vision_model",
    "videomae",
    "perceiver",
    "imagegpt",
    "yolos",
    "detr",
)


def encoder(kind, config, **options):
    spec = {"type": "transformers", "config": {"model_type": kind, **config}, **options}
    return parts.build("encoder", spec).eval()


def untouched(built, kind, config):
    """transformers' own model with the weights of the encoder."""
    settings = transformers.AutoConfig.for_model(kind, **config)
    if hasattr(settings, "mask_ratio"):
        settings.mask_ratio = 0.0
    model = transformers.AutoModel.from_config(settings).eval()
    model.load_state_dict(built.model.state_dict(), strict=False)
    return model


def normalised(built, size):
    pixels = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    return pixels, (pixels - built.mean) / built.deviation


@pytest.mark.parametrize("kind", PLAIN)
@torch.no_grad()
def test_a_plain_transformer_gives_a_feature_of_each_patch(kind):
    built = encoder(kind, PLAIN[kind])
    pixels, values = normalised(built, (32, 32))
    features = built(pixels)
    assert built.grid(32, 32) == (4, 4)
    assert features.shape == (2, 4, 4, built.width)
    model = untouched(built, kind, PLAIN[kind])
    noise = {"noise": torch.arange(16).expand(2, -1)} if kind == "vit_mae" else {}
    states = model(values, output_hidden_states=True, **noise).hidden_states
    # Before the last norm; where transformers hands out the normed state, norm ours.
    ours = features if torch.equal(states[-1][:, -16:].reshape(features.shape), features) else None
    if ours is None:
        norm = next(
            getattr(model, n)
            for n in ("norm", "layernorm", "rms_norm", "post_layernorm")
            if hasattr(model, n)
        )
        torch.testing.assert_close(norm(features).flatten(1, 2), states[-1][:, -16:])


@pytest.mark.parametrize("kind", STAGED)
@torch.no_grad()
def test_a_model_with_stages_gives_its_last_grid(kind):
    config, side = STAGED[kind]
    built = encoder(kind, config)
    pixels, values = normalised(built, (side, side))
    features = built(pixels)
    assert features.shape == (2, *built.grid(side, side), built.width)
    theirs = untouched(built, kind, config)(values).last_hidden_state
    if theirs.ndim == 4:
        theirs = theirs.permute(0, 2, 3, 1)
    flat = features.flatten(1, 2)
    torch.testing.assert_close(flat, theirs.reshape(2, -1, theirs.shape[-1])[:, -flat.shape[1] :])


@pytest.mark.parametrize("kind", ["convnext", "resnet", "swin", "segformer"])
def test_images_that_are_not_square_have_their_grid_worked_out_from_sizes(kind):
    config, side = STAGED[kind]
    built = encoder(kind, config)
    assert built(torch.rand(1, 3, side, 2 * side)).shape == (1, *built.grid(side, 2 * side), built.width)
    assert built.grid(side, 2 * side)[1] == 2 * built.grid(side, side)[1]


@torch.no_grad()
def test_another_stage_is_one_of_the_hidden_states():
    config, side = STAGED["convnext"]
    built = encoder("convnext", config, layer=-2)
    pixels, values = normalised(built, (side, side))
    states = untouched(built, "convnext", config)(values, output_hidden_states=True).hidden_states
    assert torch.equal(built(pixels), states[-2].permute(0, 2, 3, 1))
    assert built.width == 16


@pytest.mark.parametrize("kind", NOT_OF_PIXELS)
def test_what_makes_no_grid_of_pixels_alone_is_a_sentence(kind):
    config = VIT if kind in ("videomae", "yolos", "siglip2_vision_model") else {}
    with torch.device("meta"), pytest.raises(RecipeError, match="transformers"):
        encoder(kind, config)


@pytest.mark.parametrize(("options", "problem"), [
    ({"layer": [-1, -2]}, "stages of different grids; choose one layer"),
    ({"final_norm": True}, "norms inside its stages"),
    ({"class_token": "join"}, "no class token"),
    ({"layer": 9}, "layer 9 of ConvNextModel of 5 states does not exist"),
])  # fmt: skip
def test_options_that_stages_do_not_have_are_sentences(options, problem):
    with pytest.raises(RecipeError, match=problem):
        encoder("convnext", CONV, **options)


@pytest.mark.parametrize(("config", "problem"), [
    ({"model_type": "vit", "hiden_size": 8}, "no key 'hiden_size'; did you mean 'hidden_size'"),
    ({"model_type": "clip", "vision_config": {"patchsize": 8}}, "no key 'vision_config.patchsize'; did you mean"),
    ({"model_type": "dinov9"}, "no model_type 'dinov9'; did you mean"),
    ({"hidden_size": 8}, "needs a 'model_type'"),
    ({"model_type": "vit", "hidden_size": "wide"}, "refuses this vit config"),
    ({"model_type": "siglip_vision_model", "hidden_size": 10, "num_attention_heads": 3},
     "builds no vision model of this siglip_vision_model config"),
])  # fmt: skip
def test_a_config_that_transformers_has_not_is_a_sentence(config, problem):
    with pytest.raises(RecipeError, match=problem):
        parts.build("encoder", {"type": "transformers", "config": config})
