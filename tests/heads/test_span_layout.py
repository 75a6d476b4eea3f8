"""How written images stand in the sequence, and which alphabets an order may hold."""

import pytest
from writing import head

from chiasm import parts
from chiasm.heads.layout import SpanLayout


@pytest.mark.parametrize(("words", "rows", "follows"), [(2, (), True), (2, (-1,), False), (0, (), False)])
def test_an_image_follows_words_where_it_is_drawn_of_them_alone(words, rows, follows):
    layout = SpanLayout((True,) * 3, (True,) * 3, rows, ((0, 0, 0),) * 3, words=words)
    assert layout.follows_words is follows
    assert layout.length == 3


@pytest.mark.parametrize(
    ("order", "alphabet", "holds"),
    [
        ("raster", "own", True),
        ("raster", "regression", True),
        ("whole", "own", False),
        ("whole", "regression", True),
        ("scales", "regression", False),
    ],
)
def test_an_order_holds_the_alphabets_of_a_space_that_both_write(order, alphabet, holds):
    held = parts.lookup("alphabet", alphabet)
    assert parts.lookup("order", order).can_hold(held) is holds


def test_a_masked_image_stands_cell_by_cell_to_its_last():
    layout = head({"type": "masked", "alphabet": {"type": "own"}}, 16, 5, (2, 3)).layout()
    cells = [coordinates[1:] for coordinates in layout.coordinates[-6:]]
    assert cells == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
