"""How written images stand in the sequence, and which alphabets an order may hold."""

import pytest

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
