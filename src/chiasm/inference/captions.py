"""The words that a model writes before an image, after which its decoder draws (order `caption`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from chiasm.data.documents import NO_SOURCE
from chiasm.errors import ChiasmError, DataError
from chiasm.inference.answers import Answers
from chiasm.sequence import Document
from chiasm.tokenizers.spaces import WordIds

if TYPE_CHECKING:
    from chiasm.model import Model
    from chiasm.recipe import SamplingOptions


class Captions(Answers):
    """The ids of the words with which the answer to each of some prompts begins, up to the image.

    An answer that ends without an image, or is cut off at the recipe's limit, is drawn after all of its words.
    """

    images = True

    def __init__(
        self, model: Model, prompts: Sequence[Document], options: SamplingOptions, seeds: Sequence[int]
    ):
        tokens = options.answer_tokens
        super().__init__(model, prompts, tokens=tokens, sampling=options.of_words, seeds=seeds)
        self._ends |= {*model.language.tokenizer.before_picture}

    def _answer(self, row: int) -> list[int]:
        ids = self.ids[row][: self.limits[row]]
        stop = next((i for i, id in enumerate(ids) if id in self._ends), len(ids))
        return ids[:stop]


def words_space(model: Model) -> WordIds:
    """What the decoder is conditioned on, of a model whose images follow words."""
    assert model.image_head is not None
    assert isinstance(model.image_head.space, WordIds)
    return model.image_head.space


def captions_of(model: Model, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """The ids of texts that are such words; raises ChiasmError for a model that draws after none, or fewer."""
    if not model.follows_words:
        raise ChiasmError(
            "verbatim: this model's images do not follow words that can be given as they are (order 'caption')"
        )
    if model.image_decoder is not None and model.image_decoder.edits:
        raise ChiasmError.of("verbatim", NO_SOURCE)
    return words_of_decoder(model, texts)


def words_of_decoder(model: Model, texts: Sequence[str], called: str = "prompt") -> list[tuple[int, ...]]:
    """The ids of texts; raises DataError for one that the image decoder does not read to its end.

    called: what each text is.
    """
    captions = [model.language.tokenizer.encode_plain(text) for text in texts]
    most = words_space(model).length
    for number, (text, ids) in enumerate(zip(texts, captions, strict=True), 1):
        if len(ids) > most:
            raise DataError(
                f"{called} {number} has {len(ids)} tokens, but this model's image decoder reads {most}; shorten it"
            )
        if model.image_decoder is not None:
            model.image_decoder.check_words(text, f"{called} {number}")
    return captions


def captions_target(model: Model, captions: Sequence[Sequence[int]]) -> Int[Tensor, "n 1 k"]:
    """What the decoder is handed for these words; of more than it reads the last."""
    space = words_space(model)
    target = torch.full((len(captions), 1, space.length), space.size, device=model.device)
    for row, ids in enumerate(captions):
        last = ids[-space.length :]
        target[row, 0, : len(last)] = torch.tensor(last, dtype=torch.long)
    return target


def caption_texts(model: Model, target: Int[Tensor, "n 1 k"]) -> list[str]:
    """The words of targets, to be shown beside their images."""
    end = words_space(model).size
    rows = target.flatten(1).tolist()
    return [model.language.tokenizer.answer([id for id in row if id != end])[0].strip() for row in rows]
