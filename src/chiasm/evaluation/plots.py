"""Small SVG drawings of the report: scores with their controls, and curves. Colours come from the style sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape

WIDTH, HEIGHT = 300, 120
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 8, 20
POINTS = 240  # of a curve; more lines of a log are averaged
SMOOTH = 0.08  # share of a curve that its running mean spans


def score_plot(scores: Mapping[str, Any]) -> Markup:
    """A score with its interval on a line from 0 to 1; controls as hollow marks, the commonest answer as a tick."""
    low, high = scores["ci"]
    parts = ['<path class="axis" d="M4 14H204"/>']
    parts += [f'<path class="grid" d="M{_x(share):.1f} 6V22"/>' for share in (0, 0.25, 0.5, 0.75, 1)]
    if "commonest" in scores:
        parts.append(f'<path class="commonest" d="M{_x(scores["commonest"]):.1f} 7V21"/>')
    if "shuffled" in scores:
        x = _x(scores["shuffled"])
        parts.append(
            f'<path class="shuffled" d="M{x:.1f} 9.4L{x + 4.6:.1f} 14L{x:.1f} 18.6L{x - 4.6:.1f} 14Z"/>'
        )
    if "blind" in scores:
        parts.append(f'<circle class="blind" cx="{_x(scores["blind"]):.1f}" cy="14" r="3.6"/>')
    parts.append(f'<path class="interval" d="M{_x(low):.1f} 14H{_x(high):.1f}"/>')
    parts.append(f'<circle class="score" cx="{_x(scores["score"]):.1f}" cy="14" r="4.4"/>')
    label = f"score {scores['score']:.1%}, 95% interval {low:.1%} to {high:.1%}"
    return Markup(
        f'<svg class="dots" viewBox="0 0 208 28" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    )


def legend_mark(kind: str) -> Markup:
    """One mark of `score_plot`, for its legend."""
    marks = {
        "score": '<path class="interval" d="M1 8H23"/><circle class="score" cx="12" cy="8" r="4.4"/>',
        "blind": '<circle class="blind" cx="12" cy="8" r="3.6"/>',
        "shuffled": '<path class="shuffled" d="M12 3.4L16.6 8L12 12.6L7.4 8Z"/>',
        "commonest": '<path class="commonest" d="M12 1V15"/>',
    }
    return Markup(f'<svg class="mark" viewBox="0 0 24 16" aria-hidden="true">{marks[kind]}</svg>')


def curve(name: str, steps: Sequence[float], values: Sequence[float]) -> Markup:
    """One quantity over the steps of a stage: the values pale, their running mean strong."""
    x, y = _thinned(np.asarray(steps, dtype=float), np.asarray(values, dtype=float))
    low, high = _range(y)
    wide = max(x[-1] - x[0], 1e-9)
    across = LEFT + (x - x[0]) / wide * (WIDTH - LEFT - RIGHT)

    def down(value: np.ndarray | float) -> Any:
        return TOP + (high - np.clip(value, low, high)) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in (low, (low + high) / 2, high):
        at = float(down(tick))
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 6}" y="{at + 3.5:.1f}" text-anchor="end">{number(tick)}</text>'
        )
    for tick, anchor, at in ((steps[0], "start", LEFT), (steps[-1], "end", WIDTH - RIGHT)):
        parts.append(
            f'<text class="tick" x="{at}" y="{HEIGHT - 5}" text-anchor="{anchor}">{number(tick)}</text>'
        )
    parts.append(f'<path class="raw" d="{_path(across, down(y))}"/>')
    parts.append(f'<path class="mean" d="{_path(across, down(_running_mean(y)))}"/>')
    label = escape(f"{name}: from {number(y[0])} to {number(y[-1])}")
    body = "".join(parts)
    return Markup(
        f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{body}</svg>'
    )


def scatter(points: Sequence[tuple[str, float, float]], across: str, up: str) -> Markup:
    """Named points on a logarithmic axis and a plain one, as an SVG with colours of its own that stands alone."""
    width, height, left, right, top, bottom = 640, 360, 56, 130, 16, 44
    x = np.log2(np.maximum([each[1] for each in points], 1.0))
    y = np.asarray([each[2] for each in points], dtype=float)
    x_low, x_high = np.floor(x.min()), max(np.ceil(x.max()), np.floor(x.min()) + 1)
    margin = max(float(np.ptp(y)) * 0.15, 0.25)
    y_low, y_high = y.min() - margin, y.max() + margin
    at_x = left + (x - x_low) / (x_high - x_low) * (width - left - right)
    at_y = top + (y_high - y) / (y_high - y_low) * (height - top - bottom)
    foot, end = height - bottom, width - right
    parts = [f'<rect width="{width}" height="{height}" fill="#fff"/>']
    for tick in range(int(x_low), int(x_high) + 1):
        place = left + (tick - x_low) / (x_high - x_low) * (width - left - right)
        parts.append(f'<path d="M{place:.1f} {top}V{foot}" stroke="#e4e1d8"/>')
        parts.append(f'<text x="{place:.1f}" y="{foot + 16}" text-anchor="middle">{number(2.0**tick)}</text>')
    for tick in np.linspace(y_low, y_high, 5):
        place = top + (y_high - tick) / (y_high - y_low) * (height - top - bottom)
        parts.append(f'<path d="M{left} {place:.1f}H{end}" stroke="#e4e1d8"/>')
        parts.append(f'<text x="{left - 8}" y="{place + 4:.1f}" text-anchor="end">{tick:.1f}</text>')
    parts.append(
        f'<text x="{(left + end) / 2}" y="{height - 8}" text-anchor="middle">{escape(across)}</text>'
    )
    middle = (top + foot) / 2
    parts.append(
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{escape(up)}</text>'
    )
    for (name, _, _), px, py in zip(points, at_x, at_y, strict=True):
        parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="5" fill="#14676f"/>')
        parts.append(f'<text class="name" x="{px + 9:.1f}" y="{py + 4:.1f}">{escape(name)}</text>')
    style = "text{font:12px sans-serif;fill:#5f6670}.name{fill:#20242a}"
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(up)} against {escape(across)}"><style>{style}</style>{"".join(parts)}</svg>'
    )


def number(value: float) -> str:
    """A number with as many digits as a reader wants: 12,300,000 is 12.3M."""
    size = abs(value)
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.3g}{unit}"
    if size >= 100 or (value == int(value) and size < 1e4):
        return f"{value:,.0f}"
    return f"{value:.3g}" if size >= 1e-3 else f"{value:.1e}".replace("e-0", "e-")


def _x(share: float) -> float:
    return 4 + 200 * min(1.0, max(0.0, share))


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of as many neighbours as it takes to have few enough points; the last of them may lack some."""
    each = -(-len(x) // POINTS)
    starts = np.arange(0, len(x), each)
    counts = np.diff(np.append(starts, len(x)))
    return np.add.reduceat(x, starts) / counts, np.add.reduceat(y, starts) / counts


def _range(y: np.ndarray) -> tuple[float, float]:
    """What the axis spans: everything but outliers, such as the first losses of a run."""
    low, high = float(y.min()), float(np.percentile(y, 98) if len(y) > 20 else y.max())
    if high - low < 1e-12:
        margin = abs(high) * 0.1 or 1.0
        return low - margin, high + margin
    return low, high


def _running_mean(y: np.ndarray) -> np.ndarray:
    radius = max(1, int(len(y) * SMOOTH / 2))
    sums = np.concatenate([[0.0], y.cumsum()])
    ends = np.minimum(np.arange(len(y)) + radius + 1, len(y))
    begins = np.maximum(np.arange(len(y)) - radius, 0)
    return (sums[ends] - sums[begins]) / (ends - begins)


def _path(x: np.ndarray, y: np.ndarray) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))
