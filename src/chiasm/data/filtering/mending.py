"""Rules of OmniCorpus that mend text instead of cutting it (arXiv 2406.08418); see `paragraphs`."""

from __future__ import annotations

import string
from collections.abc import Callable

from chiasm.data.filtering import patterns
from chiasm.data.filtering.tree import LINES, Element, parse, write
from chiasm.data.filtering.words import without_broken_beginning, without_broken_end

SENTENCE_MARKS = ".!?:;)'\""


def join_lines(root: Element) -> Element:
    """Line breaks go that stand within a sentence."""
    for element in root.walk():
        if element.text is None:
            continue
        element.text = _joined(element.text)
        if element.tail is not None:
            element.tail = _joined(element.tail)
    return root


def _joined(text: str) -> str:
    last, letters = "a", []
    for letter in text:
        if letter not in string.whitespace:
            last = letter
        if letter != "\n" or last in SENTENCE_MARKS:
            letters.append(letter)
    return "".join(letters)


def split_at_underlines(root: Element) -> Element:
    """An element with a long underline becomes several; those behind the first come in reverse."""
    for element in list(root.walk()):
        if element.parent is None or not patterns.UNDERLINE.search(element.words or ""):
            continue
        parts = [part for part in patterns.UNDERLINE.split(element.words or "") if part]
        if not parts:
            element.remove()
        elif len(parts) == 1:
            element.text = element.tail = parts[0]
        else:
            element.text, element.tail = parts[0], ""
            for part in parts[:0:-1]:
                added = Element(element.tag, text=part)
                element.add_next(added)
                element = added
    return root


def without_video_marks(root: Element) -> Element:
    text = write(root)
    return parse(text.replace("[Video]", "")) if "[Video]" in text else root


def without_broken_ends(root: Element) -> Element:
    """The document begins with a whole sentence and ends with one."""
    for line in root.all(*LINES):
        if _mended(line, ("text", "tail"), without_broken_beginning):
            break
    for line in reversed(root.all(*LINES)):
        if _mended(line, ("tail", "text"), without_broken_end):
            break
    return root


def _mended(line: Element, fields: tuple[str, str], mend: Callable[[str], str]) -> bool:
    """Whether something of the line remains; the second field is mended only where nothing remains of the first."""
    for name in fields:
        text = getattr(line, name)
        if not text:
            return False
        setattr(line, name, mend(text))
        if getattr(line, name):
            return True
    return False
