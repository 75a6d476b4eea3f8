"""Words among the visual tokens of an image, and connectors that are told where its views lie."""

import pytest
from PIL import Image

from chiasm.data.contract import Contract
from chiasm.data.files import PictureInMemory
from chiasm.data.picture_reader import PictureReader
from chiasm.errors import DataError
from chiasm.sequence import Document, Kind, pack
from chiasm.views import Size
from chiasm.views.anchors import Anchors

PLACEHOLDER = 0


class Letters:
    """A tokenizer with an id for each letter."""

    def encode(self, text):
        return tuple(map(ord, text))


class TwoTokens:
    def __init__(self, cells=None):
        self.cells = cells

    def grid(self, height, width):
        return 1, 2

    def tokens(self, grid):
        return 2

    def token_grid(self, grid):
        return grid


def contract(*, named=False, cells=None):
    views = Anchors(size=8, grids=[(1, 1), (1, 2)], named=named)
    return Contract(Letters(), 256, views, TwoTokens(), TwoTokens(cells))


def read(contract):
    image, size = PictureInMemory(Image.new("RGB", (16, 8))), Size(8, 16)
    length = contract.read_tokens(size, "it")
    document, words = Document("it"), contract.read_words(size, "it")
    document.add_picture(image, Kind.READ, PLACEHOLDER, [True] * length, [True] * length, words=words)
    return document.check(contract.context)


def test_words_of_the_views_are_text_among_the_tokens_of_an_image():
    document = read(contract(named=True))
    text = "".join(chr(id) if id != PLACEHOLDER else "?" for id in document.ids)
    assert text == "<global_img>??<crop_img_row0_col0>??<crop_img_row0_col1>??"
    assert document.kinds == [Kind.READ if letter == "?" else Kind.TEXT for letter in text]
    assert not read(contract()).kinds.count(Kind.TEXT)


def test_a_connector_that_tells_places_apart_is_given_the_row_and_column_of_each_view():
    placed = contract(cells=3)
    batch, slots = pack([[read(placed)]])
    assert [each.tolist() for each in PictureReader(placed).attach(batch, slots).read.cells] == [
        [[2, 2], [0, 0], [0, 1]]
    ]
    batch, slots = pack([[read(contract())]])
    assert PictureReader(contract()).attach(batch, slots).read.cells is None


def test_a_view_beyond_the_places_of_a_connector_is_an_error_before_an_image_is_read():
    with pytest.raises(DataError, match=r"row 2, column 2 .* positions for 2 rows and columns alone"):
        contract(cells=2).read_tokens(Size(8, 16), "it")
