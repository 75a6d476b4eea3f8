"""Pictures into batches."""

from collections import Counter
from typing import ClassVar

import torch
from PIL import Image

from chiasm.data.documents import PictureReader
from chiasm.data.files import PictureInMemory
from chiasm.views import Size, View
from chiasm.views.cut import cut


class Counted(PictureInMemory):
    opened: ClassVar[Counter] = Counter()

    def open(self):
        self.opened[self.key] += 1
        return super().open()


def test_a_picture_is_opened_once_for_all_of_its_views():
    """Views of two sizes, whose groups name the pictures in different orders."""
    a, b = (Counted(Image.effect_noise((12, 10), 90)) for _ in range(2))
    left, right, whole = (0, 0, 6, 10), (6, 0, 12, 10), (0, 0, 12, 10)
    groups = [
        [(b, View(left, Size(4, 4))), (a, View(right, Size(4, 4))), (b, View(right, Size(4, 4)))],
        [(a, View(whole, Size(8, 8))), (b, View(whole, Size(8, 8)))],
    ]
    pixels = PictureReader(contract=None)._views(groups)
    assert Counted.opened == {a.key: 1, b.key: 1}
    for group, tensor in zip(groups, pixels, strict=True):
        assert torch.equal(tensor, torch.stack([cut(picture.image, view) for picture, view in group]))
