"""Each request's own random numbers."""

import pytest
import torch

from chiasm.errors import ChiasmError
from chiasm.nn.generators import SEEDS, Generators, check_count, seeds_of


def test_numbers_depend_on_the_seed_alone_not_on_the_neighbours_nor_on_how_many_are_taken_at_once():
    both, alone = Generators([3, 7]), Generators([7])
    together = both.uniform(5)
    assert torch.equal(together[1], alone.uniform(5)[0])
    by_one = Generators([7])
    assert torch.equal(torch.stack([by_one.uniform()[0] for _ in range(5)]), together[1])
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("other", [2**32, 2**63, SEEDS - 1])
def test_seeds_differ_in_all_of_their_bits(other):
    numbers = Generators([0, other]).uniform(4)
    assert not torch.equal(numbers[0], numbers[1])


def test_uniform_numbers_are_uniform_over_seeds_and_normal_ones_normal():
    first = Generators(range(20_000)).uniform()
    assert 0 <= float(first.min()) < 1e-3
    assert 1 - 1e-3 < float(first.max()) < 1
    assert float(first.mean()) == pytest.approx(0.5, abs=0.01)
    normal = Generators(range(20_000)).normal()
    assert float(normal.mean()) == pytest.approx(0, abs=0.03)
    assert float(normal.std()) == pytest.approx(1, abs=0.03)


def test_a_restored_state_goes_on_with_the_same_numbers():
    generators = Generators([1, 2])
    generators.uniform(3)
    state = generators.state()
    ahead = generators.uniform(4)
    fresh = Generators([1, 2])
    fresh.restore(state)
    assert torch.equal(fresh.uniform(4), ahead)


def test_pixels_have_numbers_of_their_own_however_many_the_codes_took():
    fresh, used = Generators([4]), Generators([4])
    used.uniform(100)
    assert torch.equal(fresh.for_pixels().normal(6), used.for_pixels().normal(6))
    assert not torch.equal(Generators([4]).normal(6), fresh.for_pixels().normal(6))


def test_several_images_of_a_prompt_have_its_seed_and_those_behind_it():
    assert seeds_of(5, 2, 3) == [5, 6, 7, 5, 6, 7]
    assert seeds_of([5, 50], 2, 2) == [5, 6, 50, 51]


@pytest.mark.parametrize(
    "seed", [-1, SEEDS, 99999999999999999999, 1.0, 1.5, "1", None, True, float("nan"), [1, -1], [1, None]]
)
def test_what_is_no_seed_is_named(seed):
    with pytest.raises(ChiasmError, match=r"^seed: "):
        seeds_of(seed, 2)


def test_there_is_one_seed_or_one_for_each_prompt():
    with pytest.raises(ChiasmError, match="there are 3 seeds for 2 prompts"):
        seeds_of([1, 2, 3], 2)


def test_the_last_seed_leaves_no_room_for_a_second_image():
    assert seeds_of(SEEDS - 1, 1) == [SEEDS - 1]
    with pytest.raises(ChiasmError, match="seed: it must be a whole number from 0 to 18446744073709551614"):
        seeds_of(SEEDS - 1, 1, 2)


@pytest.mark.parametrize("count", [0, -1, 10**9, 1.0, "2", None, True, float("inf")])
def test_what_is_no_count_is_named(count):
    with pytest.raises(ChiasmError, match=r"^count: it must be a whole number from 1 to 10000, not "):
        check_count(count)
