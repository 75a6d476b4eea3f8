"""Codes as ids of a language model: which ids, and what they are embedded and predicted by."""

import pytest
import torch
from writing import Vocabulary, head

from chiasm.errors import RecipeError


def words(count, **options):
    spec = {"type": "raster", "cells": False, "alphabet": {"type": "shared", **options}}
    return head(spec, 12, count, (1, 2), vocabulary=Vocabulary()).alphabet.words


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ({"first": 0}, [0, 1, 2]),
        ({"first": 9}, [9, 10, 11]),  # the language model's last
        ({"table": [11, 0, 5]}, [11, 0, 5]),
        ({}, [9, 10, 11]),  # new ones behind the others
    ],
)
def test_codes_are_embedded_and_predicted_by_the_rows_of_their_ids(options, ids):
    codes = torch.tensor([[2, 0], [1, 1]])
    made = words(3, **options)
    table = made.vocabulary.table.weight
    assert list(made.ids) == ids
    assert made(codes).tolist() == [[ids[2], ids[0]], [ids[1], ids[1]]]
    assert torch.equal(made.embed(codes), table[torch.tensor(ids)[codes]])
    hidden = torch.randn(2, 12)  # the logits of this language model
    assert torch.equal(made.logits(hidden, 3), hidden[:, ids])


def test_there_may_be_one_code_alone():
    assert words(1, first=4)(torch.tensor([0, 0])).tolist() == [4, 4]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (
            {"first": 10},
            r"alphabet 'shared': codes stand at the ids 10 to 12, .* model has the ids 0 to 11",
        ),
        ({"first": -1}, r"codes stand at the ids -1 to 1"),
        ({"table": [0, 12, 3]}, r"codes stand at the ids 0 to 12"),
        ({"table": [4, 4, 5]}, r"the table has 2 different ids, but there are 3 codes"),
        ({"table": [4, 4, 5, 6]}, r"the table has 3 different ids, but there are 3 codes"),
        ({"table": [4, 5]}, r"the table has 2 different ids, but there are 3 codes"),
        ({"table": [4, 5, 6], "first": 0}, r"give either 'first' or 'table', not both"),
    ],
)
def test_ids_that_do_not_fit_are_refused(options, error):
    with pytest.raises(RecipeError, match=error):
        words(3, **options)
