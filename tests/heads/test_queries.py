"""Queries of which the first is the marker that begins an image."""

import pytest
import torch

from chiasm import parts
from chiasm.errors import RecipeError
from chiasm.heads import Ask, HeadContext, Sampling, Span, finish
from chiasm.heads.building import build_head
from chiasm.tokenizers.spaces import Vectors

WIDTH = 6


class Vocabulary:
    vocabulary_size = 9

    def __init__(self):
        self.table = torch.arange(9.0)[:, None].expand(9, WIDTH)

    def embed(self, ids):
        return self.table[ids]


class Decoder:
    caption_words = 0

    def losses(self, target, pixels):
        raise AssertionError("not asked")


def queries(**options):
    torch.manual_seed(0)
    context = HeadContext(WIDTH, Vectors((0, 0), WIDTH), Vocabulary(), decoder=Decoder())
    alphabet = {"type": "condition", "depth": 0}
    spec = {"type": "queries", "alphabet": alphabet, "grid": [1, 4], "from_marker": True, **options}
    return build_head(parts.check("order", spec, "heads"), context)


def test_the_marker_is_read_but_fills_no_position():
    layout = queries().layout()
    assert layout.length == 3
    assert layout.rows == (-1, 0, 1, 2)


def test_what_is_drawn_are_the_hidden_states_of_the_marker_and_of_the_queries_with_their_words():
    head = queries(words=[8, 2, 5, 2], with_words=True)
    start, hidden = torch.rand(1, WIDTH), torch.rand(1, 3, WIDTH)
    asked: list[Ask] = []

    def read(ask):
        asked.append(ask)
        return hidden

    drawn = finish(head.write(start, Sampling()), read)
    torch.testing.assert_close(asked[0].embeddings, Vocabulary().embed(torch.tensor([[2, 5, 2]])))
    expected = torch.cat([start[:, None], hidden], 1) + torch.tensor([8.0, 2.0, 5.0, 2.0])[None, :, None]
    torch.testing.assert_close(drawn, expected[:, None])


def test_an_image_without_a_marker_before_it_reads_nothing_of_its_neighbour():
    head = queries()
    seen = []
    head.alphabet.image_losses = lambda hidden, targets, sources, words: seen.append(hidden)
    hidden = torch.rand(2, 4, WIDTH)
    for orphans in (None, torch.tensor([True, False])):
        head.losses(hidden, Span(torch.zeros(2, 3, WIDTH), None, orphans))
    torch.testing.assert_close(seen[0], head.bridged(hidden))
    torch.testing.assert_close(seen[1][1], seen[0][1])
    alone = torch.cat([torch.zeros(1, 1, WIDTH), hidden[:1, 1:]], 1)
    torch.testing.assert_close(seen[1][:1], head.bridged(alone))


def test_text_may_hold_the_marker_and_a_word_that_stands_at_several_queries():
    assert list(queries(words=[8, 2, 5, 2]).reserved) == [5]


def test_learnt_queries_stand_at_the_positions_and_at_the_marker_where_they_are_added():
    assert len(queries().queries) == 3
    assert len(queries(with_words=True).queries) == 4


def test_a_marker_alone_is_refused():
    with pytest.raises(RecipeError, match="from_marker needs queries behind the marker"):
        queries(grid=[1, 1])
