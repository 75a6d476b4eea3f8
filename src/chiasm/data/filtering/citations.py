"""The rule of OmniCorpus against references, sponsors and contacts (arXiv 2406.08418); see `paragraphs`."""

from __future__ import annotations

from chiasm.data.filtering import patterns
from chiasm.data.filtering.tree import Element, parse, write

LAST_PARAGRAPHS = 5  # among which a list of references ends
FEW_ELEMENTS = 20  # of a document in which references may stand anywhere


def without_citations(root: Element) -> Element:
    root = _without_numbered_references(root)
    _without_references(root)
    _without_contacts(root)
    paragraphs = root.all("p")
    if paragraphs and (text := paragraphs[-1].text) and text.startswith("(") and text.endswith(")"):
        paragraphs[-1].remove()
    return root


def _without_numbered_references(root: Element) -> Element:
    """A list `[1] ...` at a document's end, and the numbers in its text."""
    references = [each for each in root.all("p") if each.text and patterns.REFERENCE.match(each.text)]
    if not references or not _is_among_last(references[-1]):
        return root
    for each in references:
        each.remove()
    return parse(patterns.REFERENCE_NUMBER.sub("", write(root)))


def _is_among_last(paragraph: Element) -> bool:
    if paragraph.parent is None:
        return False
    siblings = [each for each in paragraph.parent.children if each.tag == "p"]
    return paragraph in siblings[-LAST_PARAGRAPHS:]


def _without_references(root: Element) -> None:
    """All behind a heading of references; anything sponsored."""
    main = next((each for each in root.children if each.tag == "main"), None)
    if main is None:
        return
    elements = list(main.walk())
    late = len(elements) - len(elements) // 4 if len(elements) > FEW_ELEMENTS else 0
    behind = False
    for element in elements[late:]:
        text = element.text
        behind |= text is not None and len(text.split(" ")) < 10 and "reference" in text.lower()
        if behind or (text is not None and "sponsore" in text.lower()):
            element.remove()


def _without_contacts(root: Element) -> None:
    """Short lines with a date, a time, a number to call or an address."""
    mains = [each for each in root.children if each.tag == "main"]
    leaves = [each for main in mains for each in main.walk() if each is not main and not each.children]
    for leaf in leaves:
        if leaf.tag == "lb" and leaf.parent is not None:
            parent = leaf.parent
            text = " ".join(each or "" for each in (parent.text, parent.tail, leaf.text, leaf.tail))
            leaf = parent
        elif leaf.tail is not None:
            text = f"{leaf.text or ''} {leaf.tail}"
        else:
            text = leaf.text or ""
        if len(text.split(" ")) < 10 and any(each.search(text) for each in patterns.CONTACTS):
            leaf.remove()
