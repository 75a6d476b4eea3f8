"""Codes that learn by gradients, and those that nothing ever chooses."""

import pytest
import torch
from safetensors.torch import load, save

from chiasm import parts
from chiasm.nn.stepwise import after_step
from chiasm.tokenizers.revival import Revival

SMALL = {
    "vqgan": {"size": 16, "width": 32, "multipliers": [1, 1], "depth": 1, "attention_sizes": [],
              "latent_width": 4},
    "vqgan_video": {"size": 8, "width": 32, "multipliers": [1, 1], "depth": 1, "attention_levels": []},
    "multi_scale": {"scales": [1, 2], "width": 32, "multipliers": [1, 1], "depth": 1, "code_width": 4},
}  # fmt: skip


def test_a_code_that_is_not_chosen_for_so_long_moves_to_a_vector_of_the_batch():
    revival, codebook = Revival(3, after=2), torch.zeros(3, 2)
    vectors, codes = torch.full((4, 2), 7.0), torch.tensor([0, 0, 1, 1])
    revival(codebook, vectors, codes)
    revival.after_step()
    assert torch.equal(codebook, torch.zeros(3, 2))
    for part in (slice(0, 1), slice(1, 4)):  # micro-batches of one step
        revival(codebook, vectors[part], codes[part])
    assert torch.equal(codebook, torch.zeros(3, 2))
    revival.after_step()
    assert codebook.tolist() == [[0, 0], [0, 0], [7, 7]]
    assert (revival.revived, revival.idle.tolist()) == (1, [0, 0, 0])


@pytest.mark.parametrize("name", SMALL)
def test_revived_codes_come_into_use_and_only_where_asked_for(name):
    def used(**options):
        torch.manual_seed(0)
        codes = {"codebook_size": 64, **options}
        if name != "multi_scale":
            codes = {"quantizer": {"type": "nearest", "width": 4, **codes}}
        tokenizer = parts.build("image_tokenizer", {"type": name, **SMALL[name], **codes})
        pixels = torch.rand(8, 3, tokenizer.size, tokenizer.size)
        for _ in range(6):
            tokenizer.losses(pixels)
            after_step(tokenizer)
        return tokenizer, len(tokenizer.encode(pixels).unique())

    plain, few = used()
    revived, many = used(revive_after=2)
    assert many > few
    assert revived.health()["revived"] >= 0
    assert "quantize.revival.idle" not in plain.state_dict()  # an original's names stay as they are
    again, _ = used(revive_after=2)
    again.load_state_dict(load(save(revived.state_dict())))
    assert torch.equal(again.quantize.revival.idle, revived.quantize.revival.idle)
