"""Pictures into batches."""

from collections import Counter
from typing import ClassVar

import torch
from PIL import Image

from chiasm.data.contract import Contract
from chiasm.data.cut import cut
from chiasm.data.files import PictureInMemory
from chiasm.data.picture_reader import PictureReader
from chiasm.sequence import Document, Kind, pack
from chiasm.views import Size, View, Views


class Counted(PictureInMemory):
    opened: ClassVar[Counter] = Counter()

    def open(self):
        self.opened[self.key] += 1
        return super().open()


class TwoSizes(Views):
    """The whole of a picture and its left half, at a token each."""

    def split(self, size):
        whole, half = (0, 0, *size[::-1]), (0, 0, size.width // 2, size.height)
        return [View(whole, Size(8, 8)), View(half, Size(4, 4))]

    def arrange(self, size, grids):
        return range(2)


class OneToken:
    cells = None

    def grid(self, height, width):
        return 1, 1

    def tokens(self, grid):
        return 1

    def token_grid(self, grid):
        return 1, 1


def test_a_picture_is_opened_once_for_all_of_its_views_and_documents():
    a, b = (Counted(Image.effect_noise((12, 10), 90)) for _ in range(2))
    documents = []
    for picture in (b, a, b):
        documents.append(Document("it"))
        documents[-1].add_picture(picture, Kind.READ, 0, [True] * 2, [True] * 2)
    contract = Contract(None, 8, TwoSizes(), OneToken(), OneToken())
    batch, slots = pack([documents])
    read = PictureReader(contract).attach(batch, slots).read
    assert Counted.opened == {a.key: 1, b.key: 1}
    for number, group in ((1, 0), (0, 1)):  # the smaller views are the first group
        views = [TwoSizes().split(Size(10, 12))[number]] * 2
        expected = torch.stack([cut(picture.image, view) for picture, view in zip((b, a), views)])
        assert torch.equal(read.groups[group], expected)
