"""Images that a model has drawn: sent back by a client, they are read as the codes that were drawn."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from torch import Tensor

from chiasm.data.files import PictureInMemory
from chiasm.data.sample import Picture
from chiasm.inference.reading import CodedImage

MOST = 1024  # images, of which the codes alone are held


class DrawnImages:
    """What a model has drawn of late, by its pixels; any thread may ask."""

    def __init__(self, most: int = MOST):
        self.most = most
        self._codes: OrderedDict[str, Tensor] = OrderedDict()
        self._sizes: set[tuple[int, int]] = set()
        self._lock = Lock()

    def add(self, image: Picture) -> None:
        """Remember an image, if its codes are known; the one that was met longest ago is forgotten."""
        if not isinstance(image, CodedImage):
            return
        codes = image.codes.cpu()
        with self._lock:
            self._sizes.add((image.size.height, image.size.width))
            self._codes[image.key] = codes
            self._codes.move_to_end(image.key)
            if len(self._codes) > self.most:
                self._codes.popitem(last=False)

    def recognise(self, picture: Picture) -> Picture:
        """The picture, with its codes if the model has drawn these pixels; raises DataError for a broken one."""
        if (picture.size.height, picture.size.width) not in self._sizes:
            return picture
        image = PictureInMemory(picture.open())
        with self._lock:
            codes = self._codes.get(image.key)
            if codes is None:
                return picture
            self._codes.move_to_end(image.key)
        return CodedImage(image, codes)
