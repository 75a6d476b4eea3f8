"""The order in which a stage sees its data: a function of a few integers, so that it can be resumed anywhere."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from chiasm.data import Sample, Source
from chiasm.errors import DataError

Item = TypeVar("Item")
NOTHING = "nothing of what the stage trains on"  # of a record that is sound
LeftOut = Mapping[str, Mapping[str, str]]  # by source: what is wrong with an item, by its `item_key`


@dataclass(frozen=True)
class Origin:
    """Where an item comes from: item `number` of a group, in one epoch."""

    source: str
    epoch: int
    group: int
    number: int


class Mixture(Generic[Item]):
    """Items of several sources by their shares, without end; every epoch of a source in an order of its own.

    An item that cannot be used is passed over where its source says so; it does not count for the source's share.
    The position holds which items those are, so that what follows is the same after a resumption.

    The items of a group follow one another. The next group is of the source that lags furthest behind its share.
    With several ranks, rank r takes the groups r, r + world, ... of each source's order.

    Args:
        sources: the data sources by name.
        shares: how much of the items each source gives.
        key: names the order (seed and stage).
        items: makes the items of a group.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        shares: Mapping[str, float],
        key: str,
        items: Callable[[list[Sample]], Sequence[Item]],
        rank: int = 0,
        world: int = 1,
    ):
        self.sources = {name: sources[name] for name, share in shares.items() if share > 0}
        self.shares = {name: shares[name] for name in self.sources}
        if not self.sources:
            raise DataError("no data source has a share above 0; there is nothing to train on")
        for name, source in self.sources.items():
            if len(source) == 0:
                raise DataError(f"data source {name!r} is empty; there is nothing to train on")
        self.key, self.items, self.rank, self.world = key, items, rank, world
        self._orders: dict[tuple[str, int], np.ndarray] = {}
        self._open: tuple[int, int, Sequence[Item]] | None = None  # epoch, group and items of the group begun
        # Groups of the current source that were tried since an item was taken.
        self._fruitless: set[int] = set()
        self._last: DataError | None = None  # why an item could not be used
        self.restore({"taken": {}, "groups": {}, "current": None, "offset": 0, "left_out": {}})

    def state(self) -> dict[str, Any]:
        """The position, for `restore`."""
        return {
            "taken": dict(self._taken),
            "groups": dict(self._groups),
            "current": self._current,
            "offset": self._offset,
            "left_out": {name: dict(kinds) for name, kinds in self.left_out.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on exactly from where `state` was called."""
        self._taken: dict[str, int] = dict.fromkeys(self.sources, 0) | dict(state["taken"])
        self._groups: dict[str, int] = dict.fromkeys(self.sources, 0) | dict(state["groups"])
        self._current: str | None = state["current"]
        self._offset: int = state["offset"]
        self._open = None
        self.leave_out(state["left_out"])

    def leave_out(self, items: LeftOut) -> None:
        """Pass over these items, and no others."""
        self.left_out = {name: dict(kinds) for name, kinds in items.items()}

    def peek(self) -> tuple[Origin, Item]:
        """The next item that is not left out; the same one until `advance` or `skip`."""
        while True:
            if self._open is None:
                self._open = self._begin()
            assert self._current is not None
            epoch, group, items = self._open
            if item_key(group, self._offset) not in self.left_out.get(self._current, {}):
                return Origin(self._current, epoch, group, self._offset), items[self._offset]
            self._step()

    def advance(self) -> None:
        """Step past the item that `peek` returned."""
        assert self._current is not None
        self._taken[self._current] += 1
        self._fruitless.clear()
        self._step()

    def skip(self, error: DataError) -> None:
        """Leave out the item that `peek` showed for good; raises the error if its source skips nothing."""
        assert self._open is not None
        self._note(self._open[1], self._offset, error)
        self._step()

    @property
    def skips(self) -> bool:
        """Whether the item that `peek` showed is skipped if it cannot be used."""
        return self._current is not None and self.sources[self._current].broken == "skip"

    def check(self, usable: Callable[[Item], object]) -> LeftOut:
        """Those items of records from outside for which `usable` raises DataError, or with which none can be made.

        The groups are shared out among the ranks. Raises the error if a source skips nothing; a record of which
        nothing is wanted is no error, but counted.
        """
        for name, source in self.sources.items():
            for group in range(self.rank, len(source), self.world) if source.foreign else ():
                self._current = name
                try:
                    items = self.items(source[group])
                except DataError as error:
                    self._note(group, 0, error)
                    continue
                if not items:
                    self.left_out.setdefault(name, {})[item_key(group, 0)] = NOTHING
                for number, item in enumerate(items):
                    try:
                        usable(item)
                    except DataError as error:
                        self._note(group, number, error)
        left_out = self.left_out
        self.restore({"taken": {}, "groups": {}, "current": None, "offset": 0, "left_out": {}})
        return left_out

    def _note(self, group: int, number: int, error: DataError) -> None:
        """Note that an item of the current source is left out."""
        assert self._current is not None
        if self.sources[self._current].broken == "error":
            raise error
        self._last = error
        self.left_out.setdefault(self._current, {})[item_key(group, number)] = error.kind

    def _step(self) -> None:
        assert self._open is not None
        self._offset += 1
        if self._offset >= len(self._open[2]):
            self._finish()

    def _begin(self) -> tuple[int, int, Sequence[Item]]:
        """Load the group begun, or the next that has items."""
        while True:
            if self._current is None:
                self._current = min(self.sources, key=lambda name: self._taken[name] / self.shares[name])
            source = self.sources[self._current]
            epoch, place = divmod(self.rank + self.world * self._groups[self._current], len(source))
            group = int(self._order(self._current, epoch)[place])
            if len(self._fruitless) == len(source):
                reason = f"; the last: {self._last}" if self._last else ""
                raise DataError(
                    f"data source {self._current!r} has {len(source)} groups "
                    f"but nothing to train on in them{reason}"
                )
            if self._offset == 0:  # else the run was stopped within a group that had something
                self._fruitless.add(group)
            try:
                items = self.items(source[group])
            except DataError as error:
                self._note(group, 0, error)
                items = ()
            if len(items):
                return epoch, group, items
            self._finish()

    def _finish(self) -> None:
        assert self._current is not None
        self._groups[self._current] += 1
        self._current, self._offset, self._open = None, 0, None

    def _order(self, name: str, epoch: int) -> np.ndarray:
        """The groups of a source in the order of an epoch."""
        if (name, epoch) not in self._orders:
            self._orders.pop((name, epoch - 1), None)
            dice = np.random.default_rng(number(self.key, name, epoch))
            self._orders[name, epoch] = dice.permutation(len(self.sources[name]))
        return self._orders[name, epoch]


def item_key(group: int, number: int) -> str:
    """What an item is called in a mixture's position."""
    return f"{group}:{number}"


def without_use(left_out: LeftOut) -> dict[str, int]:
    """By source, how many groups a stage passes over because there is nothing in them that it trains on."""
    counted = {name: sum(kind == NOTHING for kind in kinds.values()) for name, kinds in left_out.items()}
    return {name: count for name, count in counted.items() if count}


def records_left_out(*items: LeftOut) -> dict[str, Counter[str]]:
    """By source, how many groups have an item that is left out, by what is wrong with the first.

    Those in which there is only nothing for a stage are not among them.
    """
    groups: dict[str, dict[str, str]] = {}
    for each in items:
        for name, kinds in each.items():
            for key, kind in kinds.items():
                if kind == NOTHING:
                    continue
                groups.setdefault(name, {}).setdefault(key.partition(":")[0], kind)
    return {name: Counter(kinds.values()) for name, kinds in groups.items()}


def number(*key: Any) -> int:
    """64 bits that depend on the key alone."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def chance(*key: Any) -> float:
    """A number in [0, 1) that depends on the key alone."""
    return number(*key) / 2**64
