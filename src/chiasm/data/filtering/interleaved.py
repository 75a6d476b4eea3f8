"""Interleaved documents as records: read in the forms that there are, filtered by text and by image, written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from chiasm.data.filtering.document import filtered
from chiasm.data.filtering.duplicates import SeenImages
from chiasm.data.filtering.tree import Element
from chiasm.data.records import RecordReader
from chiasm.data.references import References
from chiasm.data.sample import Picture
from chiasm.errors import DataError, excerpt
from chiasm.views import Size

LEAST_SIDE = 150  # pixels of an image
ASPECTS = (0.5, 2.0)  # least and most of width / height
MOST_REPEATS = 10  # of one image in all documents


class NamedPicture(Picture):
    """An image with the words by which its record names it. picture: None where it is not to be looked at."""

    def __init__(self, reference: dict[str, Any], picture: Picture | None):
        self.reference, self._picture = reference, picture

    @property
    def key(self) -> str:  # type: ignore[override]
        return self.seen.key

    @property
    def size(self) -> Size:  # type: ignore[override]
        return self.seen.size

    @property
    def seen(self) -> Picture:
        if self._picture is None:
            raise DataError(f"the image {excerpt(self.reference)} is not to be looked at")
        return self._picture

    def open(self) -> Image.Image:
        return self.seen.open()


@dataclass(frozen=True)
class NamingReferences(References):
    """References whose images keep their names. look: they must be there; else a name is enough, a URL too."""

    look: bool = True

    def picture(self, value: Any, where: str) -> Picture:
        return NamedPicture({"image": value}, super().picture(value, where) if self.look else None)

    def base64(self, value: Any, where: str) -> Picture:
        return NamedPicture({"base64": value}, super().base64(value, where) if self.look else None)


@dataclass(frozen=True)
class Interleaved:
    """A document: texts and images in order, and the other fields of its record."""

    items: tuple[str | NamedPicture, ...]
    others: Mapping[str, Any]

    @property
    def images(self) -> int:
        return sum(not isinstance(item, str) for item in self.items)

    @property
    def text(self) -> str:
        return "\n".join(item for item in self.items if isinstance(item, str))

    def record(self) -> dict[str, Any]:
        """A message list of one document, as the data source `chat` reads it."""
        content = [{"text": item} if isinstance(item, str) else item.reference for item in self.items]
        return {**self.others, "messages": [{"role": "document", "content": content}]}


FIELDS = ("messages", "conversations", "texts", "images", "image", "system")  # that are read


class DocumentReader:
    """Reads documents from records: a message list of one `document`, or `texts` and `images` side by side.

    images: the folder from which relative paths start. look: whether images must be there. outside: they may lie
    outside the folder. others: further fields, which are retained; those in `MEANINGLESS` need no mention.
    """

    def __init__(
        self, images: Path, others: Collection[str] = (), *, look: bool = True, outside: bool = False
    ):
        references = NamingReferences(images, inside=not outside, look=look)
        self._reader = RecordReader(references, frozenset(others), remedy="retain it by name (--retain)")

    def read(self, record: Any, where: str) -> Interleaved:
        """Raises DataError naming `where` for what is no document."""
        others = {k: v for k, v in record.items() if k not in FIELDS} if isinstance(record, dict) else {}
        if isinstance(record, dict) and "texts" in record:
            record = self._paired(record, where) | others
        messages = self._reader.messages(record, where)
        if [message.role for message in messages] != ["document"]:
            roles = ", ".join(message.role for message in messages)
            raise DataError(f"{where} is a conversation ({roles}); what is filtered are documents", "turns")
        items = messages[0].content
        named = tuple(item for item in items if isinstance(item, str | NamedPicture))
        assert len(named) == len(items)
        return Interleaved(named, others)

    def _paired(self, record: dict[str, Any], where: str) -> dict[str, Any]:
        """OmniCorpus's and OBELICS's form: two lists of equal length, where one of each pair is null."""
        texts, images = record["texts"], record.get("images", ())
        lists = isinstance(texts, list) and isinstance(images, list) and len(texts) == len(images)
        pairs = list(zip(texts, images, strict=True)) if lists else [(None, None)]
        if any((text is None) == (image is None) for text, image in pairs):
            raise DataError(
                f"{where} must have lists texts and images of equal length, one of each pair null", "turns"
            )
        content = [{"text": text} if image is None else {"image": image} for text, image in pairs]
        return {"messages": [{"role": "document", "content": content}]}


def filter_text(document: Interleaved, lines: Counter[str]) -> tuple[Interleaved, str | None]:
    """The document after OmniCorpus's text rules, and the rule that drops it. lines: counts what each rule cut."""
    root, dropped = filtered(_tree(document), document.images, lines)
    return (document, dropped) if dropped else (_read_back(document, root), None)


def _tree(document: Interleaved) -> Element:
    """One paragraph for each line of text, as if each element stood on a line of its own."""
    root = Element("doc", line=1)
    main = Element("main", line=2, parent=root)
    root.children.append(main)
    for index, item in enumerate(document.items):
        if isinstance(item, str):
            for line in filter(str.strip, item.splitlines()):
                main.children.append(Element("p", {"n": str(index)}, text=line.strip()))
        else:
            main.children.append(Element("graphic", {"n": str(index), "src": "image"}))
    for number, child in enumerate(main.children, 3):
        child.line, child.parent = number, main
    return root


def _read_back(document: Interleaved, root: Element) -> Interleaved:
    """What is left of each item; a text from which nothing was cut stays as it was written."""
    remaining: dict[int, list[str]] = {}
    index = 0
    for element in root.all("p", "graphic"):
        index = int(
            element.attributes.get("n", index)
        )  # what a rule split off follows what it was split from
        remaining.setdefault(index, []).append(element.text or "")
    items: list[str | NamedPicture] = []
    for index, lines in remaining.items():
        item = document.items[index]
        if isinstance(item, str):
            whole = [line.strip() for line in item.splitlines() if line.strip()] == lines
            item = item if whole else "\n".join(filter(None, lines))
        if not isinstance(item, str) or item.strip():
            items.append(item)
    return replace(document, items=tuple(items))


def filter_images(document: Interleaved, seen: SeenImages, dropped: Counter[str]) -> Interleaved:
    """The document without images that are unreadable, small, narrow, or seen too often."""
    items: list[str | NamedPicture] = []
    for item in document.items:
        rule = None if isinstance(item, str) else _image_rule(item, seen)
        if rule is None:
            items.append(item)
        else:
            dropped[rule] += 1
    return replace(document, items=tuple(items))


def _image_rule(picture: NamedPicture, seen: SeenImages) -> str | None:
    """The rule that drops an image."""
    try:
        height, width = picture.size
        if min(height, width) < LEAST_SIDE:
            return f"side below {LEAST_SIDE}"
        if not ASPECTS[0] <= width / height <= ASPECTS[1]:
            return "aspect"
        repeats = seen.count(picture.open())
    except DataError:
        return "unreadable"
    return f"seen more than {MOST_REPEATS} times" if repeats > MOST_REPEATS else None
