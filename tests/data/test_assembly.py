"""Images laid out for the encoder, and the rows of the table of tokens that fill their positions."""

import pytest
from PIL import Image

from chiasm.data.assembly import Assembly
from chiasm.data.files import PictureInMemory
from chiasm.sequence import Kind, Slot
from chiasm.views import Size, View


class TwoViews:
    """A large view of two tokens and, of wide pictures, a small one of one, which is read first.

    A marker ends every picture: the first for tall ones, the second for wide ones.
    """

    views, connector, view_words = None, None, ()

    def read_views(self, size, where):
        whole = (View((0, 0, size.width, size.height), Size(8, 8)), 2)
        small = (View((0, 0, 4, 4), Size(4, 4)), 1)
        return [whole, small] if size.width > size.height else [whole]

    def read_order(self, size, where):
        return [2, 0, 1, -2] if size.width > size.height else [1, 0, -1]


def picture(height, width, colour):
    return PictureInMemory(Image.new("RGB", (width, height), colour))


WIDE, TALL = picture(4, 6, "red"), picture(6, 4, "blue")


def slot(image, length):
    return Slot(image, Kind.READ, 0, length)


def test_a_group_holds_the_views_of_one_size_and_each_picture_once():
    assembly = Assembly(TwoViews(), [WIDE, TALL, WIDE])
    assert [(group.tokens, [each for each, _ in group.views]) for group in assembly.groups] == [
        (1, [WIDE]),
        (2, [WIDE, TALL]),
    ]


def test_every_position_finds_its_token_in_the_table_and_the_markers_behind_it():
    # The table: row 0 is the small view of WIDE, 1 and 2 its whole view, 3 and 4 the whole of TALL, then markers.
    assembly = Assembly(TwoViews(), [WIDE, TALL, WIDE])
    for start, image, length in ((10, WIDE, 4), (0, TALL, 3), (20, WIDE, 4)):
        assembly.place(slot(image, length), start)
    images = assembly.images(["small", "whole"], encoded=True)
    assert images.places.tolist() == [10, 11, 12, 13, 0, 1, 2, 20, 21, 22, 23]
    assert images.sources.tolist() == [0, 1, 2, 6, 4, 3, 5, 0, 1, 2, 6]
    assert (images.groups, images.encoded, images.tokens) == (["small", "whole"], True, [1, 2])
    assert images.lengths == [4, 3, 4]


def test_an_image_that_is_read_beside_the_sequence_has_one_position_and_all_of_its_tokens():
    assembly = Assembly(TwoViews(), [TALL])
    assembly.place(slot(TALL, 1), 7)
    images = assembly.images(["whole"], encoded=False)
    assert (images.places.tolist(), images.sources.tolist(), images.lengths) == ([7], [1, 0, 2], [3])


def test_a_picture_that_is_not_of_the_batch_cannot_be_placed():
    with pytest.raises(KeyError):
        Assembly(TwoViews(), [TALL]).place(slot(WIDE, 4), 0)
