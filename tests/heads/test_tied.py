"""One table reads and scores: rows of codes, of what an order adds, and of nothing."""

import math

import pytest
import torch
from torch.nn import functional
from writing import head as built

from chiasm.errors import RecipeError

WIDTH, CODES, GRID = 16, 5, (2, 2)


def alphabet(order="raster_begun", **options):
    torch.manual_seed(0)
    return built({"type": order, "alphabet": {"type": "tied", **options}}, WIDTH, CODES, GRID).alphabet


def test_codes_stand_behind_what_an_order_adds_and_every_value_has_a_row_of_its_own():
    tied = alphabet(rows=9)
    values = torch.arange(9)
    assert tied.rows(values).tolist() == [2, 3, 4, 5, 6, 0, 1, 7, 8]
    assert torch.equal(tied.embed(values), tied.table.weight[tied.rows(values)])


def test_a_code_is_scored_by_the_row_that_embeds_it_among_all_rows():
    tied, hidden, values = alphabet(rows=9), torch.randn(3, WIDTH), torch.tensor([0, 4, 2])
    scores = hidden @ tied.table.weight.t() / math.sqrt(WIDTH)
    expected = functional.cross_entropy(scores, values + 2, reduction="sum")
    torch.testing.assert_close(tied.loss(hidden, values), expected)
    torch.testing.assert_close(tied.logits(hidden), scores[:, 2:7])


def test_other_rows_are_drawn_where_the_original_may_and_only_by_an_order_that_takes_them():
    hidden = torch.randn(3, WIDTH)
    stray = alphabet(rows=9, stray=True)
    torch.testing.assert_close(stray.logits(hidden), stray.row_logits(hidden)[:, [2, 3, 4, 5, 6, 0, 1, 7, 8]])
    with pytest.raises(RecipeError, match="alphabet 'tied' has stray words"):
        alphabet("raster", rows=9, stray=True)


def test_the_table_has_as_many_rows_as_are_needed_and_no_fewer():
    assert len(alphabet().table.weight) == 7
    assert len(alphabet("masked").table.weight) == 7  # the mask has row 0 there
    with pytest.raises(RecipeError, match=r"6 rows are too few .*: 7"):
        alphabet(rows=6)
