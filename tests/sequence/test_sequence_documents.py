"""What is put into documents besides words and images, and what of a document is a document of its own."""

import pytest
import torch
from PIL import Image

from chiasm.data.files import PictureInMemory
from chiasm.errors import DataError
from chiasm.sequence import IGNORE, Document, Kind, pack


@pytest.fixture
def picture():
    return PictureInMemory(Image.new("RGB", (4, 4)))


def asked_for_masks(picture) -> Document:
    """One word, an image of three positions, a question of two words, masks of two positions."""
    document = Document("asked")
    document.add_text([1], learn=False)
    document.add_picture(picture, Kind.READ, 9, [True] * 3, [True] * 3)
    document.add_text([2, 3], learn=False)
    document.add_masks("masks", 8, 2)
    return document


def test_masks_are_causal_positions_that_know_their_image_and_where_their_question_begins(picture):
    document = asked_for_masks(picture).check(8)
    image, masks = document.slots
    assert (masks.picture, masks.kind, masks.masks) == (picture, Kind.WRITTEN, "masks")
    assert (masks.start, masks.length, masks.question) == (6, 2, 2)
    assert (image.masks, image.question) == (None, 0)
    assert document.ids == [1, 9, 9, 9, 2, 3, 8, 8]
    assert document.kinds[-2:] == [Kind.WRITTEN] * 2
    assert document.labels == [IGNORE] * 8
    assert document.opens == document.exposed == [True] * 8


def test_masks_are_of_the_last_image(picture):
    other = PictureInMemory(Image.new("RGB", (2, 2)))
    document = asked_for_masks(picture)
    document.add_picture(other, Kind.READ, 9, [True], [True])
    document.add_masks("more", 8, 1)
    assert (document.slots[-1].picture, document.slots[-1].question) == (other, 0)


def test_words_of_the_views_are_text_and_fill_no_image_position(picture):
    document = Document("words")
    document.add_picture(picture, Kind.READ, 9, [True, False, False], [True, True, False], words={1: 5})
    (slot,) = document.check(3).slots
    assert (slot.length, slot.words) == (3, 1)
    assert document.ids == [9, 5, 9]
    assert document.kinds == [Kind.READ, Kind.TEXT, Kind.READ]
    assert (document.opens, document.exposed) == ([True, False, False], [True, True, False])
    document.slots[0] = slot.__class__(picture, Kind.READ, 0, 3)  # as if none of its positions held a word
    with pytest.raises(
        DataError, match="words has 2 positions of images and signals, but those that it has fill 3"
    ):
        document.check(3)


def test_joined_positions_are_one_block_in_which_all_see_each_other():
    document = Document("joined")
    document.add_text([1, 2, 3, 4], learn=False)
    document.join(3)
    assert document.opens == [True, False, False, True]
    batch, _ = pack([[document]])
    assert batch.layout.allowed[0].long().tolist() == [[1, 1, 1, 0]] * 3 + [[1] * 4]


def test_what_stands_behind_a_position_is_a_document_whose_images_have_moved(picture):
    document = Document("whole")
    document.add_text([1, 2], learn=True)
    document.add_picture(picture, Kind.READ, 9, [True], [False])
    document.add_text([3], learn=True)
    document.add_picture(picture, Kind.WRITTEN, 8, [True] * 2, [True] * 2, caption=(1, 1))
    behind = document.behind(3)
    assert behind.name == "whole"
    assert (behind.ids, behind.kinds) == ([3, 8, 8], [Kind.TEXT, Kind.WRITTEN, Kind.WRITTEN])
    assert behind.labels == document.labels[3:]
    assert behind.opens == behind.exposed == [True] * 3
    assert [(slot.start, slot.length, slot.caption) for slot in behind.slots] == [(1, 2, (1, 1))]
    assert [slot.start for slot in document.behind(2).slots] == [0, 2]
    assert [slot.start for slot in document.slots] == [2, 4]  # which is left as it was


def test_a_caption_that_is_left_behind_is_none(picture):
    document = Document("captioned")
    document.add_text([1, 2, 3], learn=False)
    document.add_picture(picture, Kind.WRITTEN, 8, [True], [True], caption=(2, 2))
    assert [document.behind(start).slots[0].caption for start in (0, 1, 2)] == [(2, 2), (2, 2), (0, 0)]


def test_what_stands_behind_hidden_words_does_not_see_them():
    document = Document("hidden")
    document.add_text([1], learn=False, exposed=False)
    document.add_text([2], learn=False)
    assert document.exposed == [False, True]
    batch, _ = pack([[document]])
    assert not batch.layout.allowed[0, 1, 0]
    assert torch.equal(batch.layout.allowed[0].diagonal(), torch.tensor([True, True]))
