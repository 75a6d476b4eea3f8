"""Patterns and phrases of OmniCorpus's English rules (arXiv 2406.08418)."""

from __future__ import annotations

import re

UNDERLINE = re.compile(r"_{15,}")
LINK = re.compile(r"for details on the|the link is", re.IGNORECASE)
SOURCES = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (r"^special thanks", r"published\s*by", r"all\s*photo\s*credits\s*and\s*copyright")
]
CITATIONS = [re.compile(r"\(cf\..*?\)$"), re.compile(r"\([\w\s&,]+\s*,\s*\d{4,}\)$")]  # at a paragraph's end
COUNTERS = ("likes", "followers", "subscribes", "share", "comments", "comments:", "comment", "comment.")
BUTTONS = ("sign-in", "sign in", "sign up", "read more", "item in cart")
URL = re.compile(
    r"(https?|ftp|file)://[-A-Za-z0-9+&@#/%?=~_|!:,.;]+[-A-Za-z0-9+&@#/%=~_|]"
    r"|[a-zA-Z0-9][-a-zA-Z0-9]+([@.][a-zA-Z0-9][-a-zA-Z0-9/]+){2,}/?",
    re.IGNORECASE,
)
REFERENCE = re.compile(r"\[\d{1,2}\]\s.*(?<=\.)")
REFERENCE_NUMBER = re.compile(r"\s\[\d{1,2}\]")

_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_SHORT_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_DATES = (
    rf"(?:{_MONTHS})\s\d{{1,2}},\s\d{{4}}",
    rf"(?:{_SHORT_MONTHS})\s\d{{1,2}},\s\d{{4}}",
    rf"\d{{1,2}}\s(?:{_SHORT_MONTHS})\s\d{{4}}",
)
_CLOCKS = (
    r"\b\d{1,2}[:.]\d{2}\s*(a|p)?\.?m\.?\b",
    r"\b([01]?[0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?\b",
    r"\b([01]?[0-9]|2[0-3])(:[0-5][0-9])?([ap]\.?m\.?)\b",
    r"\b([01]?[0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.\d{1,6}\b",
)
TIMES = [re.compile(pattern) for pattern in (*_DATES, *_CLOCKS)]
PHONES = [re.compile(r"\d{3}-\d{3}-\d{4}"), re.compile(r"\(\d{3}\)\s?\d{3}-\d{4}")]
PHOTOGRAPHER = re.compile(r"\(Photo:[A-Z,a-z,\s]{0,20}\)")
CONTACTS = [
    re.compile(pattern)
    for pattern in (
        "published on",
        "published by",
        r"\d{4}-\d{2}-\d{2}",
        r"\d{2}-\d{2}-\d{2}",
        r"\d{4}/\d{2}/\d{2}",
        r"\d{2}/\d{2}/\d{4}",
        *_DATES,
        r"@[a-zA-Z0-9_]+([\.-][a-zA-Z0-9_]+)*",
        r"\b[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Z|a-z]{2,}\b",
        r"\d{3}-\d{3}-\d{4}",
        r"https?://(?:[-\w.]|(?:%[\da-fA-F]{2}))+",
        *_CLOCKS,
    )
]

_TAGS = (
    "references", "like", "likes", "share", "shares", "comment", "comments", "review", "reviews", "reviews about",
    "call us at", "email us at", "more images", "users online", "copyright", "subscribe", "subscribes",
)  # fmt: skip
SOCIAL = re.compile(rf"^.*(?:{'|'.join(_TAGS)}) *:? *$")
MORE = (
    "for more info", "for more detail", "top threads", "most read", "most viewed", "most shared", "most liked",
    "more here",
)  # fmt: skip
