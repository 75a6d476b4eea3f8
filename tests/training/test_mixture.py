"""The order of the data is a loop over sources and groups; what cannot be used is passed over, noted or said."""

import hashlib
from collections import Counter

import numpy as np
import pytest

from chiasm.data import Source
from chiasm.errors import DataError
from chiasm.training.mixture import NOTHING, Mixture, chance, item_key, number, records_left_out, without_use


class Letters(Source):
    """Groups of letters: group 1 of "ab" with sizes (2, 3) is ["b0", "b1", "b2"]."""

    name = "letters"

    def __init__(self, sizes, *, broken="error", foreign=False, unreadable=()):
        self.sizes, self.broken, self.foreign, self.unreadable = sizes, broken, foreign, unreadable

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        if index in self.unreadable:
            raise DataError(f"group {index} is broken", "unreadable")
        return [f"{index}.{i}" for i in range(self.sizes[index])]

    fingerprint = "letters"


def mixture(sources, shares=None, items=lambda group: group, **where):
    return Mixture(sources, shares or dict.fromkeys(sources, 1.0), "7/learn", items, **where)


def taken(mixture, count):
    found = []
    for _ in range(count):
        origin, item = mixture.peek()
        assert mixture.peek() == (origin, item)
        assert item == f"{origin.group}.{origin.number}"
        found.append((origin.source, origin.epoch, item))
        mixture.advance()
    return found


def shuffled(name, epoch, count):
    key = f"7/learn/{name}/{epoch}".encode()
    seed = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")
    return np.random.default_rng(seed).permutation(count).tolist()


def written_out(sources, shares, count, rank=0, world=1):
    """Items as a loop: each source's groups in orders of their own; the next is of the source that lags most."""
    orders, items = {}, Counter()
    for name, source in sources.items():
        groups = [(e, g) for e in range(99) for g in shuffled(name, e, len(source))]
        orders[name] = iter(groups[rank::world])
    found = []
    while len(found) < count:
        name = min(shares, key=lambda each: items[each] / shares[each])
        epoch, group = next(orders[name])
        for item in sources[name][group]:
            items[name] += 1
            found.append((name, epoch, item))
    return found[:count]


@pytest.mark.parametrize(("rank", "world"), [(0, 1), (0, 3), (2, 3)])
def test_the_order_is_a_loop_over_the_sources_that_lag_behind_their_shares(rank, world):
    sources = {"a": Letters([1, 3, 2, 4, 1]), "b": Letters([2, 0, 2]), "c": Letters([5, 1])}
    shares = {"a": 0.2, "b": 0.5, "c": 0.3}
    found = taken(mixture(sources, shares, rank=rank, world=world), 150)
    assert found == written_out(sources, shares, 150, rank, world)


def test_sources_without_a_share_are_not_read():
    found = mixture({"a": Letters([1]), "b": Letters([])}, {"a": 2.0, "b": 0.0})
    assert found.sources.keys() == {"a"}
    assert {name for name, *_ in taken(found, 5)} == {"a"}
    with pytest.raises(DataError, match="no data source has a share above 0"):
        mixture({"a": Letters([1])}, {"a": 0.0})


@pytest.mark.parametrize("position", [0, 1, 2, 7, 20])
def test_a_position_is_a_plain_value_that_leads_back(position):
    sources = {"a": Letters([1, 3, 2]), "b": Letters([2, 2])}
    first, second = mixture(sources), mixture(sources)
    taken(first, position)
    state = first.state()
    expected = taken(first, 9)
    taken(second, 5)
    second.restore(state)
    assert second.state() == state
    assert taken(second, 9) == expected


def test_what_is_skipped_is_never_shown_again_and_does_not_count_for_its_share():
    sources = {"a": Letters([2, 2], broken="skip"), "b": Letters([1])}
    one = mixture(sources)
    seen = Counter()
    for _ in range(40):
        origin, item = one.peek()
        if origin.source == "a" and item in ("0.1", "1.0"):
            one.skip(DataError("bad", "two words"))
            continue
        seen[origin.source, item] += 1
        one.advance()
    assert one.left_out == {"a": {"0:1": "two words", "1:0": "two words"}}
    assert set(seen) == {("a", "0.0"), ("a", "1.1"), ("b", "0.0")}
    assert abs(seen["a", "0.0"] + seen["a", "1.1"] - seen["b", "0.0"]) <= 1
    again = mixture(sources)
    again.leave_out(one.left_out)
    assert {item for name, _, item in taken(again, 20) if name == "a"} == {"0.0", "1.1"}
    again.left_out["a"]["0:0"] = "more"
    assert "0:0" not in one.left_out["a"]


def test_where_nothing_is_skipped_the_first_that_is_broken_is_the_error():
    strict = mixture({"a": Letters([2])})
    strict.peek()
    with pytest.raises(DataError, match="as it was"):
        strict.skip(DataError("as it was"))
    with pytest.raises(DataError, match="group 0 is broken"):
        mixture({"a": Letters([2], unreadable=[0])}).peek()


def test_a_group_that_cannot_be_read_is_left_out_as_its_first_item():
    lenient = mixture({"a": Letters([1, 1, 1], broken="skip", unreadable=[1])})
    assert {item for _, _, item in taken(lenient, 6)} == {"0.0", "2.0"}
    assert lenient.left_out == {"a": {"1:0": "unreadable"}}


def test_a_source_without_anything_usable_is_given_up_after_a_round_and_says_the_last_reason():
    with pytest.raises(DataError, match=r"'a' is empty; there is nothing to train on"):
        mixture({"a": Letters([])})
    with pytest.raises(DataError, match=r"'a' has 3 groups but nothing to train on in them$"):
        mixture({"a": Letters([0, 0, 0])}).peek()
    broken = mixture({"a": Letters([1, 1], broken="skip", unreadable=[0, 1])})
    with pytest.raises(
        DataError, match=r"2 groups but nothing to train on in them; the last: group \d is broken"
    ):
        broken.peek()


def test_a_source_of_which_little_can_be_used_is_never_taken_for_empty():
    """One group of four has something: from one epoch to the next up to six lie between."""
    alone = mixture({"a": Letters([0, 0, 0, 1])})
    assert [epoch for _, epoch, _ in taken(alone, 100)] == list(range(100))
    taken(mixture({"a": Letters([0, 0, 0, 1])}, rank=2, world=4), 100)
    lenient = mixture({"a": Letters([1, 1, 1, 1], broken="skip", unreadable=[0, 1, 2])})
    assert [epoch for _, epoch, _ in taken(lenient, 100)] == list(range(100))


def test_a_run_taken_up_within_its_only_good_group_does_not_take_the_source_for_empty():
    """The good item of the group was taken before the stop; what is left of the group is broken."""

    def passing_over(one, count):
        names = []
        while len(names) < count:
            _, item = one.peek()
            if item != "0.0":
                one.skip(DataError("bad", "two words"))
                continue
            names.append(item)
            one.advance()
        return names

    for sizes in ([2], [2, 0, 1]):
        first = mixture({"a": Letters(sizes, broken="skip")})
        passing_over(first, 1)
        second = mixture({"a": Letters(sizes, broken="skip")})
        second.restore(first.state())
        assert passing_over(second, 3) == passing_over(first, 3) == ["0.0"] * 3


def test_a_check_looks_at_every_item_from_outside_once_shared_out_among_ranks_and_leaves_no_trace():
    sources = {
        "a": Letters([2, 0, 1, 2], foreign=True, broken="skip", unreadable=[2]),
        "b": Letters([1]),
    }
    nothing = {"1:0": NOTHING}
    looked, found = [], {}

    def usable(item):
        looked.append(item)
        if item == "3.1":
            raise DataError("no", "too long")

    for rank in (0, 1):
        part = mixture(sources, rank=rank, world=2)
        fresh = part.state()
        found[rank] = part.check(usable)
        assert part.state() == fresh
        assert part.left_out == {}
    assert sorted(looked) == ["0.0", "0.1", "3.0", "3.1"]
    assert found == {0: {"a": {"2:0": "unreadable"}}, 1: {"a": {"3:1": "too long"} | nothing}}
    assert without_use(found[0]) == {}
    assert without_use(found[1]) == {"a": 1}
    assert records_left_out(found[1]) == {"a": Counter({"too long": 1})}
    strict = mixture({"a": Letters([1], foreign=True)})
    with pytest.raises(DataError, match="wrong"):
        strict.check(lambda item: (_ for _ in ()).throw(DataError("wrong")))


def test_records_are_counted_once_by_what_is_wrong_with_their_first_item():
    ranks = (
        {"a": {"0:1": "long", "0:2": "turns", "13:0": "long"}},
        {"a": {"4:0": "turns"}, "b": {"0:0": "text"}},
    )
    assert records_left_out(*ranks) == {"a": Counter(long=2, turns=1), "b": Counter(text=1)}
    assert records_left_out() == {}
    assert item_key(3, 14) == "3:14"


def test_numbers_depend_on_their_key_alone_and_chances_lie_in_the_unit_interval():
    assert number("a", 1) == number("a", 1) != number("a", 2)
    assert number("a", 1) == int.from_bytes(hashlib.blake2b(b"a/1", digest_size=8).digest(), "big")
    assert max(number(i) for i in range(50)) > 2**62
    assert chance("a", 1) == number("a", 1) / 2**64
    assert 0 <= min(chance(i) for i in range(200)) < 0.05 < 0.95 < max(chance(i) for i in range(200)) < 1
