"""The use of a sparse routing's experts by kind of token, for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

KINDS = {"text": "words", "read": "tokens of images read", "written": "tokens of images drawn"}

Use = Mapping[str, Mapping[str, Sequence[float]]]  # layer -> kind -> each expert's share of the choices


@dataclass(frozen=True)
class ExpertUse:
    """One layer, and one kind of token in it; `distance` is how far its choices are from those of words.

    distance: half the sum of the differences of the shares, from 0 (chosen alike) to 1 (by no common expert); None
        for words themselves.
    """

    layer: str
    kind: str
    shares: Sequence[float]
    distance: float | None


def rows(use: Use) -> list[ExpertUse]:
    """The table of the report."""
    result = []
    for layer, kinds in use.items():
        words = kinds.get("text")
        for kind, shares in kinds.items():
            distance = None
            if words is not None and kind != "text":
                distance = sum(abs(a - b) for a, b in zip(shares, words, strict=True)) / 2
            result.append(ExpertUse(layer.removeprefix("inner."), KINDS[kind], shares, distance))
    return result


def summary(use: Use) -> str:
    """One line: the least and the most used expert of any layer, by kind of token."""
    shares_by_kind: dict[str, list[float]] = {}
    for kinds in use.values():
        for kind, shares in kinds.items():
            shares_by_kind.setdefault(kind, []).extend(shares)
    ranges = [
        f"{KINDS[kind]} {min(shares):.0%} to {max(shares):.0%}" for kind, shares in shares_by_kind.items()
    ]
    if not ranges:
        return "no token went through an expert"
    counts = {len(shares) for kinds in use.values() for shares in kinds.values()}
    even = ", ".join(f"{1 / count:.0%}" for count in sorted(counts))
    return f"experts' shares of the choices: {'; '.join(ranges)} (even: {even})"
