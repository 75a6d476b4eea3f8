"""Random numbers of losses: torch's own while something learns, a function of the items where nothing does."""

import pytest
import torch

from chiasm.nn.generators import Generators
from chiasm.nn.training_noise import TrainingNoise, training_numbers

ITEMS = {
    "codes": torch.tensor([[3, 1, 2], [0, 5, 5]]),
    "vectors": torch.tensor([[0.5, -1.0, 2.0], [0.25, 4.0, 1.0]]),
}


def numbers(items):
    return training_numbers(items, (4,))


def noise(items):
    return TrainingNoise(items).normal(4)


@pytest.mark.parametrize("draw", [numbers, noise])
@pytest.mark.parametrize("items", ITEMS.values(), ids=ITEMS)
def test_they_follow_torch_s_generator_item_by_item_and_without_gradients_the_items_alone(draw, items):
    torch.manual_seed(1)
    whole = draw(items)
    torch.manual_seed(1)
    assert torch.equal(torch.cat([draw(item) for item in items.split(1)]), whole)
    assert not torch.equal(draw(items), whole)
    with torch.no_grad():
        repeated = draw(items)
        torch.manual_seed(2)
        assert torch.equal(draw(items.flip(0)), repeated.flip(0))
        assert not torch.equal(repeated[0], repeated[1])


def test_going_on_finds_the_numbers_of_before():
    """What runs have drawn so far, from the formulas as they stood."""
    torch.manual_seed(7)
    expected = torch.rand(2, 4)
    torch.manual_seed(7)
    assert torch.equal(numbers(ITEMS["codes"]), expected)
    torch.manual_seed(7)
    seeds = torch.randint(2**63 - 1, (2,)).tolist()
    torch.manual_seed(7)
    assert torch.equal(noise(ITEMS["vectors"]), Generators(seeds).normal(4))
    with torch.no_grad():
        rows = [torch.rand(4, generator=torch.Generator().manual_seed(seed)) for seed in (3 + 2 + 6, 10 + 15)]
        assert torch.equal(numbers(ITEMS["codes"]), torch.stack(rows))
        assert torch.equal(numbers(ITEMS["vectors"]), Generators([500, 1750]).uniform(4))
