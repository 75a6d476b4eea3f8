"""Fonts that text is drawn with, and whether they have its letters."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path

import PIL
from PIL import ImageFont

from chiasm.errors import DataError

NO_CHARACTER = (
    "\uffff"  # Unicode will never give it a meaning, so that fonts draw what stands for a missing glyph
)
PROBE = 100  # pixels of the letters that are measured
# The same pixels on every machine: Noto Sans SC, from PyPI.
PACKAGE, PACKAGED = "pylopdf_fonts_zh_cn", "NotoSansSC-Regular.otf"
ADVICE = (
    "install the Debian package fonts-noto-cjk or fonts-wqy-microhei, run `pip install 'chiasm[chinese]'`, "
    "or name a font file in the option `font`"
)
# Fonts with Chinese letters, where Linux distributions, macOS and Windows put them.
FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts",
           "/System/Library/Fonts", "/Library/Fonts", "C:/Windows/Fonts")  # fmt: skip
FILES = ("NotoSansCJK-Regular.ttc", "NotoSansSC-Regular.otf", "NotoSansSC-Regular.ttf",
         "SourceHanSansSC-Regular.otf", "wqy-microhei.ttc", "wqy-zenhei.ttc", "PingFang.ttc", "STHeiti Light.ttc",
         "msyh.ttc")  # fmt: skip


@dataclass(frozen=True)
class Typeface:
    """A font in any size. path: its file; None: the one that comes with Pillow, which has Latin letters alone.

    Raises DataError where the file is no font.
    """

    path: str | None = None

    def __post_init__(self) -> None:
        try:
            self.at(PROBE)
        except OSError as error:
            raise DataError(f"the font {self.path} cannot be read: {error}") from None

    def at(self, size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        """size: of its letters, in pixels."""
        return _sized(self.path, size)

    def length(self, text: str) -> float:
        """Of a text, in sizes of its letters."""
        return _length(self.path, text)

    @cached_property
    def capital(self) -> float:
        """Height of a capital letter, in sizes of letters."""
        box = self.at(PROBE).getbbox("H")
        return (box[3] - box[1]) / PROBE

    @cached_property
    def key(self) -> str:
        """Of what letters look like."""
        file = "" if self.path is None else blake2b(Path(self.path).read_bytes(), digest_size=16).hexdigest()
        return f"pillow {PIL.__version__} {file}"

    def missing(self, text: str) -> str:
        """The letters of a text for which the font has no glyph, each once."""
        blank = _glyph(self.path, NO_CHARACTER)
        return "".join(
            letter
            for letter in sorted(set(text))
            if not letter.isspace() and _glyph(self.path, letter) == blank
        )

    def require(self, text: str, purpose: str) -> None:
        """Raises DataError where the font has not all letters of a text. purpose: what they are for."""
        if absent := self.missing(text):
            name = "Pillow's own font" if self.path is None else f"the font {self.path}"
            shown = absent if len(absent) <= 8 else f"{absent[:8]}... ({len(absent)} letters)"
            raise DataError(f"{name} has no glyphs for {shown}, which {purpose} needs: {ADVICE}")


def chinese_font() -> str | None:
    """The file of a font with Chinese letters: of the package of the extra `chinese`, or of the system."""
    package = find_spec(PACKAGE)
    folders = package.submodule_search_locations if package is not None else None
    for folder in folders or ():
        if (file := Path(folder) / PACKAGED).is_file():
            return str(file)
    return _system_font()


@lru_cache(maxsize=1)
def _system_font() -> str | None:
    places: dict[str, str] = {}
    for folder in FOLDERS:
        for parent, _, names in os.walk(Path(folder).expanduser()):
            for name in names:
                places.setdefault(name, str(Path(parent) / name))
    return next((places[name] for name in FILES if name in places), None)


@lru_cache(maxsize=256)
def _sized(path: str | None, size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)


@lru_cache(maxsize=65536)
def _length(path: str | None, text: str) -> float:
    return float(_sized(path, PROBE).getlength(text)) / PROBE


@lru_cache(maxsize=65536)
def _glyph(path: str | None, letter: str) -> bytes:
    mask = _sized(path, PROBE).getmask(letter)
    return bytes(f"{mask.size}", "ascii") + bytes(mask)
