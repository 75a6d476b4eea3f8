"""The 25 English rules by which OmniCorpus cuts from a document's paragraphs (arXiv 2406.08418).

A rule is given the root of a document's tree, cuts from it, and returns the root. They are written to give what the
released ones give, where those go wrong, too: `RULES` has their names, in their order.
"""

from __future__ import annotations

import os
import re
import string
from collections.abc import Callable, Iterable

from chiasm.data.filtering import patterns
from chiasm.data.filtering.citations import without_citations
from chiasm.data.filtering.lists import OF_DICTIONARY, OF_IMAGES, OF_PAGES
from chiasm.data.filtering.mending import (
    join_lines,
    split_at_underlines,
    without_broken_ends,
    without_video_marks,
)
from chiasm.data.filtering.tree import LINES, Element, parse, write
from chiasm.data.filtering.words import (
    flagged_ratio,
    is_unfinished,
)

Rule = Callable[[Element], Element]

AROUND = 10  # lines, and pieces of the document, round a paragraph in which an image protects it
SHORT_CAPTION = 8  # words
MOST_FLAGGED = 0.02


def discard(
    root: Element, unwanted: Callable[[str], object], tags: Iterable[str] = LINES, *, near_images: bool = True
) -> Element:
    """Take out the lines whose words, with what stands behind them, are unwanted.

    near_images: also those beside which an image stands in the file.
    """
    pieces = [] if near_images else write(root, ascii_only=False).split("<")
    for line in root.all(*tags):
        if (
            line.words is not None
            and unwanted(line.words)
            and (near_images or _far_from_images(line, pieces))
        ):
            line.remove()
    return root


def _far_from_images(line: Element, pieces: list[str]) -> bool:
    """The original counts lines of the file and pieces between `<`, whichever of the two it means."""
    if line.line is None:
        return False
    return not any("graphic" in piece for piece in pieces[max(0, line.line - AROUND) : line.line + AROUND])


def without_links(root: Element) -> Element:
    return _discard_texts(root, patterns.LINK.search)


def without_sources(root: Element) -> Element:
    return _discard_texts(root, _names_source)


def _discard_texts(root: Element, unwanted: Callable[[str], object]) -> Element:
    for paragraph in root.all("p"):
        if paragraph.text is not None and unwanted(paragraph.text):
            paragraph.remove()
    return root


def _names_source(text: str) -> bool:
    if any(each.search(text) for each in patterns.SOURCES):
        return True
    for pattern in patterns.CITATIONS:
        if match := pattern.search(text):
            return match.end() == len(text)
    return False


def without_capitals(root: Element) -> Element:
    return discard(root, _mostly_capitals, near_images=False)


def _mostly_capitals(text: str) -> bool:
    letters = sum(letter not in string.whitespace for letter in text)
    return letters > 0 and sum(letter.isupper() for letter in text) / letters > 0.8


def without_numbers(root: Element) -> Element:
    return discard(
        root,
        lambda text: not text or sum(letter.isdigit() for letter in text) / len(text) > 0.8,
        near_images=False,
    )


def without_counters(root: Element) -> Element:
    return discard(root, lambda text: text.lower().endswith(patterns.COUNTERS))


def without_single_words(root: Element) -> Element:
    return discard(root, lambda text: len(text.split()) == 1, near_images=False)


def without_buttons(root: Element) -> Element:
    return discard(
        root, lambda text: len(text.split()) <= 10 and any(each in text.lower() for each in patterns.BUTTONS)
    )


def without_flagged(root: Element) -> Element:
    return discard(root, lambda text: flagged_ratio(text) >= MOST_FLAGGED)


def without_comments(root: Element) -> Element:
    for comments in root.all("comments"):
        for child in list(comments.children):
            child.remove()
    return root


def without_page_furniture(root: Element) -> Element:
    return discard(root, lambda text: len(text) < 10 or any(each in text for each in OF_PAGES))


def without_empty_heads(root: Element) -> Element:
    """Headings go that another one of their level follows at once."""
    last = None
    for element in list(root.walk()):
        if element.tag != "head":
            last = None
            continue
        level = element.attributes.get("rend")
        if last is not None and level is not None and last.attributes.get("rend") == level:
            last.remove()
        last = element
    return root


def without_unfinished(root: Element) -> Element:
    return discard(root, is_unfinished)


def without_urls(root: Element) -> Element:
    """Does nothing, as released: it changes a copy. Only where the copy is no XML does it change the document."""
    try:
        parse(write(root, ascii_only=False).replace("&gt;", ">").replace("&lt;", "<"))
    except Exception:
        for element in root.walk():
            if element.words:
                element.text = patterns.URL.sub("", element.words.strip())
    return root


def without_captions(root: Element) -> Element:
    """Images without a file go, and short lines beside images that are about their files."""
    elements, unwanted = list(root.walk()), set()
    for index, element in enumerate(elements):
        if element.tag != "graphic":
            continue
        source = element.attributes.get("src")
        if not source or os.path.splitext(source)[1].lower() == ".html":
            unwanted.add(index)
        before = range(index - 1, -1, -1)
        unwanted |= _caption(elements, before, lambda each: bool(each.words))
        behind = range(index + 1, len(elements))
        unwanted |= _caption(elements, behind, lambda each: bool(each.text))
    for index in sorted(unwanted):
        elements[index].remove()
    return root


def _caption(elements: list[Element], order: range, has_words: Callable[[Element], bool]) -> set[int]:
    """The nearest element with words on one side of an image, if it is a caption of no use."""
    for index in order:
        element = elements[index]
        if element.tag == "graphic":
            return set()
        if has_words(element):
            text = (element.words or "").lower()
            short = len(re.findall(r"\w+", text)) < SHORT_CAPTION
            useless = element.tag != "head" and short and any(word in text for word in OF_IMAGES)
            return {index} if useless else set()
    return set()


def without_advertisements(root: Element) -> Element:
    discard(root, lambda text: text.lower() == "advertisement")
    source = root.attributes.get("source", "")
    if "www.merriam-webster" in source and "/dictionary" in source:
        elements = list(root.walk())
        of_page = (
            i
            for i, e in enumerate(elements)
            if any(each in (e.words or "").lower() for each in OF_DICTIONARY)
        )
        for element in elements[next(of_page, len(elements)) :]:
            if element.tag not in ("comments", "main"):
                element.remove()
    return root


def without_two_words(root: Element) -> Element:
    return discard(root, lambda text: len(text.split()) <= 2)


def without_four_words(root: Element) -> Element:
    return discard(root, lambda text: len(text.split()) <= 4)


def without_things_to_do(root: Element) -> Element:
    for item in root.all("item"):
        if (item.text or "").startswith("Things to do"):
            item.remove()
    return root


def without_social_media(root: Element) -> Element:
    return discard(
        root,
        lambda text: (
            patterns.SOCIAL.match(text.lower()) or any(each in text.lower() for each in patterns.MORE)
        ),
    )


def without_phones_times_authors(root: Element) -> Element:
    discard(root, _phone_time_or_author)
    for head in root.all("head"):
        if head.text is not None and _names_author(head.text):
            head.remove()
    return root


def _phone_time_or_author(text: str) -> bool:
    words = len(text.split(" "))
    phone = words < 80 and any(each.search(text) for each in patterns.PHONES)
    return phone or (words < 20 and any(each.search(text) for each in patterns.TIMES)) or _names_author(text)


def _names_author(text: str) -> bool:
    named = text.strip().lower().startswith("by ") or patterns.PHOTOGRAPHER.search(text)
    return len(text.split(" ")) < 10 and bool(named)


RULES: dict[str, Rule] = {
    "newlines_discard": join_lines,
    "underlines_split": split_at_underlines,
    "video_field_discard": without_video_marks,
    "fulltext_discard": without_broken_ends,
    "filter_download_links": without_links,
    "filter_source_references": without_sources,
    "uppercase_discard": without_capitals,
    "numerical_discard": without_numbers,
    "social_media_counter_discard": without_counters,
    "one_word_discard": without_single_words,
    "short_discard": without_buttons,
    "porn_discard": without_flagged,
    "comments_discard": without_comments,
    "header_footer_discard": without_page_furniture,
    "heads_discard": without_empty_heads,
    "readme_discard": without_unfinished,
    "url_discard": without_urls,
    "image_caption_discard": without_captions,
    "advertisement_discard": without_advertisements,
    "re_short_long_paragraphs": without_two_words,
    "tooshort_discard": without_four_words,
    "aberrant_item_discard": without_things_to_do,
    "cite_discard": without_citations,
    "social_media_discard": without_social_media,
    "phonenum_author_time_discard": without_phones_times_authors,
}
