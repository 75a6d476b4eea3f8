from itertools import permutations

import numpy as np
import pytest

from chiasm.nn.assignment import assign


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (4, 4), (5, 2), (3, 0), (0, 3)])
@pytest.mark.parametrize("whole", [False, True])
def test_no_other_pairs_cost_less(shape, whole):
    draw = np.random.RandomState(sum(shape) + whole)
    for _ in range(20):
        costs = draw.randint(-2, 3, shape).astype(float) if whole else draw.randn(*shape)
        rows, columns = assign(costs)
        assert len(rows) == len(set(rows)) == len(set(columns)) == min(shape)
        few, many = sorted(shape)
        table = costs if shape[0] <= shape[1] else costs.T
        least = min(sum(table[i, each[i]] for i in range(few)) for each in permutations(range(many), few))
        assert costs[rows, columns].sum() == pytest.approx(least)
