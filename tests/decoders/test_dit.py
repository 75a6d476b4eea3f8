"""The diffusion transformer that learns from scratch."""

import pytest
import torch

from chiasm import parts
from chiasm.decoders import DecoderContext
from chiasm.decoders.conditions import Condition
from chiasm.errors import ChiasmError, RecipeError
from chiasm.nn.generators import Generators
from chiasm.tokenizers.spaces import Codes

SMALL = {"type": "dit", "width": 32, "depth": 2, "heads": 2, "patch_size": 2}


def built(channels=3, source=0, *, awake=True, **options):
    torch.manual_seed(0)
    denoiser = parts.build("denoiser", {**SMALL, **options}, channels, source).eval()
    if awake:  # it begins with zeros
        for parameter in denoiser.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return denoiser


def condition(seed=0, *, mask=None, source=None, images=2):
    random = torch.Generator().manual_seed(seed)
    return Condition(torch.randn(images, 5, 32, generator=random), mask, source=source)


def test_it_begins_by_predicting_nothing():
    assert built(awake=False)(torch.randn(2, 3, 8, 8), torch.tensor(500), condition()).abs().sum() == 0


def test_its_prediction_depends_on_places_times_tokens_and_source():
    denoiser, x = built(source=3), torch.randn(2, 3, 8, 8)
    source = torch.randn(2, 3, 8, 8)
    base = denoiser(x, torch.tensor(500), condition(source=source))
    assert base.shape == x.shape
    others = [
        denoiser(x.flip(-1), torch.tensor(500), condition(source=source)).flip(-1),
        denoiser(x, torch.tensor(501), condition(source=source)),
        denoiser(x, torch.tensor(500), condition(1, source=source)),
        denoiser(x, torch.tensor(500), condition(source=-source)),
    ]
    assert not any(torch.allclose(base, other, atol=1e-4) for other in others)


def test_a_time_for_all_is_the_same_time_for_each():
    denoiser, x = built(), torch.randn(2, 3, 8, 8)
    one, each = (denoiser(x, times, condition()) for times in (torch.tensor(9.0), torch.tensor([9.0, 9.0])))
    torch.testing.assert_close(one, each)


def test_masked_tokens_change_nothing():
    denoiser, x, mask = (
        built(),
        torch.randn(2, 3, 8, 8),
        torch.tensor([[True, True, False, False, False]] * 2),
    )
    one = condition(mask=mask)
    other = one._replace(tokens=torch.where(mask[..., None], one.tokens, 9.0))
    torch.testing.assert_close(denoiser(x, torch.tensor(3), one), denoiser(x, torch.tensor(3), other))


def test_sizes_that_it_cannot_cut_are_refused():
    with pytest.raises(ChiasmError, match="cannot cut 9 latents or pixels along a side into patches of 2"):
        built()(torch.randn(1, 3, 9, 9), torch.tensor(3), condition(images=1))
    with pytest.raises(RecipeError, match="width 30 must be a multiple of 4 and of its 2 heads"):
        built(width=30)


@pytest.mark.slow
def test_it_learns_to_draw_what_a_code_says():
    """One code is a dark image, the other a bright one; after some steps of flow both come out as such."""
    torch.manual_seed(0)
    spec = {
        "type": "diffusion",
        "size": 8,
        "denoiser": SMALL,
        "conditioner": {"type": "codes"},
        "scheduler": {"type": "flow"},
        "steps": 8,
        "guidance": 1.5,
    }
    decoder = parts.build("image_decoder", spec, DecoderContext(Codes((1, 1), 2))).train()
    optimiser = torch.optim.Adam(decoder.parameters(), 3e-3)
    for _ in range(150):
        codes = torch.randint(2, (32, 1, 1))
        pixels = (0.1 + 0.8 * codes[..., None]).expand(-1, 3, 8, 8)
        loss = decoder.losses(codes, pixels)["diffusion"].mean
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    images = decoder.eval().decode(torch.tensor([[[0]], [[1]]]), generators=Generators([3, 4]))
    assert images.mean((1, 2, 3)).tolist() == pytest.approx([0.1, 0.9], abs=0.1)
