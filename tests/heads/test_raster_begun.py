"""An image that begins with a symbol of its own: what stands where, what predicts what, and what strays become."""

import pytest
import torch
from writing import Recorded, written
from writing import head as built

WIDTH, CODES, GRID = 16, 5, (2, 3)


def head(**alphabet):
    torch.manual_seed(0)
    return built({"type": "raster_begun", "alphabet": {"type": "tied", **alphabet}}, WIDTH, CODES, GRID)


class Echo:
    """A language model whose hidden state is the embedding of what comes next in a known image."""

    def __init__(self, order, codes, rows=2):
        self.order, self.codes, self.read = order, codes, 0
        self.start = torch.zeros(rows, WIDTH)
        self.asked = []

    def __call__(self, ask):
        self.asked.append(ask.embeddings)
        count = ask.embeddings.shape[1]
        self.read += count
        return 100 * self.order.alphabet.embed(self.codes[:, self.read - count : self.read])


def test_every_position_has_the_cell_that_it_predicts():
    layout = head().layout()
    assert layout.rows == (0, 1, 2, 3, 4, 5)
    assert layout.coordinates[:6] == tuple((3 * r + c, r, c) for r in range(2) for c in range(3))
    assert layout.coordinates[6] == (6, 2, 0)  # behind the last code nothing is predicted
    assert layout.opens == layout.exposed == (True,) * 7  # causal, the symbol included


def test_the_symbol_stands_first_and_the_codes_behind_it():
    order, codes = head(), torch.randint(CODES, (2, *GRID))
    span = order.prepare(codes)
    assert torch.equal(span.embeddings[:, 0], order.alphabet.table.weight[:1].expand(2, -1))
    assert torch.equal(span.embeddings[:, 1:], order.alphabet.embed(codes.flatten(1)))
    assert torch.equal(span.targets, codes.flatten(1))


def test_what_is_drawn_was_asked_for_with_what_training_reads():
    order, codes = head(), torch.randint(CODES, (2, *GRID))
    echo = Echo(order, codes.flatten(1))
    assert torch.equal(written(order, echo), codes)
    assert torch.equal(torch.cat(echo.asked, 1), order.prepare(codes).embeddings[:, :-1])


def test_a_drawing_that_was_stopped_goes_on():
    order, codes = head(), torch.randint(CODES, (2, *GRID))
    progress = Recorded([0, 1], stop=3)
    with pytest.raises(KeyboardInterrupt):
        written(order, Echo(order, codes.flatten(1)), progress.generators, progress)
    assert progress.values.shape == (2, 3)
    progress.stop = None
    assert torch.equal(written(order, Echo(order, codes.flatten(1)), progress=progress), codes)


def test_rows_that_are_no_codes_become_the_nearest():
    order = head(rows=9, stray=True)
    assert order.target_of(torch.tensor([[0, 4, 5, 6, 7, 8]])).tolist() == [[0, 4, 0, 0, 4, 4]]


def test_an_image_with_nothing_before_it_is_learnt_whole():
    order, codes = head(), torch.randint(CODES, (2, *GRID))
    span = order.prepare(codes)._replace(orphans=torch.tensor([True, False]))
    assert order.losses(torch.randn(2, 6, WIDTH), span)["image"].count == 12
