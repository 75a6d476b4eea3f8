"""SigLIP for any aspect ratio, after Idefics2."""

import pytest
import torch

from chiasm import parts
from chiasm.errors import RecipeError

CONFIG = {
    "model_type": "siglip_vision_model",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


def encoder(name="siglip_native", **options):
    torch.manual_seed(0)
    return parts.build("encoder", {"type": name, "config": CONFIG, **options})


def test_a_square_of_its_size_is_what_siglip_makes_of_it():
    pixels = torch.rand(2, 3, 32, 32)
    plain = encoder("transformers", final_norm=True)
    torch.testing.assert_close(encoder()(pixels), plain(pixels))


def test_positions_are_fractions_of_the_sides():
    built = encoder()
    assert built.places(4, 4).tolist() == torch.arange(16).view(4, 4).tolist()
    assert built.places(1, 2).tolist() == [[0, 2]]
    assert built.places(2, 8).tolist() == [[0, 0, 1, 1, 2, 2, 3, 3], [8, 8, 9, 9, 10, 10, 11, 11]]


def test_a_margin_lets_patches_on_an_edge_fall_back():
    assert encoder(margin=1e-6).places(1, 4).tolist() == [[0, 0, 1, 2]]
    assert encoder(margin=1e-6).places(1, 3).tolist() == [[0, 1, 2]]


def test_it_agrees_with_transformers_on_any_grid():
    from transformers import Idefics2VisionConfig
    from transformers.models.idefics2.modeling_idefics2 import Idefics2VisionTransformer

    options = {key: value for key, value in CONFIG.items() if key != "model_type"}
    theirs = Idefics2VisionTransformer(Idefics2VisionConfig(**options)).eval()
    ours = encoder(final_norm=True).eval()
    state = theirs.state_dict()
    ours.model.load_state_dict(
        {k: v for k, v in state.items() if not k.startswith("post_layernorm")}, strict=False
    )
    ours.final_norm.load_state_dict({k[15:]: v for k, v in state.items() if k.startswith("post_layernorm")})
    pixels = torch.rand(1, 3, 24, 40)
    mask = torch.ones(1, 3, 5, dtype=torch.bool)
    with torch.no_grad():
        expected = theirs(
            pixel_values=(pixels - ours.mean) / ours.deviation, patch_attention_mask=mask
        ).last_hidden_state
        torch.testing.assert_close(ours(pixels).flatten(1, 2), expected, atol=1e-5, rtol=1e-4)


def test_only_a_siglip_will_do():
    clip = {**CONFIG, "model_type": "clip_vision_model"}
    with pytest.raises(RecipeError, match="needs a SigLIP"):
        parts.build("encoder", {"type": "siglip_native", "config": clip})
