"""Negative prompts: what guidance leads away from, in the place of no prompt at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from jaxtyping import Int
from torch import Tensor

from chiasm.data.documents import draw_prompt
from chiasm.data.sample import Message, Picture, Sample
from chiasm.errors import ChiasmError, DataError, quoted
from chiasm.inference.captions import captions_target, words_of_decoder
from chiasm.sequence import Document

if TYPE_CHECKING:
    from chiasm.model import Model


class Negative(NamedTuple):
    """What guidance leads away from; without either it is the empty prompt.

    prompt: the document that the language model reads in the rows without a prompt.
    words: that the image decoder reads, where images follow words.
    """

    prompt: Document | None = None
    words: Int[Tensor, "1 1 k"] | None = None


EMPTY_PROMPT = Negative()


def negative_of(model: Model, text: str | None, guidance: float, images: Sequence[Picture] = ()) -> Negative:
    """Of a negative prompt; None = the empty one.

    images: that stand before the prompt, and so before the negative one too.
    Raises ChiasmError where nothing would lead away from it, and DataError for a text that is empty or too long.
    """
    if text is None:
        return EMPTY_PROMPT
    if not isinstance(text, str) or not text.strip():
        raise DataError.of(
            "negative", f"it must be words that images shall be led away from, not {quoted(text)}"
        )
    if guidance == 1:
        raise ChiasmError.of(
            "negative",
            "at a guidance of 1 nothing leads away from it; give a larger guidance, or leave it out",
        )
    if model.follows_words:
        return Negative(words=captions_target(model, words_of_decoder(model, [text], "negative prompt")))
    sample = Sample("the negative prompt", (Message("user", (*images, text)),))
    return Negative(draw_prompt(model.contract, sample))
