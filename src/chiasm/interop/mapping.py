"""Tensor names and shapes of a public layout and ours, declared once and read in both directions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from chiasm.errors import CheckpointError

SHOWN = 8  # names in an error before it only counts


class Transform:
    """What happens to the tensors of a rule on their way to ours, and exactly back."""

    def to_ours(self, theirs: list[Tensor]) -> list[Tensor]:
        return theirs

    def to_theirs(self, ours: list[Tensor]) -> list[Tensor]:
        return ours


@dataclass(frozen=True)
class Split(Transform):
    """One tensor of theirs is several of ours, of these `sizes` along `dim` (fused qkv)."""

    sizes: Sequence[int]
    dim: int = 0

    def to_ours(self, theirs: list[Tensor]) -> list[Tensor]:
        return list(theirs[0].split(list(self.sizes), self.dim))

    def to_theirs(self, ours: list[Tensor]) -> list[Tensor]:
        return [torch.cat(ours, self.dim)]


@dataclass(frozen=True)
class Join(Transform):
    """Several tensors of theirs, of these `sizes` along `dim`, are one of ours."""

    sizes: Sequence[int]
    dim: int = 0

    def to_ours(self, theirs: list[Tensor]) -> list[Tensor]:
        return [torch.cat(theirs, self.dim)]

    def to_theirs(self, ours: list[Tensor]) -> list[Tensor]:
        return list(ours[0].split(list(self.sizes), self.dim))


@dataclass(frozen=True)
class Stack(Transform):
    """Several tensors of theirs, of one shape, are one of ours, along a new first axis."""

    def to_ours(self, theirs: list[Tensor]) -> list[Tensor]:
        return [torch.stack(theirs)]

    def to_theirs(self, ours: list[Tensor]) -> list[Tensor]:
        return list(ours[0].unbind())


@dataclass(frozen=True)
class Permute(Transform):
    """The axes of ours are these axes of theirs: `Permute((1, 0))` transposes a matrix."""

    axes: Sequence[int]

    def to_ours(self, theirs: list[Tensor]) -> list[Tensor]:
        return [tensor.permute(*self.axes) for tensor in theirs]

    def to_theirs(self, ours: list[Tensor]) -> list[Tensor]:
        back = sorted(range(len(self.axes)), key=lambda axis: self.axes[axis])
        return [tensor.permute(*back) for tensor in ours]


@dataclass(frozen=True)
class Reshape(Transform):
    """The same numbers in the same order, in another shape."""

    theirs: Sequence[int]
    ours: Sequence[int]

    def to_ours(self, theirs: list[Tensor]) -> list[Tensor]:
        return [self._checked(tensor, self.theirs).reshape(*self.ours) for tensor in theirs]

    def to_theirs(self, ours: list[Tensor]) -> list[Tensor]:
        return [self._checked(tensor, self.ours).reshape(*self.theirs) for tensor in ours]

    @staticmethod
    def _checked(tensor: Tensor, shape: Sequence[int]) -> Tensor:
        if tuple(tensor.shape) != tuple(shape):
            raise ValueError(f"the shape is {tuple(tensor.shape)}, not {tuple(shape)}")
        return tensor


@dataclass(frozen=True)
class Unsqueeze(Transform):
    """Ours has one more axis, of length 1, at `dim`."""

    dim: int = 0

    def to_ours(self, theirs: list[Tensor]) -> list[Tensor]:
        return [tensor.unsqueeze(self.dim) for tensor in theirs]

    def to_theirs(self, ours: list[Tensor]) -> list[Tensor]:
        return [tensor.squeeze(self.dim) for tensor in ours]


@dataclass(frozen=True)
class TableRow(Transform):
    """A table of theirs is ours too, and one row of it is also a tensor `1 d` of ours, which decides it on export
    (the embedding of a marker's id)."""

    index: int

    def to_ours(self, theirs: list[Tensor]) -> list[Tensor]:
        return [theirs[0], theirs[0][self.index : self.index + 1].clone()]

    def to_theirs(self, ours: list[Tensor]) -> list[Tensor]:
        table = ours[0].clone()
        table[self.index] = ours[1][0]
        return [table]


@dataclass(frozen=True)
class TableRows(Transform):
    """As `TableRow`, for several rows, which are a tensor `n d` of ours."""

    indices: Sequence[int]

    def to_ours(self, theirs: list[Tensor]) -> list[Tensor]:
        return [theirs[0], theirs[0][list(self.indices)]]

    def to_theirs(self, ours: list[Tensor]) -> list[Tensor]:
        table = ours[0].clone()
        table[list(self.indices)] = ours[1]
        return [table]


@dataclass(frozen=True)
class FirstRows(Transform):
    """The first rows of our table are these of theirs, which are its first rows too; all others stay."""

    order: Sequence[int]

    def to_ours(self, theirs: list[Tensor]) -> list[Tensor]:
        return [torch.cat([theirs[0][list(self.order)], theirs[0][len(self.order) :]])]

    def to_theirs(self, ours: list[Tensor]) -> list[Tensor]:
        back = [list(self.order).index(row) for row in range(len(self.order))]
        return [torch.cat([ours[0][back], ours[0][len(back) :]])]


@dataclass(frozen=True)
class Chain(Transform):
    """One transform after another, in the order from theirs to ours."""

    steps: Sequence[Transform]

    def to_ours(self, theirs: list[Tensor]) -> list[Tensor]:
        for step in self.steps:
            theirs = step.to_ours(theirs)
        return theirs

    def to_theirs(self, ours: list[Tensor]) -> list[Tensor]:
        for step in reversed(self.steps):
            ours = step.to_theirs(ours)
        return ours


Patterns = str | tuple[str, ...]


@dataclass(frozen=True)
class Rule:
    """`theirs <-> ours`. `{name}` stands for one stretch without a dot, `{name...}` for any rest of the name.

    Several patterns on a side belong together: `Rule("blocks.{n}.qkv.{w}", ("b.{n}.q.{w}", ...), Split(...))`.
    """

    theirs: Patterns
    ours: Patterns
    transform: Transform = Transform()  # noqa: RUF009 (frozen and without state)


@dataclass(frozen=True)
class Unused:
    """Tensors of theirs that a model does without. They are kept aside and written back on export."""

    theirs: str


@dataclass(frozen=True)
class OwnTensors:
    """Tensors of ours that their layout has not (an encoder's normalisation); they keep the built values."""

    ours: str


class NameMap:
    """Rules in order; the first that matches a name decides. Names that none matches are errors."""

    def __init__(self, *entries: Rule | Unused | OwnTensors):
        self.rules = [entry for entry in entries if isinstance(entry, Rule)]
        self.unused = [_Pattern(entry.theirs) for entry in entries if isinstance(entry, Unused)]
        self.own = [_Pattern(entry.ours) for entry in entries if isinstance(entry, OwnTensors)]

    def to_ours(
        self, theirs: Mapping[str, Tensor], where: str
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Our tensors, and those of theirs that are named as unused; raises CheckpointError for any left over."""
        unused = {name: tensor for name, tensor in theirs.items() if _any(self.unused, name)}
        used = {name: tensor for name, tensor in theirs.items() if name not in unused}
        return self._apply(used, False, where), unused

    def to_theirs(self, ours: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
        """Their tensors; raises CheckpointError for tensors of ours that have no place in their layout."""
        used = {name: t for name, t in ours.items() if not self.is_own(name)}
        return self._apply(used, True, where)

    def is_own(self, name: str) -> bool:
        return _any(self.own, name)

    def their_names(self, ours: str) -> list[str]:
        """What a tensor of ours is called in their layout, for messages."""
        for _, sources, targets in self._sides(True):
            for pattern in sources:
                if (bound := pattern.match(ours)) is not None:
                    return [target.fill(bound) for target in targets]
        return []

    @cached_property
    def _patterns(self) -> list[tuple[list[_Pattern], list[_Pattern]]]:
        return [
            ([_Pattern(p) for p in _tuple(r.theirs)], [_Pattern(p) for p in _tuple(r.ours)])
            for r in self.rules
        ]

    def _sides(self, back: bool) -> Iterable[tuple[Rule, list[_Pattern], list[_Pattern]]]:
        for rule, (theirs, ours) in zip(self.rules, self._patterns, strict=True):
            yield (rule, ours, theirs) if back else (rule, theirs, ours)

    def _apply(self, tensors: Mapping[str, Tensor], back: bool, where: str) -> dict[str, Tensor]:
        groups: dict[tuple[Any, ...], dict[int, str]] = {}
        surplus = []
        sides = list(self._sides(back))
        for name in tensors:
            match = _find(sides, name)
            if match is None:
                surplus.append(name)
            else:
                r, i, bound = match
                groups.setdefault((r, tuple(sorted(bound.items()))), {})[i] = name
        if surplus:
            raise CheckpointError(f"{where} has {len(surplus)} tensors without a place: {some(surplus)}")
        result: dict[str, Tensor] = {}
        for (r, items), members in groups.items():
            rule, sources, targets = sides[r]
            bound = dict(items)
            lacking = [s.fill(bound) for i, s in enumerate(sources) if i not in members]
            if lacking:
                raise CheckpointError(f"{where} lacks {some(lacking)} beside {some(members.values())}")
            inputs = [tensors[members[i]] for i in range(len(sources))]
            try:
                outputs = (rule.transform.to_theirs if back else rule.transform.to_ours)(inputs)
            except (RuntimeError, ValueError) as error:
                shapes = ", ".join(f"{members[i]} {tuple(t.shape)}" for i, t in enumerate(inputs))
                raise CheckpointError(f"{where}: {shapes} cannot be {rule.transform}: {error}") from None
            for target, tensor in zip(targets, outputs, strict=True):
                if result.setdefault(target.fill(bound), tensor) is not tensor:
                    raise CheckpointError(f"{where}: two tensors become {target.fill(bound)}")
        return result


class _Pattern:
    def __init__(self, text: str):
        self.text = text
        pieces = re.split(r"(\{\w+(?:\.\.\.)?\})", text)
        self.regex = re.compile("".join(map(_regex, pieces)))

    def match(self, name: str) -> dict[str, str] | None:
        result = self.regex.fullmatch(name)
        return None if result is None else result.groupdict()

    def fill(self, bound: Mapping[str, str]) -> str:
        return re.sub(r"\{(\w+)(?:\.\.\.)?\}", lambda place: bound[place.group(1)], self.text)


def _any(patterns: Iterable[_Pattern], name: str) -> bool:
    return any(pattern.match(name) is not None for pattern in patterns)


def _regex(piece: str) -> str:
    match = re.fullmatch(r"\{(\w+)(\.\.\.)?\}", piece)
    if match is None:
        return re.escape(piece)
    return f"(?P<{match.group(1)}>{'.+' if match.group(2) else '[^.]+'})"


def _find(
    sides: Sequence[tuple[Rule, list[_Pattern], list[_Pattern]]], name: str
) -> tuple[int, int, dict[str, str]] | None:
    for r, (_, sources, _) in enumerate(sides):
        for i, pattern in enumerate(sources):
            if (bound := pattern.match(name)) is not None:
                return r, i, bound
    return None


def _tuple(patterns: Patterns) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else patterns


def some(names: Iterable[str]) -> str:
    listed = sorted(names)
    rest = f", and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + rest
