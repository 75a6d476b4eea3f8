"""Who meets which experts: the use of a sparse routing by kind of token, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

KINDS = {"text": "words", "read": "tokens of pictures read", "written": "tokens of pictures drawn"}

Use = Mapping[str, Mapping[str, Sequence[float]]]  # layer -> kind -> each expert's share of the choices


@dataclass(frozen=True)
class Row:
    """One layer, and one kind of token in it; `apart` is how far its choices are from those of words.

    apart: half the sum of the differences of the shares, from 0 (chosen alike) to 1 (by no common expert); None for
        words themselves.
    """

    layer: str
    kind: str
    shares: Sequence[float]
    apart: float | None


def rows(use: Use) -> list[Row]:
    """The table of the report."""
    made = []
    for layer, kinds in use.items():
        words = kinds.get("text")
        for kind, shares in kinds.items():
            apart = None
            if words is not None and kind != "text":
                apart = sum(abs(a - b) for a, b in zip(shares, words, strict=True)) / 2
            made.append(Row(layer.removeprefix("inner."), KINDS[kind], shares, apart))
    return made


def summary(use: Use) -> str:
    """One line: the least and the most used expert of any layer, by kind of token."""
    found: dict[str, list[float]] = {}
    for kinds in use.values():
        for kind, shares in kinds.items():
            found.setdefault(kind, []).extend(shares)
    said = [f"{KINDS[kind]} {min(shares):.0%} to {max(shares):.0%}" for kind, shares in found.items()]
    if not said:
        return "no token met an expert"
    counts = {len(shares) for kinds in use.values() for shares in kinds.values()}
    even = ", ".join(f"{1 / count:.0%}" for count in sorted(counts))
    return f"experts' shares of the choices: {'; '.join(said)} (even: {even})"
