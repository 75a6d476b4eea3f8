"""The drawings of a study's report, as SVG whose colours come from the page's style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log10
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup, escape

from chiasm.studies.budget import equal_within

if TYPE_CHECKING:
    from chiasm.studies.report import ArmRow
    from chiasm.studies.worth import DataAnswer

MARKS = ("blind", "shuffled", "commonest", "copying")  # controls that are drawn
ROW, NAME, RIGHT = 34, 190, 880


def dots(rows: Sequence[ArmRow], baseline: str) -> Markup:
    """Every arm's scores by seed, its interval and its controls; a line through all is the baseline's mean."""
    values = [
        v
        for row in rows
        for v in (*row.scores, row.low, row.high, *map(row.controls.get, MARKS))
        if v is not None
    ]
    axis = Axis.over(values, NAME, RIGHT)
    height = ROW * len(rows) + 46
    foot = height - 30
    parts = [
        f'<path class="grid" d="M{axis(t):.1f} 8V{foot}"/>'
        f'<text class="tick" x="{axis(t):.1f}" y="{foot + 18}" text-anchor="middle">{100 * t:.0f} %</text>'
        for t in axis.ticks()
    ]
    reference = next(row.score for row in rows if row.name == baseline)
    parts.append(f'<path class="reference" d="M{axis(reference):.1f} 8V{foot}"/>')
    for index, row in enumerate(rows):
        y = 24 + ROW * index
        kind = "base" if row.name == baseline else "arm"
        parts.append(
            f'<text class="name" x="{NAME - 14}" y="{y + 4}" text-anchor="end">{escape(row.name)}</text>'
        )
        parts.append(f'<path class="interval {kind}" d="M{axis(row.low):.1f} {y}H{axis(row.high):.1f}"/>')
        parts += [_mark(name, axis(row.controls[name]), y) for name in MARKS if name in row.controls]
        parts += [
            f'<circle class="dot {kind}" cx="{axis(score):.1f}" cy="{y}" r="4.5">'
            f"<title>{escape(row.name)}: {100 * score:.1f} %</title></circle>"
            for score in row.scores
        ]
    return _svg(900, height, "Scores of all arms by seed, with intervals and controls", parts)


def legend(name: str) -> Markup:
    """One mark of `dots`, for its legend."""
    marks = {
        "seed": '<circle class="dot arm" cx="13" cy="9" r="4.5"/>',
        "interval": '<path class="interval arm" d="M2 9H24"/>',
    }
    return Markup(
        f'<svg class="key" viewBox="0 0 26 18" aria-hidden="true">{marks.get(name) or _mark(name, 13, 9)}</svg>'
    )


def curve(answer: DataAnswer, unit: str) -> Markup:
    """An arm over amounts of data, and what it stands beside: seeds as dots, lines with their bands."""
    curves = [answer.curve] if answer.reference is None else [answer.reference, answer.curve]
    kinds = ["base", "arm"][: len(curves)]
    shares = [float(v) for c in curves for v in (*c.low, *c.high, *c.scores.ravel())]
    sizes = curves[0].sizes
    across = Axis(float(np.log2(sizes[0])), float(np.log2(sizes[-1])), 44, 268)
    up = Axis.over(shares, 150, 30)
    parts = [f'<text class="name" x="44" y="16">{escape(answer.arm)}</text>']
    parts += [
        f'<path class="grid" d="M44 {up(t):.1f}H276"/>'
        f'<text class="tick" x="38" y="{up(t) + 4:.1f}" text-anchor="end">{100 * t:.0f}</text>'
        for t in up.ticks(4)
    ]
    x = [across(float(np.log2(size))) for size in sizes]
    parts += [
        f'<text class="tick" x="{place:.1f}" y="168" text-anchor="middle">{big(size)}</text>'
        for place, size in zip(x, sizes, strict=True)
    ]
    parts.append(f'<text class="tick" x="160" y="184" text-anchor="middle">{escape(unit)}</text>')
    for kind, each in zip(kinds, curves, strict=True):
        low, high, line = ([up(float(v)) for v in values] for values in (each.low, each.high, each.line))
        parts.append(f'<path class="band {kind}" d="{_path(x + x[::-1], high + low[::-1])}Z"/>')
        parts.append(f'<path class="line {kind}" d="{_path(x, line)}"/>')
        parts += [
            f'<circle class="dot {kind}" cx="{place:.1f}" cy="{up(float(score)):.1f}" r="2.8"/>'
            for seed in each.scores
            for place, score in zip(x, seed, strict=True)
        ]
    return _svg(290, 190, f"{answer.arm} over amounts of data", parts)


def pareto(rows: Sequence[ArmRow], cost: str, baseline: str) -> Markup | None:
    """Scores against a cost; a line joins the arms that none beats in both.

    None where the cost is not known, or is equal in all arms as far as that is asked for (`equal_within`).
    """
    points = [(row, row.costs[cost]) for row in rows if row.costs[cost] > 0]
    if not points or equal_within([value for _, value in points]):
        return None
    logs = [log10(value) for _, value in points]
    spread = max(logs) - min(logs)
    across = Axis(min(logs) - 0.06 * spread, max(logs) + 0.06 * spread, 46, 330)
    up = Axis.over([each for row, _ in points for each in (row.low, row.high)], 212, 34)
    parts = [f'<text class="name" x="46" y="16">{escape(cost)}</text>']
    parts += [
        f'<path class="grid" d="M46 {up(t):.1f}H410"/>'
        f'<text class="tick" x="40" y="{up(t) + 4:.1f}" text-anchor="end">{100 * t:.0f}</text>'
        for t in up.ticks(4)
    ]
    for value, anchor in ((min(v for _, v in points), "start"), (max(v for _, v in points), "end")):
        parts.append(
            f'<text class="tick" x="{across(log10(value)):.1f}" y="232" text-anchor="{anchor}">{big(value)}</text>'
        )
    front = _front([(value, row.score) for row, value in points])
    steps = [(across(log10(value)), up(score)) for value, score in front]
    parts.append(f'<path class="front" d="{_path(*map(list, zip(*steps, strict=True)))}"/>')
    labels: list[tuple[float, float]] = []
    for row, value in sorted(points, key=lambda each: -each[0].score):
        x, y = across(log10(value)), up(row.score)
        kind = "base" if row.name == baseline else "arm"
        parts.append(f'<path class="whisker {kind}" d="M{x:.1f} {up(row.low):.1f}V{up(row.high):.1f}"/>')
        parts.append(f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>')
        label = y + 4
        while any(abs(label - other) < 13 and abs(x - place) < 110 for place, other in labels):
            label += 3
        labels.append((x, label))
        parts.append(f'<text class="label" x="{x + 9:.1f}" y="{label:.1f}">{escape(row.name)}</text>')
    return _svg(430, 240, f"Scores against {cost}", parts)


class Axis:
    """Values from `low` to `high` on pixels from `begin` to `end`."""

    def __init__(self, low: float, high: float, begin: float, end: float):
        self.low, self.high, self.begin, self.end = low, high if high > low else low + 1, begin, end

    @classmethod
    def over(cls, values: Sequence[float], begin: float, end: float) -> Axis:
        """Of shares, with some room at both ends."""
        low, high = min(values), max(values)
        room = 0.06 * (high - low) or 0.05
        return cls(max(0.0, low - room), min(1.0, high + room), begin, end)

    def __call__(self, value: float) -> float:
        return self.begin + (value - self.low) / (self.high - self.low) * (self.end - self.begin)

    def ticks(self, most: int = 7) -> list[float]:
        """Round values, evenly apart."""
        span = self.high - self.low
        unit = 10.0 ** floor(log10(span / most))
        step = next(unit * times for times in (1, 2, 5, 10) if span / (unit * times) <= most)
        first = int(np.ceil(self.low / step - 1e-9))
        return [step * i for i in range(first, int(np.floor(self.high / step + 1e-9)) + 1)]


def big(number: float) -> str:
    """A number with its unit; a cost of nothing, or that was not measured, is a dash."""
    if number == 0:
        return "–"
    for unit, name in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number:.3g}"


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those points than which none is cheaper and better, from the cheapest on."""
    front: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def _mark(name: str, x: float, y: float) -> str:
    forms = {
        "blind": f'<circle cx="{x:.1f}" cy="{y}" r="4"/>',
        "shuffled": f'<path d="M{x:.1f} {y - 5}L{x + 5:.1f} {y}L{x:.1f} {y + 5}L{x - 5:.1f} {y}Z"/>',
        "commonest": f'<path d="M{x:.1f} {y - 8}V{y + 8}"/>',
        "copying": f'<path d="M{x - 4:.1f} {y - 4}H{x + 4:.1f}V{y + 4}H{x - 4:.1f}Z"/>',
    }
    return f'<g class="control"><title>{name}</title>{forms[name]}</g>'


def _path(x: Sequence[float], y: Sequence[float]) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))


def _svg(width: int, height: int, label: str, parts: Sequence[str]) -> Markup:
    body = "".join(parts)
    return Markup(f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{body}</svg>')
