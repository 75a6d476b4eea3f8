"""Which whole documents OmniCorpus drops for their text, once its paragraphs are cut (arXiv 2406.08418)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from html import unescape

from chiasm.data.filtering.paragraphs import MOST_FLAGGED, RULES
from chiasm.data.filtering.tree import LINES, Element
from chiasm.data.filtering.words import flagged_ratio, treebank_words

PASSES = 3  # of all rules over a document, in the released driver
WORDS = (50, 100_000)  # fewest and most
WORD_LENGTH = (3, 10)  # mean letters
LEAST_ALPHABETIC = 0.8  # of words, those with a letter
STOP_WORDS = frozenset({"the", "is", "are", "am", "to", "of", "and", "that", "have", "with"})
LEAST_STOP_WORDS = 2
FEW_IMAGES = 2  # of which any text is enough
WORDS_PER_IMAGE = 50
SHORT_PARAGRAPHS = (35, 12)  # words: all below the first and their mean below the second
_BLOCKS = frozenset({"code", "graphic", "head", "lb", "list", "p", "quote", "row", "table"})


def cut_paragraphs(root: Element, counts: Counter[str] | None = None) -> Element:
    """All rules of paragraphs, once. counts: gets how many elements fewer each rule left."""
    for name, rule in RULES.items():
        before = sum(1 for _ in root.walk())
        root = rule(root)
        gone = before - sum(1 for _ in root.walk())
        if counts is not None and gone:
            counts[name] += gone
    return root


def dropped_by(root: Element, images: int = 0) -> str | None:
    """The rule that drops a document, None if it stays. images: that stand in it."""
    text = plain_text(root)
    words = treebank_words(text)
    if not words or not WORDS[0] <= len(words) <= WORDS[1]:
        return "words"
    if not WORD_LENGTH[0] <= sum(map(len, words)) / len(words) <= WORD_LENGTH[1]:
        return "word length"
    if sum(any(letter.isalpha() for letter in word) for word in words) / len(words) <= LEAST_ALPHABETIC:
        return "words without letters"
    if sum(word in STOP_WORDS for word in words) < LEAST_STOP_WORDS:
        return "stop words"
    if flagged_ratio(text) > MOST_FLAGGED:
        return "flagged words"
    if images > FEW_IMAGES and len(text.split()) / images < WORDS_PER_IMAGE:
        return "words per image"
    return "short paragraphs" if _all_short(root) else None


def filtered(
    root: Element, images: int = 0, counts: Counter[str] | None = None
) -> tuple[Element, str | None]:
    """What `PASSES` passes of all rules leave, and the rule that drops the document.

    counts: as for `cut_paragraphs`.
    """
    dropped = None
    for _ in range(PASSES):
        root = cut_paragraphs(root, counts)
        dropped = dropped_by(root, images)
        if dropped:
            break
    return root, dropped


def plain_text(root: Element) -> str:
    """The text of a document, lines trimmed and empty ones left out."""
    text = "".join(_pieces(root))
    lines = ("".join(letter for letter in line if letter.isprintable() or letter.isspace()).split()
             for line in text.splitlines())  # fmt: skip
    return unescape("\n".join(" ".join(line) for line in lines if line))


def _pieces(root: Element) -> Iterator[str]:
    for element in root.walk():
        words = element.words
        if words is None:
            yield "\n" if element.tag in ("graphic", "row", "table") else ""
            continue
        if element.tag == "ref" and element.text is not None:
            words = _link(element) + (element.tail or "")
        if element.tag in _BLOCKS:
            yield f"\n{words}\n"
        elif element.tag == "item":
            yield f"\n- {words}\n"
        elif element.tag == "cell":
            yield f"|{words}|"
        elif element.tag == "comments":
            yield "\n\n"
        else:
            yield f"{words} "


def _link(element: Element) -> str:
    target = element.attributes.get("target")
    return f"[{element.text}]" if target is None else f"[{element.text}]({target})"


def _all_short(root: Element) -> bool:
    lengths = [len(line.words.split()) for line in root.all(*LINES) if line.words is not None]
    longest, least_mean = SHORT_PARAGRAPHS
    return max(lengths, default=0) < longest and (not lengths or sum(lengths) / len(lengths) < least_mean)
