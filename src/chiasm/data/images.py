"""An image as upright RGB of 8 bits, however it came: the one place where images are decoded, turned and measured.

Turned: as the camera says, by EXIF or XMP, in every format. Transparent: seen on white. Animated: the first frame.
More than 8 bits: a value's highest eight, so that 16-bit, float in [0, 1] and 8-bit images of one scene are equal.
Colour profiles are not applied.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from chiasm.errors import DataError
from chiasm.views import Size

# Pillow opens more, some of it by other programs (EPS by Ghostscript), which a file from a stranger must not reach.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
SUFFIX = (
    r"\.(?:png|jpe?g|jfif|webp|gif|bmp|tiff?|p[pgbn]m|avif|jp2|j2k)"  # a pattern of the names of such files
)
MOST_PIXELS = 100_000_000  # 10,000 x 10,000; a larger image is taken for a decompression bomb
BACKGROUND = (255, 255, 255)
UNREADABLE = "unreadable image"  # the kind of error

HEADER = 24  # bytes with which `begins_image` is content
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # bytes of the header behind a BMP's own 14
_PPM = re.compile(rb"P(?:[1-6f]\s|0CMYK|y(?:P|RGB|CMYK))")

_ORIENTATION = 0x0112  # of EXIF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_GREY_LEVELS = {"L;2": 85, "L;4": 17}  # from one level to the next, by Pillow's raw mode

Result = TypeVar("Result")

# What is wrong with a file is an error here; and the limit of pixels is MOST_PIXELS.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode(data: bytes, where: str) -> Image.Image:
    """The image in the bytes of a file; raises DataError naming `where`."""
    return _sound(lambda: to_rgb(_open(io.BytesIO(data), where), where), where)


def measure(file: BinaryIO, where: str) -> Size:
    """Height and width of the upright image in a file, from its header alone; raises DataError naming `where`."""

    def size() -> Size:
        image = _open(_png_without_pixels(file), where)
        # PNG's own `getexif` decodes the whole image.
        sideways = _orientation(image, Image.Image.getexif) in _SIDEWAYS
        if image.format == "TIFF":  # Pillow turns these itself where the tag is TIFF's own
            sideways = sideways and _ORIENTATION not in image.tag_v2  # type: ignore[attr-defined]
        return Size(image.width, image.height) if sideways else Size(image.height, image.width)

    return _sound(size, where)


def has_header(start: bytes) -> bool:
    """Whether an image that begins with these 12 bytes can be measured without all of the others, by Pillow."""
    return start[8:12] != b"WEBP" and start[4:8] != b"ftyp"  # AVIF


def begins_image(start: bytes) -> bool:
    """Whether a file that begins with these bytes, HEADER of them if it has so many, is of one of FORMATS."""
    Image.init()
    if start.startswith(b"BM"):  # two bytes, with which other things begin too
        return int.from_bytes(start[14:18], "little") in _BMP_HEADERS
    if start.startswith(b"P"):
        return _PPM.match(start) is not None
    accepts = (Image.OPEN[name][1] for name in FORMATS if name in Image.OPEN)
    return any(accept is not None and bool(accept(start)) for accept in accepts)


def to_rgb(image: Image.Image, where: str) -> Image.Image:
    """A PIL image, of any mode, as its file would be read; raises DataError naming `where`."""

    def rgb() -> Image.Image:
        if isinstance(image, ImageFile.ImageFile) and image.tile and image.format not in (*FORMATS, "MPO"):
            raise DataError(f"{where} is of format {image.format}; read are {', '.join(FORMATS)}", UNREADABLE)
        _check_pixels(image, where)
        _scale_transparent(image)
        image.load()
        turn = _TURNS.get(_orientation(image))
        return opaque(image if turn is None else image.transpose(turn), where)

    return _sound(rgb, where)


def opacity(image: Image.Image, where: str) -> np.ndarray | None:
    """How much of each pixel of a PIL image, upright, is seen: 0 to 255; None = all of all. Raises DataError."""

    def alpha() -> np.ndarray | None:
        _check_pixels(image, where)
        if not image.has_transparency_data:
            return None
        _scale_transparent(image)
        image.load()
        turn = _TURNS.get(_orientation(image))
        upright = image if turn is None else image.transpose(turn)
        return np.asarray(upright.convert("RGBA").getchannel("A"))

    return _sound(alpha, where)


def open_image(data: bytes, where: str) -> Image.Image:
    """The image in the bytes of a file, its pixels not yet decoded; raises DataError naming `where`."""
    return _sound(lambda: _open(io.BytesIO(data), where), where)


def opaque(image: Image.Image, where: str) -> Image.Image:
    """A PIL image as RGB, without turning it; raises DataError naming `where`."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    return _sound(lambda: _opaque(image, where), where)


def _orientation(
    image: Image.Image, exif: Callable[[Image.Image], Image.Exif] = lambda image: image.getexif()
) -> int:
    """How the camera was held, of EXIF or XMP; upright (1) where that cannot be read."""
    try:
        return exif(image).get(_ORIENTATION, 1)
    except Exception:  # metadata that is damaged, of an image that need not be
        return 1


def _opaque(image: Image.Image, where: str) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        image = _eight_bits(image, where)
    if image.has_transparency_data:
        layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, (*BACKGROUND, 255)), layer)
    return image.convert("RGB")


def _open(file: BinaryIO, where: str) -> ImageFile.ImageFile:
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise DataError(
            f"{where} is not an image in a known format ({', '.join(FORMATS)})", UNREADABLE
        ) from None
    except Image.DecompressionBombError:
        raise DataError(
            f"{where} is larger than {MOST_PIXELS:,} pixels; shrink it first", UNREADABLE
        ) from None
    _check_pixels(image, where)
    return image


def _check_pixels(image: Image.Image, where: str) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise DataError(
            f"{where} has {image.width} x {image.height} pixels, more than {MOST_PIXELS:,}; shrink it first",
            UNREADABLE,
        )
    if not image.width * image.height:
        raise DataError(f"{where} has {image.width} x {image.height} pixels: nothing to see", UNREADABLE)


def _sound(read: Callable[[], Result], where: str) -> Result:
    """What `read` returns; whatever a decoder raises, which for hostile bytes is anything, becomes a DataError."""
    try:
        return read()
    except DataError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(f"{where} is corrupt: {reason}", UNREADABLE) from None


def _eight_bits(image: Image.Image, where: str) -> Image.Image:
    """An image of one channel of 16 bits, 32 bits or floats, as grey of 8 bits (with alpha where it had any).

    Integers of 32 bits are how Pillow keeps 16-bit values, and are taken for those where a value lies above 255;
    up to 255, or above 65535, their range is anybody's guess.
    """
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if image.mode == "F":
        if not (low >= -1e-6 and high <= 1 + 1e-6):  # NaN, too
            raise DataError(
                f"{where} has float values from {low:g} to {high:g}; they must lie in [0, 1]", UNREADABLE
            )
        grey = np.clip(np.floor(values.astype(np.float64) * 256), 0, 255)
    else:
        if image.mode == "I" and high != 0 and not (low >= 0 and 255 < high <= 65535):
            raise DataError(
                f"{where} has 32-bit values from {low} to {high}, whose range is not known; "
                "store it with 8 or 16 bits",
                UNREADABLE,
            )
        grey = values >> 8
    eight = Image.fromarray(grey.astype(np.uint8), "L")
    if "transparency" in image.info:
        eight.putalpha(
            Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8))
        )
    return eight


def _scale_transparent(image: Image.Image) -> None:
    """Scale the transparent value of a PNG as Pillow scales its pixels, which it forgets, before they are read."""
    value = image.info.get("transparency")
    tile = getattr(image, "tile", None)
    if image.format != "PNG" or value is None or not tile:
        return
    mode = tile[0].args
    if isinstance(value, int) and mode in _GREY_LEVELS:
        image.info["transparency"] = min(value * _GREY_LEVELS[mode], 255)
    elif isinstance(value, tuple) and mode == "RGB;16B":
        image.info["transparency"] = tuple(each >> 8 for each in value)


def _png_without_pixels(file: BinaryIO) -> BinaryIO:
    """Of a PNG, the header and the metadata, which may stand behind the pixels; any other file as it is."""
    file.seek(0)
    if file.read(len(_PNG)) != _PNG:
        return file
    header = io.BytesIO()
    header.write(_PNG)
    while len(start := file.read(8)) == 8 and start[4:] != b"IEND":
        length = int.from_bytes(start[:4], "big") + 4  # with the checksum
        if start[4:] in (b"IHDR", b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
            header.write(start + file.read(length))
        else:
            file.seek(length, io.SEEK_CUR)
    header.write(_PNG_END)
    return header
