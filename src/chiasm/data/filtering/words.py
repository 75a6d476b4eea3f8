"""Words of an English text: those of the Penn Treebank, sentences, and how many are flagged."""

from __future__ import annotations

import re
from collections.abc import Iterator

from chiasm.data.filtering.lists import FLAGGED, STRIPPED, UNFINISHED

SENTENCE_ENDS = (".", "!", "?")
CLOSED = (*SENTENCE_ENDS, "”", '"')
_BETWEEN = r"(?<!\w\.\w.)(?<![A-Z][a-z]\.)(?<=\.|\?|\!)"  # behind a sentence, and not behind `e.g.` or `Mr.`
_SENTENCES = re.compile(_BETWEEN + r"\s")
_CLOSED_SENTENCES = re.compile(rf"({_BETWEEN}(?:\"|')?\s)")
_ENGLISH = re.compile(r"[a-zA-Z0-9]")


def _compiled(*replacements: tuple[str, str]) -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(pattern), replacement) for pattern, replacement in replacements]


# How a line of text is broken at its punctuation, step by step: quotes that open, punctuation, quotes that close,
# clitics (`do n't`), contractions (`gon na`). As NLTK's `word_tokenize` does it behind its splitting of sentences.
_STEPS = _compiled(
    (r"([«“‘„]|[`]+)", r" \1 "),
    (r'^"', "``"),
    (r"(``)", r" \1 "),
    (r"([ (\[{<])(\"|'{2})", r"\1 `` "),
    (r"(?i)(?<!\w)(')(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", r"\1 "),
    (r"([^.])(\.)([\])}>\"'»”’ ]*)\s*$", r"\1 \2 \3 "),
    (r"([:,])([^\d])", r" \1 \2"),
    (r"([:,])$", r" \1 "),
    (r"\.{2,}", r" \g<0> "),
    (r"[;@#$%&]", r" \g<0> "),
    (r"([^.])(\.)([\])}>\"']*)\s*$", r"\1 \2\3 "),
    (r"[?!]", r" \g<0> "),
    (r"([^'])' ", r"\1 ' "),
    (r"[*]", r" \g<0> "),
    (r"[\]\[(){}<>]", r" \g<0> "),
    (r"--", r" -- "),
)
_CLOSING = _compiled(
    (r"([»”’])", r" \1 "),
    (r"''", " '' "),
    (r'"', " '' "),
    (r"\s+", " "),
    (r"([^' ])('[sS]|'[mM]|'[dD]|') ", r"\1 \2 "),
    (r"([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", r"\1 \2 "),
    (r"(?i)\b(can)(not)\b", r" \1 \2 "),
    (r"(?i)\b(d)('ye)\b", r" \1 \2 "),
    (r"(?i)\b(gim)(me)\b", r" \1 \2 "),
    (r"(?i)\b(gon)(na)\b", r" \1 \2 "),
    (r"(?i)\b(got)(ta)\b", r" \1 \2 "),
    (r"(?i)\b(lem)(me)\b", r" \1 \2 "),
    (r"(?i)\b(more)('n)\b", r" \1 \2 "),
    (r"(?i)\b(wan)(na)(?=\s)", r" \1 \2 "),
    (r"(?i) ('t)(is)\b", r" \1 \2 "),
    (r"(?i) ('t)(was)\b", r" \1 \2 "),
)


def treebank_words(text: str) -> list[str]:
    """Words and punctuation marks, each alone; a period belongs to its word but at the end of the text."""
    for pattern, replacement in _STEPS:
        text = pattern.sub(replacement, text)
    text = f" {text} "
    for pattern, replacement in _CLOSING:
        text = pattern.sub(replacement, text)
    return text.split()


def without_broken_beginning(text: str) -> str:
    """The text from its first whole sentence on."""
    pieces = _CLOSED_SENTENCES.split(text)
    for start, piece in enumerate(pieces):
        if not piece or piece.endswith(CLOSED):
            return "".join(pieces[start:])
    return ""


def without_broken_end(text: str) -> str:
    """The text up to its last whole sentence."""
    pieces = _CLOSED_SENTENCES.split(text)
    for end in range(len(pieces), 0, -1):
        if not pieces[end - 1] or pieces[end - 1].endswith(CLOSED):
            return "".join(pieces[:end])
    return ""


def flagged_ratio(text: str) -> float:
    """The share of words that are flagged as pornographic."""
    words = [word for word in _bare(text) if word]
    return sum(word in FLAGGED for word in words) / len(words) if words else 0.0


def _bare(text: str) -> Iterator[str]:
    for word in re.split("[ \n\t]", text.lower()):
        yield word.strip(STRIPPED)


def is_unfinished(text: str) -> bool:
    """Whether its last sentence says that there is more elsewhere (`Read more`)."""
    words = [word.lower() for word in treebank_words(text)]
    return any(_holds(words, phrase.lower().split()) and _ends_with(text, phrase) for phrase in UNFINISHED)


def _ends_with(text: str, phrase: str) -> bool:
    sentences = _SENTENCES.split(text)
    last = sentences[-1]
    if not _holds([word.lower() for word in treebank_words(last)], phrase.lower().split()):
        return False
    # Only the first two words are looked for, in the phrase's own capitals, as in the original.
    begin = " ".join(phrase.split()[:2])
    behind = last[last.lower().rfind(begin) + len(begin) :]
    open_end = not last.endswith(SENTENCE_ENDS) and not _ENGLISH.search(behind)
    return open_end or len(sentences) == 1


def _holds(words: list[str], phrase: list[str]) -> bool:
    return any(words[i : i + len(phrase)] == phrase for i in range(len(words) - len(phrase) + 1))
