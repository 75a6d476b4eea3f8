"""Swin against transformers' own, stage by stage, on sides that no window divides."""

import pytest
import torch
from transformers import SwinBackbone, SwinConfig

from chiasm import parts
from chiasm.errors import RecipeError

SIZE = {"width_of_patches": 8, "depths": [2, 2, 1], "heads": [1, 2, 4], "window": 3, "mlp_ratio": 2.0}


def swin(**options):
    return parts.build("encoder", {"type": "swin", **SIZE, **options}).eval()


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    config = SwinConfig(
        embed_dim=8, depths=[2, 2, 1], num_heads=[1, 2, 4], window_size=3, mlp_ratio=2.0, drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3"], image_size=36, patch_size=4,
    )  # fmt: skip
    model = SwinBackbone(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return model


def ported(model):
    """Their tensors by our names."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        name = name.removeprefix("swin.")
        for a, b in (
            ("embeddings.patch_embeddings.projection", "patchify"),
            ("embeddings.norm", "patch_norm"),
            ("encoder.layers.", "stages."),
            ("hidden_states_norms.stage1", "norms.0"),
            ("hidden_states_norms.stage2", "norms.1"),
            ("hidden_states_norms.stage3", "norms.2"),
            (".blocks.", "."),
            ("layernorm_before", "attention_norm"),
            ("layernorm_after", "mlp_norm"),
            ("mlp.fc1", "mlp.0"),
            ("mlp.fc2", "mlp.2"),
            ("attention.o_proj", "attention.out"),
            ("relative_position_bias.relative_position_bias_table", "distances"),
        ):
            name = name.replace(a, b)
        if ".downsample." in name:
            name = "merges." + name.removeprefix("stages.").replace("downsample.", "")
        tensors[name] = tensor
    for name in [each for each in tensors if ".q_proj." in each]:
        three = [tensors.pop(name.replace("q_proj", part)) for part in ("q_proj", "k_proj", "v_proj")]
        tensors[name.replace("q_proj", "qkv")] = torch.cat(three)
    return {name: each for name, each in tensors.items() if not name.startswith(("layernorm.", "pooler."))}


def test_every_stage_is_transformers_own(theirs):
    part = swin(levels="all")
    own = {name: tensor for name, tensor in part.state_dict().items() if name in ("mean", "deviation")}
    part.load_state_dict(ported(theirs) | own)
    pixels = torch.rand(2, 3, 50, 36)
    with torch.no_grad():
        expected = theirs((pixels - part.mean) / part.deviation).feature_maps
        levels = part.pyramid(pixels)
    for level, each in zip(levels, expected, strict=True):
        torch.testing.assert_close(level.movedim(-1, 1), each, rtol=1e-4, atol=1e-5)
    assert part.level_widths == (8, 16, 32)
    assert part.grid(50, 36) == levels[-1].shape[1:3]
    torch.testing.assert_close(part(pixels), levels[-1])
    assert swin().level_widths == (32,)


def test_heads_that_do_not_fit_are_a_sentence():
    with pytest.raises(RecipeError, match="one number for each of the 3 stages"):
        swin(heads=[1, 2])
    with pytest.raises(RecipeError, match="divides its width"):
        swin(heads=[3, 2, 2])
