"""Images that a model has drawn: their files hold the codes that were drawn, and sent back they are read as those.

What a request is answered so depends on what it holds, and not on what others have drawn, or when: nothing is kept.
"""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from chiasm.data.files import EncodedPicture, PictureInMemory
from chiasm.data.sample import Picture
from chiasm.errors import ChiasmError
from chiasm.heads.spans import check_target
from chiasm.inference.reading import CODES, CodedImage
from chiasm.storage.cache import fingerprint
from chiasm.tokenizers.spaces import Codes

if TYPE_CHECKING:
    from chiasm.model import Model

NOTE = "chiasm-codes"  # the keyword of a PNG's text
MOST = 1 << 20  # letters of it, which is as much as Pillow reads


class DrawnImages:
    """Notes the codes of what a model has drawn, and reads the notes of what it is shown; any thread may ask."""

    def __init__(self, model: Model):
        head, tokenizer = model.image_head, model.image_tokenizer
        self._space = None if head is None or tokenizer is None or model.conditions else head.space
        self._mark = "" if self._space is None or tokenizer is None else fingerprint(tokenizer)

    def sign(self, image: Image.Image) -> Image.Image:
        """The image, with a note for its file of the codes that it was drawn as (`CODES`), if they are known."""
        codes = image.info.get(CODES)
        if self._space is not None and codes is not None:
            note = json.dumps({"by": self._mark, "pixels": PictureInMemory(image).key, **_packed(codes)})
            if len(note) <= MOST:
                image.info[NOTE] = note
        return image

    def recognise(self, picture: EncodedPicture) -> Picture:
        """The picture, with the codes of its note, if this model has drawn these pixels.

        Raises DataError for a broken picture. A note of another model, of other pixels or of none is of no account.
        """
        note = _note(picture.data()) if self._space is not None else None
        if note is None or note.get("by") != self._mark:
            return picture
        image, codes = PictureInMemory(picture.open()), self._codes(note)
        return picture if codes is None or note.get("pixels") != image.key else CodedImage(image, codes)

    def _codes(self, note: dict[str, Any]) -> Tensor | None:
        """The codes of a note; None = they are none that an image of this model could have."""
        assert self._space is not None
        try:
            codes = _unpacked(note)
            check_target(codes[None], self._space)
        except (ChiasmError, KeyError, TypeError, ValueError):
            return None
        if isinstance(self._space, Codes):
            return None if codes.is_floating_point() else codes
        return codes if codes.is_floating_point() and bool(codes.isfinite().all()) else None


def png_options(image: Image.Image) -> dict[str, Any]:
    """With which a signed image is saved as PNG."""
    if NOTE not in image.info:
        return {}
    note = PngInfo()
    note.add_text(NOTE, image.info[NOTE], zip=True)
    return {"pnginfo": note}


def _note(data: bytes) -> dict[str, Any] | None:
    """The note in an image's file, of which nothing is decoded yet."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as file:
            note = json.loads(file.info.get(NOTE, "null"))
    except Exception:  # what is wrong with the file is said where it is decoded
        return None
    return note if isinstance(note, dict) else None


def _packed(codes: Tensor) -> dict[str, Any]:
    array = codes.detach().cpu()
    numbers = array.float().numpy() if array.is_floating_point() else array.numpy().astype(np.int32)
    data = base64.b64encode(np.ascontiguousarray(numbers).tobytes()).decode()
    return {"shape": list(codes.shape), "numbers": numbers.dtype.name, "data": data}


def _unpacked(note: dict[str, Any]) -> Tensor:
    """Raises KeyError, TypeError or ValueError for what `_packed` has not written."""
    name, shape = note["numbers"], note["shape"]
    if name not in ("int32", "float32") or not all(isinstance(side, int) and side > 0 for side in shape):
        raise ValueError(name)
    numbers = np.frombuffer(base64.b64decode(note["data"], validate=True), name).reshape(shape)
    return torch.from_numpy(numbers.astype(np.int64 if name == "int32" else np.float32))
