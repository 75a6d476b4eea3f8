"""Masked codes among the words of the language model: what stands in a picture's block, and what predicts it."""

import pytest
import torch
from torch.nn import functional
from writing import Vocabulary, written
from writing import head as built

from chiasm.nn.generators import Generators
from chiasm.sequence import IGNORE

CODES, MASK = 4, 4  # codes are the ids 6 to 9, the mask is 10
MARKERS = {"before": [1, 2], "before_read": [3], "behind": [5]}


def head(**options):
    own = {"first": 6} | {key: options.pop(key) for key in ("first", "against") if key in options}
    spec = {"type": "masked", "cells": False, "alphabet": {"type": "shared", **own}, **options}
    return built(spec, 12, CODES, (2, 3), vocabulary=Vocabulary())


def test_codes_and_mask_are_ids_of_the_language_model_and_weights_are_its_own():
    made = head()
    assert list(made.reserved) == [6, 7, 8, 9, 10]
    assert list(made.parameters()) == []
    assert made.standalone()["alphabet"]["first"] == 6
    grown = head(first=None)
    assert list(grown.reserved) == [7, 8, 9, 10, 11]


def test_markers_stand_in_the_pictures_block_and_predict_nothing():
    made = head(**MARKERS)
    written, read = made.layout(), made.read_layout()
    assert written.opens == (True,) + (False,) * 8
    assert written.rows == (2, 3, 4, 5, 6, 7)
    assert read.opens == (True,) + (False,) * 7
    assert (written.exposed, read.exposed) == ((True,) * 9, (True,) * 8)
    bare = head()
    assert bare.layout() == bare.read_layout()
    assert (bare.layout().length, bare.layout().rows) == (6, (0, 1, 2, 3, 4, 5))


def test_the_language_models_rows_embed_codes_mask_and_markers():
    made, codes = head(**MARKERS), torch.tensor([[[0, 1, 2], [3, 0, 1]]])
    table = made.alphabet.words.vocabulary.table.weight
    shown = [3, 6, 7, 8, 9, 6, 7, 5]
    assert torch.equal(made.embed_read(codes)[0], table[shown])
    span = made.prepare(codes)
    hidden = (span.targets[0] != IGNORE).tolist()
    ids = [
        1,
        2,
        *(10 if masked else 6 + code for masked, code in zip(hidden, [0, 1, 2, 3, 0, 1], strict=True)),
        5,
    ]
    assert torch.equal(span.embeddings[0], table[ids])


@pytest.mark.parametrize(("against", "ids"), [("vocabulary", slice(0, 12)), ("codes", slice(6, 10))])
def test_a_code_is_told_from_the_whole_vocabulary_or_from_codes_never_from_the_mask(against, ids):
    made = head(against=against)
    span = made.prepare(torch.tensor([[[0, 1, 2], [3, 0, 1]], [[3, 3, 3], [0, 1, 2]]]))
    hidden = torch.randn(2, 6, 12)
    expected = sum(
        functional.cross_entropy(
            hidden[i][span.targets[i] != IGNORE][:, ids],
            span.targets[i][span.targets[i] != IGNORE] + 6 - ids.start,
        )
        for i in range(2)
    )
    loss = made.losses(hidden, span)["image"]
    assert loss.count == 2
    torch.testing.assert_close(loss.sum, expected)


def test_without_an_option_a_code_is_told_from_the_whole_vocabulary():
    assert head().alphabet.against == "vocabulary"


class Script:
    """Hidden states, which are logits here, at every position of the block."""

    def __init__(self, logits):
        self.logits, self.start = logits, logits[:, 0]

    def __call__(self, ask):
        assert ask.embeddings.shape[1] == self.logits.shape[1]
        return self.logits


def test_only_cells_are_drawn_and_neither_word_nor_mask_is():
    made = head(**MARKERS, steps=3)
    logits = torch.zeros(2, 9, 12)
    logits[..., :6] = logits[..., 10:] = 50  # words and the mask would be by far the likeliest
    logits[0, torch.arange(2, 8), torch.tensor([6, 7, 8, 9, 6, 7])] = 40
    logits[1, torch.arange(2, 8), torch.tensor([9, 9, 8, 8, 7, 7])] = 40
    codes = written(made, Script(logits), Generators([1, 2]), temperature=1.0)
    assert codes.tolist() == [[[0, 1, 2], [3, 0, 1]], [[3, 3, 2], [2, 1, 1]]]
