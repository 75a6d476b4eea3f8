"""Samples to documents.

The data side knows of a model only its `Contract`, which is plain data: how many positions an image takes, from its
size alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from chiasm.data.clip import check_sheet
from chiasm.data.contract import Contract
from chiasm.data.picture_reader import PictureReader
from chiasm.data.sample import Masks, Message, Picture, Sample, Signal
from chiasm.errors import TOO_LONG, DataError
from chiasm.sequence import Document, Kind

if TYPE_CHECKING:
    from chiasm.heads import SpanLayout

__all__ = [
    "NO_SOURCE",
    "Contract",
    "PictureReader",
    "document",
    "draw_prompt",
    "prompt_of",
    "reads_picture",
    "source_of",
    "without_prompt",
    "writes_picture",
]

NO_SOURCE = (
    "this model's image decoder changes an image, and no image stands before the one that it shall write"
)


def document(
    contract: Contract,
    sample: Sample,
    *,
    prompt: bool = False,
    draws: bool = False,
    unconditional: bool = False,
    blind: bool = False,
) -> Document:
    """A sample as one document.

    prompt: the last message is the user's, and an answer is asked for.
    draws: that answer is a picture.
    unconditional: what stands before a written picture is dropped, for classifier-free guidance.
    blind: pictures that are read are left out, for the control of an evaluation.
    Raises DataError naming the sample.
    """
    if unconditional:
        return _unconditional(contract, sample)
    if sample.masks is not None:
        return _masked(contract, sample, sample.masks)
    result = Document(sample.name)
    if len(sample.messages) > contract.context:  # each takes a token at least
        raise DataError(
            f"{sample.name} has {len(sample.messages)} messages but the context is {contract.context} tokens",
            TOO_LONG,
        )
    try:
        runs = contract.tokenizer.tokens(
            sample.messages if contract.says else _only_read(sample.messages),
            prompt=prompt,
            draws=(draws or writes_picture(sample)) and not _after_words(contract),
            tools=sample.tools,
        )
    except DataError as error:
        named = DataError(f"{sample.name}: {error}", error.kind)
        named.field = error.field
        raise named from None
    answer: int | None = None
    number = 0  # of the images that are read
    caption = 0  # words of an answer, since its beginning or its last image
    for run in runs:
        if run.learn and answer is None:
            answer, draws = len(result), isinstance(run.media, Picture)
        if run.media is None:
            result.add_text(run.ids, learn=run.learn and contract.says)
            caption = caption + len(run.ids) if run.learn else 0
        elif isinstance(run.media, Signal):
            _add_signal(contract, result, run.media, Kind.WRITTEN if run.learn else Kind.READ)
            caption = 0
        elif run.learn:
            _add_written(contract, result, run.media, words=caption, source=source_of(result))
            caption = 0
        elif not blind and contract.shown is not None:
            _add_codes(contract, result, run.media, Kind.READ, contract.shown)
        elif not blind:
            length = contract.read_tokens(run.media.size, sample.name)
            opens = [True] + [not contract.whole_pictures] * (length - 1)
            result.add_text(contract.tokenizer.before_read(number), learn=False)
            cells = contract.read_coordinates(run.media.size, sample.name) if contract.encodes_prompt else ()
            words = contract.read_words(run.media.size, sample.name)
            end = contract.tokenizer.end
            result.add_picture(run.media, Kind.READ, end, opens, [True] * length, cells, words)
            result.add_text(contract.tokenizer.behind_read, learn=False)
            number += 1
    _join_prompt(contract, result, len(result) if answer is None else answer, image=draws)
    return result.check(contract.context)


def _masked(contract: Contract, sample: Sample, masks: Masks) -> Document:
    """A question, and the positions of the masks that answer it."""
    if not contract.mask_positions:
        raise DataError(
            f"{sample.name} asks for masks, but this model has no mask head (heads.mask)", "masks"
        )
    if contract.most_masks is not None and masks.count > contract.most_masks:
        raise DataError(
            f"{sample.name} asks for {masks.count} masks, but this model's mask head writes {contract.most_masks} "
            "at most; give it more (queries, targets), or leave the sample out",
            "too many masks",
        )
    result = document(contract, replace(sample, masks=None), prompt=sample.messages[-1].role != "assistant")
    if not result.slots or result.slots[-1].kind != Kind.READ:
        raise DataError(f"{sample.name} asks for masks, but reads no image last", "masks")
    result.add_masks(masks, contract.tokenizer.end, contract.mask_positions)
    return result.check(contract.context)


def draw_prompt(contract: Contract, sample: Sample, *, unconditional: bool = False) -> Document:
    """The document behind which a picture is written; it ends with the marker, if the model has one.

    Where words come first, it ends where they begin.
    """
    if _after_words(contract):
        return document(contract, sample, prompt=True)
    result = document(contract, sample, prompt=True, draws=True)
    result.add_text(contract.tokenizer.before_picture, learn=False)
    return without_prompt(contract, result) if unconditional else result.check(contract.context)


def _after_words(contract: Contract) -> bool:
    """Whether images follow words that are written for them."""
    return contract.span is not None and contract.span.follows_words


def without_prompt(contract: Contract, prompt: Document) -> Document:
    """What stands for a prompt (`draw_prompt`) in the rows of guidance that have none."""
    end = len(prompt) - len(contract.tokenizer.before_picture)
    result = _empty(contract, prompt.name, prompt.ids[:end])
    result.add_text(prompt.ids[end:], learn=False)
    return result.check(contract.context)


def _join_prompt(contract: Contract, result: Document, answer: int, *, image: bool) -> None:
    """Make one block of what an encoder reads: all before the position that predicts an answer.

    answer: where the first one begins, or will. image: it begins with an image.
    """
    if contract.encodes_prompt:
        alone = image and not contract.tokenizer.before_picture and contract.span is not None
        result.join(answer + (min(contract.span.rows) if alone and contract.span is not None else -1))


def writes_picture(sample: Sample) -> bool:
    return any(
        m.role == "assistant" and any(isinstance(c, Picture) for c in m.content) for m in sample.messages
    )


def _only_read(messages: Sequence[Message]) -> list[Message]:
    """The messages for a model that predicts no words: answers in words need no end."""
    words = (all(isinstance(item, str) for item in message.content) for message in messages)
    return [replace(message, learnt=message.learnt and not only) for message, only in zip(messages, words)]


def reads_picture(sample: Sample) -> bool:
    return any(
        m.role != "assistant" and any(isinstance(c, Picture) for c in m.content) for m in sample.messages
    )


def _empty(contract: Contract, name: str, prompt: Sequence[int]) -> Document:
    """What stands before a picture that follows no prompt, without the picture's marker."""
    result = Document(f"{name} (empty prompt)")
    if contract.span is None or not contract.span.bare:
        ids = contract.tokenizer.emptied(prompt)
        seen = 1 if contract.tokenizer.hides else len(ids)
        result.add_text(ids[:seen], learn=False)
        result.add_text(ids[seen:], learn=False, exposed=False)
    _join_prompt(contract, result, len(result), image=True)
    return result


def _unconditional(contract: Contract, sample: Sample) -> Document:
    prompt = (
        document(contract, prompt_of(sample), prompt=True, draws=True) if len(sample.messages) > 1 else None
    )
    result = _empty(contract, sample.name, prompt.ids if prompt else [])
    last: Picture | None = None
    for message in sample.messages:
        for item in message.content:
            if message.role == "assistant" and isinstance(item, Picture):
                _add_written(contract, result, item, learn=False, source=last)
            last = item if isinstance(item, Picture) else last
    return result.check(contract.context)


def _add_written(
    contract: Contract,
    result: Document,
    picture: Picture,
    *,
    learn: bool = True,
    words: int = 0,
    source: Picture | None = None,
) -> None:
    """words: how many tokens of the answer stand before the picture. source: the last picture before it."""
    if contract.span is None:
        raise DataError(f"{result.name} writes a picture, but this model has no image head")
    if contract.span.follows_words and not words:
        raise DataError(
            f"{result.name} writes an image with no words before it in its answer, but this model draws after "
            "words; let the answer begin with them (the built-in world's task 'captioned')",
            "no words before an image",
        )
    if contract.changes_images and source is None:
        raise DataError(
            f"{result.name}: {NO_SOURCE} (the built-in world's tasks 'edit' and 'instructed')", "no source"
        )
    source = source if contract.changes_images else None
    _add_codes(
        contract, result, picture, Kind.WRITTEN, contract.span, learn=learn, words=words, source=source
    )


def _add_signal(contract: Contract, result: Document, signal: Signal, kind: Kind) -> None:
    layout = contract.signals.get(signal.modality)
    if layout is None:
        known = ", ".join(contract.signals) or "none"
        raise DataError(
            f"{result.name} has a signal of the modality {signal.modality!r}, but this model's are: {known} "
            f"(model.modalities: {{{signal.modality}: ...}})",
            "no modality",
        )
    result.add_signal(signal, kind, contract.tokenizer.end, layout.positions)


def _add_codes(
    contract: Contract,
    result: Document,
    picture: Picture,
    kind: Kind,
    span: SpanLayout,
    *,
    learn: bool = False,
    words: int = 0,
    source: Picture | None = None,
) -> None:
    """Append a picture's codes between its markers."""
    check_sheet(picture, contract.sheet, result.name)
    tokenizer = contract.tokenizer
    result.add_text(tokenizer.before_picture, learn=learn)
    count = min(words, span.words)
    caption = (count + len(tokenizer.before_picture), count)
    columns = span.opens, span.exposed, span.coordinates
    result.add_picture(picture, kind, tokenizer.end, *columns, caption=caption, source=source)
    result.add_text(tokenizer.behind_picture, learn=learn)


def source_of(document: Document) -> Picture | None:
    """The image that one which is written next would come of by a change: the last of the document."""
    return document.slots[-1].picture if document.slots else None


def prompt_of(sample: Sample) -> Sample:
    """The sample without its last answer."""
    messages: tuple[Message, ...] = sample.messages
    return Sample(sample.name, messages[:-1] if messages[-1].role == "assistant" else messages, sample.truth)
