"""Special tokens as the chat template writes them, and text that only looks like them.

Between a template and the tokenizer, text is *marked*: each special token stands as its number between two code
points that Unicode keeps for a program's own use, so that `</s>` in somebody's text is four letters and no end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from chiasm.errors import DataError
from tokenizers import AddedToken, Tokenizer

OPEN, CLOSE = "\ufdd0", "\ufdd1"  # round a special token's number
READ, WRITTEN = "\ufdd2", "\ufdd3"  # an image that is looked at, one that is made
APART = "\ufdd4"  # within what only looks like a special token
END = "\ufdd5"  # behind the last letter of a message
RESERVED = re.compile("[\ufdd0-\ufdef]")
TOKEN = re.compile(f"{OPEN}(\\d+){CLOSE}")
_LETTER = "a"


class SpecialTokens:
    """A fast tokenizer that sees special tokens only where they are marked.

    inner: transformers' tokenizer.
    structural: tokens that count as special beside those that the tokenizer calls so: a template's marks of turns.
    image: the token that stands for an image that is looked at, if the tokenizer has one. With it, text on both
        sides of an image is tokenized together, as processors of transformers do; without, each side alone.
    """

    def __init__(self, inner: Any, structural: Collection[str] = (), image: str | None = None):
        layout = inner.backend_tokenizer.to_str()
        added = {each["content"]: each for each in json.loads(layout)["added_tokens"]}
        self.together = image is not None
        self.ids = {text: each["id"] for text, each in added.items() if each["special"] or text in structural}
        tokenizer = _marking(layout, self.ids)
        hidden = [text for text, id in self.ids.items() if not _sees(tokenizer, id)]  # by its normalizer
        if hidden:
            self.ids = {text: id for text, id in self.ids.items() if text not in hidden}
            tokenizer = _marking(layout, self.ids)
        self._back = {tokenizer.token_to_id(_mark(id)): id for id in self.ids.values()}
        sides = {side: bool(added.get(image or "", {}).get(side)) for side in ("lstrip", "rstrip")}
        tokenizer.add_special_tokens([AddedToken(READ, **sides), AddedToken(WRITTEN)])
        self.unknown = _unknown(json.loads(layout)["model"])
        self._images = {tokenizer.token_to_id(each) for each in (READ, WRITTEN)}
        self._tokenizer = tokenizer
        texts = sorted(self.ids, key=len, reverse=True)
        self._pattern = re.compile(f"(?:{'|'.join(map(re.escape, texts))})(?!{APART})") if texts else None

    def protect(self, text: str) -> str:
        """Somebody's text, whose special tokens are none; raises DataError for code points that are no text."""
        text = self.checked(text)
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: match[0][0] + APART + match[0][1:], text)

    def checked(self, text: str) -> str:
        """The text; raises DataError for what no tokenizer can read."""
        reserved = RESERVED.search(text)
        if reserved is not None:
            raise DataError(f"a text holds U+{ord(reserved[0]):04X}, which is no character")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"a text holds half a character, U+{ord(text[error.start]):04X}") from None
        return text

    def mark(self, text: str) -> str:
        """A rendered template's text, its special tokens marked."""
        if self._pattern is not None:
            text = self._pattern.sub(lambda match: f"{OPEN}{self.ids[match[0]]}{CLOSE}", text)
        return text.replace(APART, "")

    def plain(self, marked: str) -> str:
        """Marked text as one reads it."""
        names = {id: text for text, id in self.ids.items()}
        return TOKEN.sub(lambda match: names[int(match[1])], marked)

    def encode(
        self, marked: str, *, continued: bool = False
    ) -> tuple[list[int | None], list[tuple[int, int]]]:
        """Ids of marked text, None for an image, and where each begins and ends in it.

        continued: words follow. Space at its end is cut as it is before a letter: GPT-2's tokenizer has one token
            for two line breaks at the end of a text, and two tokens for them before a word.
        """
        encoding = self._tokenizer.encode(marked, add_special_tokens=False)
        ids, offsets = encoding.ids, encoding.offsets
        if continued and marked[-1:].isspace():
            longer = self._tokenizer.encode(marked + _LETTER, add_special_tokens=False)
            count = sum(stop <= len(marked) for _, stop in longer.offsets)
            if count and longer.offsets[count - 1][1] == len(marked):  # no token reaches into the letter
                ids, offsets = longer.ids[:count], longer.offsets[:count]
        return [None if id in self._images else self._back.get(id, id) for id in ids], offsets


def _unknown(model: Mapping[str, Any]) -> int | None:
    """The id that stands for what the vocabulary has no token for; None where there is no such id."""
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    vocabulary = model["vocab"]
    return vocabulary.get(model.get("unk_token")) if isinstance(vocabulary, Mapping) else None


def _mark(id: int) -> str:
    return f"{OPEN}{id}{CLOSE}"


def _sees(tokenizer: Tokenizer, id: int) -> bool:
    return (
        tokenizer.token_to_id(_mark(id)) in tokenizer.encode(f"a{_mark(id)}b", add_special_tokens=False).ids
    )


def _marking(layout: str, ids: Mapping[str, int]) -> Tokenizer:
    """The tokenizer with every special token under its mark, its own name being text like any other."""
    content: dict[str, Any] = json.loads(layout)
    marks = {text: _mark(id) for text, id in ids.items()}
    for each in content["added_tokens"]:
        each["content"] = marks.get(each["content"], each["content"])
    model = content["model"]
    pairs = (pair if isinstance(pair, list) else pair.split(" ") for pair in model.get("merges", ()))
    words = {word for left, right in pairs for word in (left, right, left + right) if word in marks}
    names = {text: mark for text, mark in marks.items() if text not in words}  # what merges make is text too
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(text, text): id for text, id in model["vocab"].items()}
    else:
        model["vocab"] = [[names.get(text, text), score] for text, score in model["vocab"]]
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    content |= {"post_processor": None, "truncation": None, "padding": None}
    return Tokenizer.from_str(json.dumps(content))
