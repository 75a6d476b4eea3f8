"""How often the 95 % interval of a score holds the truth, by simulation: the table of docs/evaluation.md.

    python benchmarks/coverage.py            # about a minute; prints the table as Markdown
    python benchmarks/coverage.py --json     # every cell

Each cell draws many evaluations of a known truth: pictures with 3 to 9 questions each, of which a share
is right, and answers about one picture correlate. Two kinds of dependence are met: `graded`, where each
picture has a difficulty of its own (right answers are beta-binomial), and `whole`, where some are right or
wrong in all their questions and in the others the questions are independent.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Int

from chiasm.evaluation.statistics import interval

CLUSTERS = (20, 50, 128, 300)
SHARES = (0.02, 0.1, 0.5, 0.9, 0.98, 0.995)
CORRELATIONS = (0.0, 0.05, 0.3)
DEPENDENCE = ("graded", "whole")
QUESTIONS = (3, 9)  # fewest and most about one picture
TOGETHER = 100  # simulations that fit the processor's cache


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--simulations", type=int, default=2000, help="of each cell")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--json", action="store_true", help="print data")
    given = arguments.parse_args()
    cells = [
        {"dependence": kind, "clusters": clusters, "share": share, "correlation": correlation}
        for kind, correlation, clusters, share in product(DEPENDENCE, CORRELATIONS, CLUSTERS, SHARES)
        if kind == DEPENDENCE[0] or correlation > 0  # without any they are the same
    ]
    for number, cell in enumerate(cells):
        random = np.random.default_rng([given.seed, number])
        cell |= coverage(random, given.simulations, **cell)
    print(json.dumps(cells, indent=1) if given.json else table(cells, given.simulations))


def coverage(
    random: np.random.Generator,
    simulations: int,
    *,
    dependence: str,
    clusters: int,
    share: float,
    correlation: float,
) -> dict[str, float]:
    """Share of the intervals that hold the truth, and their mean width."""
    ends = []
    for _ in range(simulations // TOGETHER):
        right, asked = draw(random, (TOGETHER, clusters), dependence, share, correlation)
        ends.append(interval(right.astype(float), asked.astype(float)))
    low, high = np.concatenate(ends, axis=1)
    return {
        "coverage": float(((low <= share) & (share <= high)).mean()),
        "width": float((high - low).mean()),
    }


def draw(
    random: np.random.Generator, shape: tuple[int, int], dependence: str, share: float, correlation: float
) -> tuple[Int[np.ndarray, "s k"], Int[np.ndarray, "s k"]]:
    """Right answers and questions of each picture."""
    asked = random.integers(QUESTIONS[0], QUESTIONS[1] + 1, size=shape)
    if correlation == 0:
        return random.binomial(asked, share), asked
    if dependence == "whole":
        whole = random.random(shape) < correlation
        return np.where(whole, asked * (random.random(shape) < share), random.binomial(asked, share)), asked
    strength = (1 - correlation) / correlation
    return random.binomial(asked, random.beta(share * strength, (1 - share) * strength, size=shape)), asked


def table(cells: Sequence[dict[str, Any]], simulations: int) -> str:
    """Coverage in per cent, a row for each dependence, correlation and number of pictures."""
    lines = [
        "| dependence | correlation | pictures | "
        + " | ".join(f"{share:.1%} right" for share in SHARES)
        + " |",
        "|---|---:|---:|" + "---:|" * len(SHARES),
    ]
    rows: dict[tuple[Any, ...], list[float]] = {}
    for cell in cells:
        key = (cell["dependence"], cell["correlation"], cell["clusters"])
        rows.setdefault(key, []).append(cell["coverage"])
    for (kind, correlation, clusters), found in rows.items():
        name = "none" if correlation == 0 else kind
        figures = " | ".join(f"{100 * each:.1f}" for each in found)
        lines.append(f"| {name} | {correlation:g} | {clusters} | {figures} |")
    least = min(cell["coverage"] for cell in cells)
    lines += ["", f"{simulations:,} simulations a cell; the least is {least:.1%}."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
