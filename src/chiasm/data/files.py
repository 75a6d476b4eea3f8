"""Images in files, in bytes and in memory, opened with care: what a stranger sends may be broken or a bomb."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import re
import stat
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from PIL import Image

from chiasm.data.images import HEADER, UNREADABLE, begins_image, decode, has_header, measure, to_rgb
from chiasm.data.sample import Picture
from chiasm.errors import DataError, excerpt
from chiasm.views import Size

MOST_BYTES = 1 << 30  # of an image file
_HELD_PIXELS = 2_000_000  # of a decoded image that is held until its batch is put together
_URL_SAFE = str.maketrans("-_", "+/")
_NO_BASE64 = re.compile(r"[^A-Za-z0-9+/=\s_-]")
_BASE64 = re.compile(r"[A-Za-z0-9+/\s_-]{12,}={0,2}\s*")
_RECENT_BYTES = 128 << 20  # of files kept from the hashing of an image to its decoding


class EncodedPicture(Picture):
    """A picture in an image format.

    where: what errors call it ("image cat.png of sample 3 of pets.jsonl").
    """

    where: str
    _size: Size | None = None

    @abstractmethod
    def data(self) -> bytes:
        """The bytes of the image's file; raises DataError."""

    @abstractmethod
    def header(self) -> Size:
        """The size that the image's header gives; raises DataError."""

    @cached_property
    def key(self) -> str:  # type: ignore[override]
        return hashlib.sha256(self.data()).hexdigest()[:32]

    @property
    def size(self) -> Size:  # type: ignore[override]
        if self._size is None:
            self._size = self.header()
        return self._size

    def open(self) -> Image.Image:
        data = self.data()
        image = decode(data, self.where)
        if self._size is None:
            self._size = measure(io.BytesIO(data), self.where)
        if self._size != (image.height, image.width):
            raise DataError(
                f"{self.where} is corrupt: its header says {self.size.width} x {self.size.height} pixels, "
                f"but it has {image.width} x {image.height}",
                UNREADABLE,
            )
        return image


class PictureFile(EncodedPicture):
    """A picture in a file. Of its size the header alone is read; key and pixels, asked for soon, take one reading.

    where: what errors call it; default: its path.
    """

    def __init__(self, path: str | Path, where: str | None = None):
        self.path = Path(path)
        self.where = where or f"image {excerpt(self.path)}"

    def data(self) -> bytes:
        return _RECENT.read(self.path, self.where)

    def header(self) -> Size:
        with open_regular(self.path, self.where) as file, _sentences(self.path, self.where):
            if has_header(file.read(12)):
                return measure(file, self.where)
        return measure(io.BytesIO(self.data()), self.where)


class PictureBytes(EncodedPicture):
    """A picture in the bytes of an image file.

    where: what errors call it.
    """

    def __init__(self, data: bytes, where: str = "an image of bytes"):
        self._data, self.where = data, where

    def data(self) -> bytes:
        return self._data

    def header(self) -> Size:
        return measure(io.BytesIO(self._data), self.where)


class PictureInMemory(Picture):
    """A PIL image of any mode, turned and converted as its file would be."""

    def __init__(self, image: Image.Image, where: str = "an image"):
        rgb = to_rgb(image, where)
        self.image = rgb.copy() if rgb is image else rgb  # what its owner does to it later is not seen
        self.size = Size(self.image.height, self.image.width)
        self.key = hashlib.sha256(f"{self.size}".encode() + self.image.tobytes()).hexdigest()[:32]

    def open(self) -> Image.Image:
        return self.image


class Decoded(Picture):
    """A picture that was opened already; a large image is opened again instead of being held."""

    def __init__(self, picture: Picture):
        image = picture.open()
        self.key, self.size = picture.key, picture.size
        self._open = picture.open if image.width * image.height > _HELD_PIXELS else lambda: image

    def open(self) -> Image.Image:
        return self._open()


def picture_of_base64(text: str, where: str) -> PictureBytes:
    """The picture in a `data:` URL or in bare base64, of either alphabet; raises DataError."""
    head, comma, body = text.partition(",") if text[:5].lower() == "data:" else ("", "", text)
    if head and not (comma and head.lower().endswith(";base64")):
        raise DataError(f"{where} is a data URL without ';base64,': {excerpt(text)}", UNREADABLE)
    try:
        data = base64.b64decode("".join(body.split()).translate(_URL_SAFE), validate=True)
    except (binascii.Error, ValueError):
        foreign = _NO_BASE64.search(body)
        reason = (
            f"it has {excerpt(foreign[0])!r}"
            if foreign
            else f"its {len(body):,} letters are not whole groups of four"
        )
        raise DataError(f"{where} is no base64: {reason}", UNREADABLE) from None
    return PictureBytes(data, where)


def is_base64(text: str) -> bool:
    """Whether a text is the bare base64 of an image, and no path."""
    if _BASE64.fullmatch(text) is None:
        return False
    start = "".join(text[: 2 * HEADER].split()).translate(_URL_SAFE)
    try:
        return begins_image(base64.b64decode(start[: len(start) // 4 * 4]))
    except binascii.Error:
        return False


@contextmanager
def open_regular(path: Path, where: str, what: str = "picture") -> Iterator[BinaryIO]:
    """A regular file for reading; raises DataError at once for what is none (a folder, a pipe, a device).

    what: it should hold.
    """
    with _sentences(path, where, what):
        check_regular(path, where, what)
        # Without O_NONBLOCK, what became a pipe meanwhile would wait for a writer.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    with file:
        yield file


def check_regular(path: Path, where: str, what: str = "picture") -> None:
    """Raise DataError unless a regular file is at the path."""
    with _sentences(path, where, what):
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise DataError(f"{where} is not a file", UNREADABLE)


@contextmanager
def _sentences(path: Path, where: str, what: str = "picture") -> Iterator[None]:
    """Turn what the operating system says of a path into a DataError."""
    try:
        yield
    except FileNotFoundError:
        owner = "" if where.endswith(excerpt(path)) else f" ({where})"
        kind = "missing image" if what == "picture" else what
        raise DataError(f"there is no {what} at {excerpt(path)}{owner}", kind) from None
    except (OSError, ValueError) as error:  # ValueError: NUL, or a letter that no file name can have
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise DataError(f"{where} cannot be read: {reason}", UNREADABLE) from None


class _Recent:
    """The bytes of the files that were read last, as long as those have not changed."""

    def __init__(self, most: int):
        self._most, self._held = most, 0
        self._files: OrderedDict[Path, tuple[tuple[int, ...], bytes]] = OrderedDict()
        self._lock = Lock()

    def read(self, path: Path, where: str) -> bytes:
        with open_regular(path, where) as file:
            status = os.fstat(file.fileno())
            version = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            with self._lock:
                known = self._files.get(path)
                if known and known[0] == version:
                    self._files.move_to_end(path)
                    return known[1]
            if status.st_size > MOST_BYTES:
                raise DataError(f"{where} has {status.st_size:,} bytes, more than {MOST_BYTES:,}", UNREADABLE)
            with _sentences(path, where):
                data = file.read()
        self._keep(path, version, data)
        return data

    def _keep(self, path: Path, version: tuple[int, ...], data: bytes) -> None:
        with self._lock:
            self._held += len(data) - len(self._files.pop(path, ((), b""))[1])
            self._files[path] = (version, data)
            while self._held > self._most:
                self._held -= len(self._files.popitem(last=False)[1][1])


_RECENT = _Recent(_RECENT_BYTES)
