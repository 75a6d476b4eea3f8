"""Stretches of a conversation: text that is learnt or not, and images, as marked text and as ids."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from chiasm.data.sample import Media
from chiasm.errors import DataError, excerpt
from chiasm.language.special import OPEN, READ, WRITTEN, SpecialTokens
from chiasm.language.turns import Rendered


@dataclass(frozen=True)
class TextRun:
    """A stretch of text that is learnt or not, or an image or a signal that is read or written."""

    text: str
    learn: bool
    media: Media | None = None


@dataclass(frozen=True)
class Tokens:
    """The same as ids."""

    ids: Sequence[int]
    learn: bool
    media: Media | None = None


def cut_runs(rendered: Rendered, read: Sequence[Media], written: Sequence[Media]) -> list[TextRun]:
    """Runs of marked text and pictures; raises DataError where the template leaves pictures out."""
    text = rendered.text
    for mark, pictures in ((READ, read), (WRITTEN, written)):
        if text.count(mark) != len(pictures):
            raise DataError(
                f"the chat template shows {text.count(mark)} of the {len(pictures)} images of the conversation"
            )
    bounds = sorted({0, len(text), *(edge for span in rendered.learnt for edge in span)})
    waiting = {READ: iter(read), WRITTEN: iter(written)}
    runs = []
    ends = [end for _, end in rendered.learnt]
    for start, stop in pairwise(bounds):
        span = bisect_right(ends, start)
        learn = span < len(ends) and rendered.learnt[span][0] <= start
        for piece in re.split(f"([{READ}{WRITTEN}])", text[start:stop]):
            picture = next(waiting[piece]) if piece in waiting else None
            runs.append(TextRun("" if picture else piece, learn or piece == WRITTEN, picture))
    return joined(runs)


def between_pictures(runs: Sequence[TextRun]) -> list[list[TextRun]]:
    """Neighbouring text as one stretch, each picture as one of its own."""
    stretches: list[list[TextRun]] = []
    for run in runs:
        if stretches and run.media is None and stretches[-1][-1].media is None:
            stretches[-1].append(run)
        else:
            stretches.append([run])
    return stretches


def joined(runs: Sequence[TextRun]) -> list[TextRun]:
    """Neighbouring text of one kind joined; empty text dropped."""
    result: list[TextRun] = []
    for run in runs:
        last = result[-1] if result else None
        if run.media is None and not run.text:
            continue
        if last and run.media is None and last.media is None and last.learn == run.learn:
            result[-1] = TextRun(last.text + run.text, run.learn)
        else:
            result.append(run)
    return result


def tokenized(
    runs: Sequence[TextRun], special: SpecialTokens, *, continued: bool, whole: bool = False
) -> list[Tokens]:
    """Runs as tokens: one that reaches into what is learnt is learnt.

    continued: words follow. whole: letters that are learnt and have no token are a DataError.
    """
    text, learnt, pictures = "", [], []
    for run in runs:
        if run.media is not None:
            pictures.append(run)
            text += WRITTEN if run.learn else READ
            continue
        if run.learn:
            learnt.append((len(text), len(text) + len(run.text)))
        text += run.text
    tokens: list[Tokens] = []
    ends = [end for _, end in learnt]
    waiting = iter(pictures)
    for id, (start, stop) in zip(*special.encode(text, continued=continued), strict=True):
        if id is None:
            picture = next(waiting)
            tokens.append(Tokens((), picture.learn, picture.media))
            continue
        span = bisect_right(ends, start)  # the first that ends behind the token's start
        learn = span < len(learnt) and max(stop, start + 1) > learnt[span][0]
        letters = text[start:stop].strip() if whole and learn and id == special.unknown else ""
        if letters and letters[0] != OPEN:
            raise DataError(
                f"the text tokenizer has no token for {excerpt(letters)!r}, which is to be "
                "learnt: a model would learn to answer with its sign for what is unknown",
                "unknown characters",
            )
        if tokens and tokens[-1].media is None and tokens[-1].learn == learn:
            tokens[-1].ids.append(id)  # type: ignore[attr-defined]
        else:
            tokens.append(Tokens([id], learn))
    return tokens
