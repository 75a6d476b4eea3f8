"""Pictures in files and in memory, opened with care: a picture from a stranger may be broken or a bomb."""

from __future__ import annotations

import hashlib
import io
from functools import cached_property
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from chiasm.data.sample import Picture
from chiasm.errors import DataError
from chiasm.views import Size

MOST_PIXELS = 100_000_000  # 10,000 x 10,000; a larger picture is taken for a decompression bomb


class PictureFile(Picture):
    """A picture in a file. The size is read from its header; the pixels only by `open`."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @cached_property
    def key(self) -> str:  # type: ignore[override]
        return hashlib.sha256(self._read()).hexdigest()[:32]

    @cached_property
    def size(self) -> Size:  # type: ignore[override]
        with _opened(io.BytesIO(self._read()), str(self.path)) as image:
            return _upright_size(image)

    def open(self) -> Image.Image:
        return decoded(self._read(), str(self.path))

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            raise DataError(f"there is no picture at {self.path}") from None
        except OSError as error:
            raise DataError(f"picture {self.path} cannot be read: {error.strerror or error}") from None


class PictureInMemory(Picture):
    """A PIL image."""

    def __init__(self, image: Image.Image):
        self.image = image.convert("RGB")
        self.size = Size(image.height, image.width)
        self.key = hashlib.sha256(f"{self.size}".encode() + self.image.tobytes()).hexdigest()[:32]

    def open(self) -> Image.Image:
        return self.image


def decoded(data: bytes, where: str) -> Image.Image:
    """The picture in `data` as upright RGB, transparency on white; raises DataError naming `where`."""
    from PIL import ImageOps

    with _opened(io.BytesIO(data), where) as image:
        try:
            upright = ImageOps.exif_transpose(image)
            if "A" in upright.getbands() or "transparency" in upright.info:
                upright = upright.convert("RGBA")
                white = Image.new("RGBA", upright.size, "white")
                upright = Image.alpha_composite(white, upright)
            return upright.convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"picture {where} is corrupt: {error}") from None


def _opened(file: io.BytesIO, where: str) -> Image.Image:
    try:
        image = Image.open(file)
    except UnidentifiedImageError:
        raise DataError(f"{where} is not a picture in a known format") from None
    except Image.DecompressionBombError:
        raise DataError(f"picture {where} is larger than {MOST_PIXELS:,} pixels; shrink it first") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"picture {where} is corrupt: {error}") from None
    if image.width * image.height > MOST_PIXELS:
        raise DataError(
            f"picture {where} has {image.width} x {image.height} pixels, more than {MOST_PIXELS:,}; shrink it first"
        )
    return image


def _upright_size(image: Image.Image) -> Size:
    turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return Size(image.width, image.height) if turned else Size(image.height, image.width)
