"""How a record or a message may name an image: a path, a `file:` or `data:` URL, base64, bytes, or an object."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from PIL import Image

from chiasm.data.files import (
    PictureBytes,
    PictureFile,
    PictureInMemory,
    check_regular,
    is_base64,
    picture_of_base64,
)
from chiasm.data.images import SUFFIX
from chiasm.data.sample import Picture, Signal
from chiasm.data.signal_files import FORM, REAL, REAL_NUMBERS, SignalFile, SignalOfNumbers, signal_of_bytes
from chiasm.errors import DataError, excerpt

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):", re.IGNORECASE)  # two letters and more: C: is a drive
_SUFFIX = SUFFIX + r"(?![A-Za-z0-9_/\\-]|\.[A-Za-z0-9])"
# Behind these a path may begin, and with none of them.
_OPENING = r"\s\"'“”‘’«»()\[\]{}<>,;。，、（）「」《》"
# Behind these too, where no spaces stand between words and what follows is a file, or reads like one.
_CJK = re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]")
_PATH = re.compile(
    rf"""(?P<data>data:image/[^\s"']+)
    |(?P<quote>["'])(?P<quoted>[^"'\n]{{1,1000}}?{_SUFFIX})(?P=quote)
    |(?:(?<![^{_OPENING}])|(?<=[A-Za-z0-9])(?={_CJK.pattern}))
    (?P<plain>(?:\\.|[^{_OPENING}])(?:\\.|[^\s"'“”«»<>]){{0,1000}}?{_SUFFIX})""",
    re.IGNORECASE | re.VERBOSE,
)
_ASCII_PATH = re.compile(r"(?:\.{1,2}/)?[A-Za-z0-9_~]")

ImageLike = Picture | Image.Image | bytes | str | Path


@dataclass(frozen=True)
class References:
    """Finds the images that are named.

    folder: where relative paths start.
    inside: no image may lie outside the folder, whatever `..` and links say.
    """

    folder: Path = Path()
    inside: bool = False

    def picture(self, value: Any, where: str) -> Picture:
        """The picture that `value` names; raises DataError naming `where` if there is none."""
        if isinstance(value, Picture):
            return value
        if isinstance(value, Image.Image):
            return PictureInMemory(value, f"an image of {where}")
        if isinstance(value, np.ndarray):
            return PictureInMemory(_image_of(value, where), f"an image of {where}")
        if isinstance(value, bytes | bytearray):
            return PictureBytes(bytes(value), f"an image of {where}")
        if isinstance(value, Path):
            return self._file(value, where)
        if isinstance(value, str):
            return self._named(value, where)
        raise DataError(f"{where} names the image {excerpt(value)}; it must be a path or a URL", "image form")

    def base64(self, value: Any, where: str) -> Picture:
        """The picture whose file's bytes `value` holds in base64; raises DataError."""
        if not isinstance(value, str) or not value:
            raise DataError(f"{where} has the base64 {excerpt(value)}; it must be text", "image form")
        return picture_of_base64(value, f"the base64 image of {where}")

    def signal(self, value: Any, modality: Any, where: str) -> Signal:
        """The signal whose numbers `value` is, or which are in the file that it names; raises DataError."""
        if not isinstance(modality, str) or not modality:
            raise DataError(
                f"{where} has a signal of the modality {excerpt(modality)}; it must be a name", "signal"
            )
        if isinstance(value, np.ndarray):
            if value.dtype.kind not in REAL:
                raise DataError(
                    f"{where} has a signal of {value.dtype}; it must be of {REAL_NUMBERS}", "signal"
                )
            return SignalOfNumbers(modality, value, f"the {modality} of {where}")
        if isinstance(value, bytes | bytearray):
            return signal_of_bytes(modality, bytes(value), f"the {modality} of {where}")
        if not isinstance(value, str | Path) or not str(value):
            raise DataError(
                f"{where} names the signal {excerpt(value)}; it must be the path of {FORM}", "signal"
            )
        name = f"{modality} {excerpt(value)} of {where}"
        if self.inside:
            self._check_inside(self.folder / value, name)
        check_regular(self.folder / value, name, "signal")
        return SignalFile(modality, self.folder / value, name)

    def _named(self, value: str, where: str) -> Picture:
        if not value:
            raise DataError(
                f"{where} has an empty name of an image; without one there is no key, or null", "image form"
            )
        scheme = match[1].lower() if (match := _SCHEME.match(value)) else ""
        if scheme == "data" or is_base64(value):
            return picture_of_base64(value, f"an image of {where}")
        if scheme == "file":
            return self._file(_path_of_url(value, where), where)
        if scheme and value[len(scheme) :].startswith("://"):
            raise DataError(
                f"there is no picture at {excerpt(value)} for {where}: nothing is downloaded; save it as a file",
                "missing image",
            )
        return self._file(Path(value), where)

    def _file(self, path: Path, where: str) -> PictureFile:
        full = self.folder / path
        name = f"image {excerpt(path)} of {where}"
        if self.inside:
            self._check_inside(full, name)
        check_regular(full, name)
        return PictureFile(full, name)

    def _check_inside(self, full: Path, name: str) -> None:
        try:
            real, folder = os.path.realpath(full), os.path.realpath(self.folder)
            inside = os.path.commonpath([real, folder]) == folder
        except (OSError, ValueError):
            return  # there is no such path, which the next check says better
        if not inside:
            raise DataError(
                f"{name} lies outside the folder {excerpt(self.folder)}; if that is meant, set outside: true",
                "image outside the folder",
            )


def pictures_of(images: ImageLike | Sequence[ImageLike], where: str) -> list[Picture]:
    """The pictures that one image, or a list of several, stands for; raises DataError naming `where`."""
    several = images if isinstance(images, list | tuple) else [images]
    return [References().picture(each, where) for each in several]


def path_items(message: str) -> Iterator[str | Mapping[str, str]]:
    """A message as text and, for paths in it, `{"image": path}`.

    A path ends in an image's suffix, whatever punctuation stands behind it; one with spaces is known by quotation
    marks round it or backslashes in it. Chinese and Japanese words may stand on both sides of it, without a space.
    """
    end = 0
    for start, stop, path in _paths(message):
        if text := message[end:start].strip():
            yield text
        yield {"image": path}
        end = stop
    if text := message[end:].strip() if end else message:
        yield text


def first_path(text: str) -> str | None:
    """The first word of a text that looks like the path of an image."""
    return next((path for _, _, path in _paths(text)), None)


def _paths(text: str) -> Iterator[tuple[int, int, str]]:
    """Start, end and path."""
    place = 0
    while match := _PATH.search(text, place):
        quoted = match["quoted"]
        if quoted and " " in quoted and not _is_file(quoted):
            place = match.start() + 1  # what is quoted is words, the last of which may be a path
            continue
        start = match.start()
        if plain := match["plain"]:
            start += _words_before(plain)
            plain = _unescaped(text[start : match.end()])
        yield start, match.end(), match["data"] or quoted or plain
        place = match.end()


def _words_before(plain: str) -> int:
    """How many letters of what ends like a path are words before it, in a script without spaces."""
    behind = [match.end() for match in _CJK.finditer(plain.partition("/")[0])]
    if not behind or _is_file(_unescaped(plain)):
        return 0
    for start in behind:
        if _is_file(_unescaped(plain[start:])):
            return start
    return behind[-1] if _ASCII_PATH.match(plain, behind[-1]) else 0


def _unescaped(plain: str) -> str:
    return re.sub(r"\\(.)", r"\1", plain)


def _is_file(path: str) -> bool:
    try:
        return os.path.isfile(os.path.expanduser(path))
    except ValueError:
        return False


def _image_of(array: np.ndarray, where: str) -> Image.Image:
    """The image in an array of rows of pixels; raises DataError."""
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise DataError(
            f"{where} has an image in an array of {array.dtype} and shape {array.shape}; it must be of uint8, and "
            "height x width x 3",
            "image form",
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _path_of_url(url: str, where: str) -> Path:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise DataError(
            f"{where} has the image {excerpt(url)}, which is no URL: {error}", "missing image"
        ) from None
    if parts.netloc not in ("", "localhost"):
        raise DataError(
            f"{where} names the image {excerpt(url)} of another machine; it must be file:///path",
            "missing image",
        )
    return Path(unquote(parts.path))
