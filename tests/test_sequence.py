"""Documents and packing."""

import pytest
import torch

from chiasm.data.files import PictureInMemory
from chiasm.errors import DataError
from chiasm.sequence import IGNORE, PADDING, Document, Kind, Packer, fill, pack


def text(name: str, length: int, first: int = 1) -> Document:
    made = Document(name)
    made.add_text(range(first, first + length), learn=False)
    return made


def test_labels_are_shifted_and_only_what_is_learnt_has_one():
    made = Document("x")
    made.add_text([5, 6], learn=False)
    made.add_text([7, 8], learn=True)
    assert made.labels == [IGNORE, 7, 8, IGNORE]


def test_a_label_never_reaches_into_the_next_document():
    learnt = Document("y")
    learnt.add_text([7, 8], learn=True)  # nothing stands before the 7, so nothing predicts it
    batch, _ = pack([[text("x", 3), learnt]])
    assert batch.labels.tolist() == [[IGNORE, IGNORE, IGNORE, 8, IGNORE]]


def test_positions_restart_and_padding_belongs_to_no_document():
    batch, _ = pack([[text("a", 2), text("b", 3)], [text("c", 1)]], length=6)
    assert batch.positions.tolist() == [[0, 1, 0, 1, 2, 0], [0] * 6]
    assert batch.documents.tolist() == [[0, 0, 1, 1, 1, PADDING], [0] + [PADDING] * 5]
    assert batch.real == 6


def test_first_fit_within_tokens_and_pictures(picture):
    packer = Packer(rows=2, length=10, pictures=1)
    seen = text("seen", 2)
    seen.add_picture(picture, Kind.READ, 0, [True] * 2, [True] * 2)
    assert packer.offer(seen)
    assert packer.offer(seen)  # its row would hold two pictures, so it goes to the next
    assert packer.offer(text("a", 6))
    assert [[document.name for document in row] for row in packer.rows] == [["seen", "a"], ["seen"]]
    assert not packer.offer(seen)
    assert not packer.offer(text("b", 7))


def test_a_document_longer_than_a_row_is_an_error_that_names_it():
    with pytest.raises(DataError, match="sample 3 has 11 tokens but a row holds 10"):
        Packer(rows=1, length=10).offer(text("sample 3", 11))


def test_a_document_longer_than_the_context_is_an_error_that_names_it():
    with pytest.raises(DataError, match="sample 3 has 11 tokens but the context is 8"):
        text("sample 3", 11).check(8)


def test_picture_positions_must_be_filled(picture):
    made = text("sample 4", 2)
    made.add_picture(picture, Kind.READ, 0, [True] * 3, [True] * 3)
    made.slots.clear()
    with pytest.raises(DataError, match="sample 4 has 3 image positions but its pictures fill 0"):
        made.check(100)


def test_slots_come_with_their_flat_start(picture):
    seen = text("seen", 2)
    seen.add_picture(picture, Kind.READ, 0, [True] * 3, [True] * 3)
    _, slots = pack([[text("a", 4)], [text("b", 1), seen]], length=8)
    assert [(start, slot.length) for start, slot in slots] == [(8 + 1 + 2, 3)]


def test_fill_puts_values_at_flat_places():
    filled = fill(torch.zeros(2, 3, 1), torch.tensor([1, 5]), torch.tensor([[7.0], [8.0]]))
    assert filled.flatten().tolist() == [0, 7, 0, 0, 0, 8]


@pytest.fixture
def picture():
    from PIL import Image

    return PictureInMemory(Image.new("RGB", (4, 4)))
