"""SigLIP 2's NaFlex against transformers' own, from a saved folder, at grids of other shapes than the table's."""

import pytest
import torch
import transformers

from chiasm import parts
from chiasm.errors import RecipeError

SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
         "patch_size": 8, "num_patches": 16}  # fmt: skip
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
        "vocab_size": 256}  # fmt: skip


def naflex(**options):
    return parts.build("encoder", {"type": "siglip_naflex", **options}).eval()


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 32), (16, 64), (48, 8), (56, 40)])
def test_it_equals_transformers_from_a_folder_of_both_towers(tmp_path, size):
    config = transformers.Siglip2Config(vision_config=SIZES, text_config=TEXT)
    both = transformers.Siglip2Model(config).eval()
    for parameter in both.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    both.save_pretrained(tmp_path)
    pixels = torch.rand(2, 3, *size)
    rows, columns = size[0] // 8, size[1] // 8
    patches = (
        (2 * pixels - 1)
        .unfold(2, 8, 8)
        .unfold(3, 8, 8)
        .permute(0, 2, 3, 4, 5, 1)
        .reshape(2, rows * columns, -1)
    )
    seen = both.vision_model(
        patches, torch.ones(2, rows * columns), torch.tensor([[rows, columns]] * 2), output_hidden_states=True
    )
    made = naflex(checkpoint=str(tmp_path))(pixels)
    torch.testing.assert_close(made.flatten(1, 2), seen.last_hidden_state, rtol=1e-4, atol=1e-5)
    inner = naflex(checkpoint=str(tmp_path), layer=-2, final_norm=False)(pixels)
    torch.testing.assert_close(inner.flatten(1, 2), seen.hidden_states[-2], rtol=1e-4, atol=1e-5)


def test_what_is_no_naflex_is_told():
    siglip = {key: value for key, value in SIZES.items() if key != "num_patches"}
    with pytest.raises(RecipeError, match="needs a NaFlex SigLIP 2, not 'siglip_vision_model'"):
        naflex(config={**siglip, "model_type": "siglip_vision_model", "image_size": 32})
