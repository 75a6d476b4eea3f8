"""Who answers to whom at the least cost in all (Kuhn 1955, by shortest augmenting paths)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def assign(costs: Float[np.ndarray, "rows columns"]) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]:
    """Pairs of a row and a column, each at most once and as many as there can be, in the order of the rows."""
    if costs.shape[0] > costs.shape[1]:
        columns, rows = assign(costs.T)
        order = rows.argsort()
        return rows[order], columns[order]
    rows, columns = costs.shape
    row_price, column_price = np.zeros(rows), np.zeros(columns + 1)
    owner = np.full(columns + 1, -1)  # of each column; the last one is where a path begins
    for row in range(rows):
        owner[columns], current = row, columns
        distance, reached_from = np.full(columns, np.inf), np.full(columns, columns)
        done = np.zeros(columns + 1, dtype=bool)
        while owner[current] >= 0:
            done[current] = True
            i = owner[current]
            reduced = costs[i] - row_price[i] - column_price[:columns]
            nearer = ~done[:columns] & (reduced < distance)
            distance[nearer], reached_from[nearer] = reduced[nearer], current
            following = int(np.where(done[:columns], np.inf, distance).argmin())
            step = distance[following]
            row_price[owner[done]] += step
            column_price[done] -= step
            distance[~done[:columns]] -= step
            current = following
        while current != columns:
            before = int(reached_from[current])
            owner[current] = owner[before]
            current = before
    taken = np.flatnonzero(owner[:columns] >= 0)
    order = owner[taken].argsort()
    return owner[taken][order], taken[order]
