"""A document as a tree of elements with text and tails, which rules cut from: XML in, XML out.

It behaves as the trees of lxml do, for which OmniCorpus's rules were written: an element that is removed takes its
tail with it, and stays a parent of what is in it. Comments and processing instructions are not kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from chiasm.errors import DataError, excerpt

_IN_TEXT = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"})
_IN_ATTRIBUTES = _IN_TEXT | str.maketrans({'"': "&quot;", "\n": "&#10;", "\t": "&#9;"})
MOST_DEPTH = 200  # elements within elements
LINES = ("p", "lb")  # tags of paragraphs, and of lines broken within them


@dataclass(eq=False)
class Element:
    """text: what stands in it before its first child; tail: what stands behind it. None: there is no such text.

    line: of the file where it stood; None for an element that a rule has added.
    """

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    text: str | None = None
    tail: str | None = None
    line: int | None = None
    parent: Element | None = None
    children: list[Element] = field(default_factory=list)

    @property
    def words(self) -> str | None:
        """Its text and its tail, which rules take together."""
        if self.text is None and self.tail is None:
            return None
        return (self.text or "") + (self.tail or "")

    def walk(self) -> Iterator[Element]:
        """Itself and all below it, in the document's order."""
        yield self
        for child in self.children:
            yield from child.walk()

    def all(self, *tags: str) -> list[Element]:
        """The elements of some tags, in the document's order."""
        return [each for each in self.walk() if each.tag in tags]

    def remove(self) -> bool:
        """Take it out of its parent, with its tail; False where it has been taken out already."""
        if self.parent is None:
            return False
        self.parent.children.remove(self)
        self.parent = None
        return True

    def add_next(self, other: Element) -> None:
        """Put another element, which has no tail, directly behind it."""
        assert self.parent is not None
        siblings = self.parent.children
        siblings.insert(siblings.index(self) + 1, other)
        other.parent = self.parent


def parse(text: str) -> Element:
    """The root of an XML document; raises DataError. Entities of a document's own are refused."""
    builder = _Builder()
    try:
        builder.parser.Parse(text, True)
    except (expat.ExpatError, ValueError) as error:  # ValueError: letters that no encoding has
        raise DataError(f"{excerpt(text)} is no XML: {error}", "broken XML") from None
    assert builder.root is not None
    return builder.root


def write(element: Element, *, ascii_only: bool = True) -> str:
    """As lxml's `tostring` writes it; with `ascii_only`, other letters as numbers."""
    pieces: list[str] = []
    _write(element, pieces)
    text = "".join(pieces)
    return text.encode("ascii", "xmlcharrefreplace").decode() if ascii_only else text


class _Builder:
    def __init__(self) -> None:
        self.root: Element | None = None
        self._open: list[Element] = []
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.EntityDeclHandler = self._refuse

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        parent = self._open[-1] if self._open else None
        element = Element(tag, attributes, line=self.parser.CurrentLineNumber, parent=parent)
        if parent is None:
            self.root = element
        else:
            parent.children.append(element)
        self._open.append(element)
        if len(self._open) > MOST_DEPTH:
            raise DataError(f"more than {MOST_DEPTH} elements stand within one another", "broken XML")

    def _end(self, tag: str) -> None:
        self._open.pop()

    def _characters(self, text: str) -> None:
        element = self._open[-1]
        if element.children:
            last = element.children[-1]
            last.tail = (last.tail or "") + text
        else:
            element.text = (element.text or "") + text

    def _refuse(self, name: str, *_: object) -> None:
        raise DataError(f"the document defines the entity {excerpt(name)}; write its text out", "broken XML")


def _write(element: Element, pieces: list[str]) -> None:
    attributes = "".join(
        f' {key}="{value.translate(_IN_ATTRIBUTES)}"' for key, value in element.attributes.items()
    )
    if element.text is None and not element.children:
        pieces.append(f"<{element.tag}{attributes}/>")
    else:
        pieces.append(f"<{element.tag}{attributes}>{(element.text or '').translate(_IN_TEXT)}")
        for child in element.children:
            _write(child, pieces)
        pieces.append(f"</{element.tag}>")
    pieces.append((element.tail or "").translate(_IN_TEXT))
