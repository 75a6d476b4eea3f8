"""SEED-X's adapter as a conditioner: the tokens and the pooled vector of a denoiser, and what guidance leaves."""

import pytest
import torch

from chiasm import parts
from chiasm.decoders.conditioners import ConditionerContext
from chiasm.errors import RecipeError
from chiasm.tokenizers.spaces import Codes, Vectors

VECTORS = Vectors((2, 3), 5)


def built(space=VECTORS, tokens=24, pooled=None, **options):
    torch.manual_seed(0)
    cls = parts.lookup("conditioner", "perceiver")
    spec = {"type": "perceiver", **cls.example(), **options}
    return parts.build("conditioner", spec, ConditionerContext(space, tokens, pooled))


@pytest.mark.parametrize("pooled", [None, 10])
def test_latents_become_tokens_and_a_pooled_vector_where_one_is_read(pooled):
    condition = built(pooled=pooled)(torch.randn(4, 2, 3, 5))
    assert condition.tokens.shape == (4, 3, 24)
    assert (condition.added or {}).get("text_embeds", torch.zeros(0)).shape == ((4, 10) if pooled else (0,))


def test_guidance_leads_away_from_a_learnt_target():
    conditioner = built(pooled=10)
    condition = conditioner(torch.randn(4, 2, 3, 5))
    empty, expected = conditioner.empty(condition), conditioner(conditioner.negative[None])
    torch.testing.assert_close(empty.tokens, expected.tokens.expand(4, -1, -1))
    torch.testing.assert_close(empty.added["text_embeds"], expected.added["text_embeds"].expand(4, -1))
    empty.tokens.sum().backward()
    assert conditioner.negative.grad.abs().sum() > 0


def test_normalised_channels_have_length_one_over_the_vectors_of_a_target():
    conditioner, target = built(normalised=True), torch.randn(1, 2, 3, 5)
    scaled = target * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    torch.testing.assert_close(conditioner(target).tokens, conditioner(scaled).tokens)


@pytest.mark.parametrize(("arguments", "refused"), [
    ({"space": Codes((1, 4), 9)}, "takes vectors whose width and number are known"),
    ({"space": Vectors((0, 0), 5)}, "takes vectors whose width and number are known"),
    ({"heads": 3}, "3 heads do not divide the width 8"),
    ({"pooled": 24}, "as many channels of the tokens apart as the pooled vector has, 24"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(arguments, refused):
    with pytest.raises(RecipeError, match=refused):
        built(**arguments)
