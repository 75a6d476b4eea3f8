"""SAM's encoder against transformers' own, and what DeepSeek-VL adds behind it."""

import pytest
import torch

from chiasm import parts
from chiasm.errors import RecipeError
from chiasm.interop.families.deepseek_vl_hf import HIGH, _sam_rules
from chiasm.interop.mapping import NameMap
from chiasm.storage.weights import load_into

TINY = {"size": 32, "patch_size": 8, "width": 24, "depth": 2, "heads": 3, "hidden": 48, "window": 3,
        "global_layers": [1], "neck": 10}  # fmt: skip


def sam(**options):
    return parts.build("encoder", {"type": "sam", **TINY, **options})


def test_it_equals_transformers_with_the_same_weights():
    from transformers import SamVisionConfig, SamVisionModel

    config = SamVisionConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, mlp_dim=48, image_size=32,
                             patch_size=8, window_size=3, global_attn_indexes=[1], output_channels=10)  # fmt: skip
    theirs = SamVisionModel(config).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    prefix = "model.high_res_vision_model."
    ours, _ = NameMap(*_sam_rules()).to_ours(
        {prefix + key: tensor for key, tensor in theirs.state_dict().items()}, "transformers"
    )
    part, pixels = sam().eval(), torch.rand(2, 3, 32, 32)
    own = {"mean": part.mean, "deviation": part.deviation}
    load_into(
        part, own | {key.removeprefix(HIGH + "."): value for key, value in ours.items()}, "transformers"
    )
    with torch.no_grad():
        expected = theirs((pixels - part.mean) / part.deviation).last_hidden_state
        torch.testing.assert_close(part(pixels), expected.permute(0, 2, 3, 1), atol=1e-4, rtol=1e-4)


def test_windows_hide_what_lies_outside_of_them():
    part = sam(depth=1, global_layers=[], window=2).eval()
    pixels = torch.rand(1, 3, 32, 32)
    changed = pixels.clone()
    changed[..., 16:, 16:] = 0
    block = part.blocks[0]
    one, other = (block(part.patchify(each).permute(0, 2, 3, 1)) for each in (pixels, changed))
    assert torch.equal(one[:, :2], other[:, :2])
    assert not torch.equal(one[:, 2:, 2:], other[:, 2:, 2:])


def test_a_resize_fixes_the_grid_whatever_the_size():
    part = sam(downsample=[12, 16], resize=12)
    assert part.grid(32, 32) == part.grid(64, 64) == (3, 3)
    assert part(torch.rand(1, 3, 64, 64)).shape == (1, 3, 3, 16)


def test_the_early_features_are_added_times_their_factor():
    part, pixels = sam(early=True).eval(), torch.rand(1, 3, 32, 32)
    without = part(pixels)
    with torch.no_grad():
        part.early_scale.fill_(2.0)
    early = part.blocks[1](part.blocks[0](part.patchify((pixels - part.mean) / part.deviation).permute(0, 2, 3, 1)
                                          + part.positions))  # fmt: skip
    added = part.early_neck(early).permute(0, 2, 3, 1)
    torch.testing.assert_close(part(pixels), without + 2 * added, atol=1e-5, rtol=1e-4)


def test_a_global_layer_that_does_not_exist_is_a_sentence():
    with pytest.raises(RecipeError, match="of 2 blocks cannot have the global layers"):
        sam(global_layers=[2])


@pytest.mark.parametrize("layout", ["transformers", "meta"])
def test_a_public_checkpoint_is_loaded_and_the_rest_begins_from_scratch(tmp_path, layout):
    from safetensors.torch import save_file

    from chiasm.interop.shapes.sam import sam_rules

    told = sam()
    torch.nn.init.normal_(told.blocks[0].attention.row_distances)
    ours = {f"encoder.{key}": tensor for key, tensor in told.state_dict().items()}
    if layout == "meta":
        theirs = NameMap(*sam_rules("image_encoder.")).to_theirs(ours, "here")
    else:
        renamed = {key.replace("encoder.", HIGH + "."): tensor for key, tensor in ours.items()}
        theirs = NameMap(*_sam_rules()).to_theirs(renamed, "here")
        theirs = {key.removeprefix("model.high_res_vision_model."): tensor for key, tensor in theirs.items()}
    theirs["mask_decoder.iou_token.weight"] = torch.zeros(1)
    save_file(theirs, tmp_path / "model.safetensors")
    part = sam(checkpoint=str(tmp_path), downsample=[12], early=True)
    for key, tensor in told.state_dict().items():
        assert torch.equal(part.state_dict()[key], tensor), key
    assert torch.equal(part.early_neck[0].weight, told.neck[0].weight)
    assert part.standalone() == {"checkpoint": None}
