"""Drawing from logits: by guidance, temperature, top-k and top-p, each row by its own numbers."""

import math

import pytest
import torch

from chiasm.errors import ChiasmError
from chiasm.heads import Sampling
from chiasm.heads.sampling import choose, guided
from chiasm.nn.generators import Generators


def test_the_guidance_formula_by_hand():
    logits = torch.tensor([[1.0, 2.0], [0.0, 4.0]])
    assert guided(logits, 3.0).tolist() == [[3.0, -2.0]]  # u + 3 (c - u)
    assert guided(logits, 0.0).tolist() == [[0.0, 4.0]]
    assert guided(logits, 1.0) is logits


def test_top_p_draws_among_the_fewest_likeliest_values_that_reach_it_together():
    chances = torch.tensor([0.1, 0.4, 0.15, 0.35])

    def drawn(top_p, temperature=1.0):
        sampling = Sampling(temperature=temperature, top_p=top_p)
        logits = (chances.log() * temperature + 3).expand(400, 4)
        return set(choose(logits, sampling, Generators(range(400))).tolist())

    for temperature in (1.0, 0.5):  # the chances are those at the temperature
        assert drawn(0.3, temperature) == {1}
        assert drawn(0.45, temperature) == {1, 3}
        assert drawn(0.8, temperature) == {1, 2, 3}
        assert drawn(0.95, temperature) == {0, 1, 2, 3}


class Numbers:
    """Generators that always give this number."""

    def __init__(self, number):
        self.number = number

    def uniform(self, *shape, device):
        return torch.full((2, *shape), self.number)


@pytest.mark.parametrize("number", [0.0, 0.2, 0.5, 0.9, 1 - 2**-24])
@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, 0), (0.3, 0), (4.0, 0), (1.0, 2), (1.0, 4)])
def test_a_code_is_drawn_where_the_sum_of_chances_reaches_the_number(number, temperature, top_k):
    """At every place of two rows, also where the first and last codes have no chance at all."""
    logits = (
        torch.tensor([0.5, 2.0, -1.0, 1.0, 0.0])[None, None] * torch.tensor([1.0, -1.0, 2.0])[None, :, None]
    )
    impossible = torch.full((2, 3, 1), -torch.inf)
    logits = torch.cat([impossible, logits.expand(2, 3, 5), impossible], -1)
    codes = choose(logits, Sampling(temperature=temperature, top_k=top_k), Numbers(number))
    assert codes.shape == (2, 3)
    for place in range(3):
        scores = logits[0, place].tolist()
        allowed = sorted(scores, reverse=True)[: top_k or 7]
        chances = [math.exp(score / temperature) if score in allowed else 0 for score in scores]
        reached, wanted = 0.0, (1 - number) * sum(chances)
        for code, chance in enumerate(chances):  # noqa: B007
            reached += chance
            if chance and reached >= wanted * (1 - 1e-6):
                break
        assert codes[:, place].tolist() == [code, code]


def test_however_low_the_temperature_the_likeliest_is_drawn():
    logits = torch.tensor([[[1.0, 1.001, -300.0], [900.0, -900.0, 899.0]], [[0.0, 0.0, 1.0]] * 2])
    for temperature in (1e-6, 1e-30, 1e-45):
        assert choose(logits, Sampling(temperature=temperature), Generators([1, 2])).tolist() == [
            [1, 0],
            [2, 2],
        ]
        assert choose(logits[:, 0], Sampling(temperature=temperature), Generators([1, 2])).tolist() == [1, 2]


def test_every_place_of_a_row_takes_a_number_of_its_own_and_rows_do_not_share_any():
    logits = torch.zeros(2, 50, 97)
    together = choose(logits, Sampling(temperature=1.0), Generators([3, 4]))
    alone = torch.cat([choose(logits[:1], Sampling(temperature=1.0), Generators([seed])) for seed in (3, 4)])
    assert torch.equal(together, alone)
    assert len(together[0].unique()) > 20
    assert not torch.equal(together[0], together[1])


def test_drawing_by_chance_needs_generators():
    with pytest.raises(ChiasmError, match=r"drawing at temperature 0\.5 needs generators"):
        choose(torch.zeros(1, 3), Sampling(temperature=0.5), None)


def test_draws_follow_temperature_and_top_k():
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]]).expand(4000, 4)
    source = Generators(range(4000))
    assert choose(logits, Sampling(temperature=0), None).unique().tolist() == [3]
    assert choose(logits, Sampling(temperature=1.0, top_k=1), source).unique().tolist() == [3]
    assert choose(logits, Sampling(temperature=1.0, top_k=2), source).unique().tolist() == [2, 3]
    assert choose(logits, Sampling(temperature=1.0, top_k=99), source).unique().tolist() == [0, 1, 2, 3]
    share = (choose(logits, Sampling(temperature=2.0, top_k=2), source) == 3).float().mean()
    assert share == pytest.approx(1 / (1 + math.exp(-0.5)), abs=0.03)
