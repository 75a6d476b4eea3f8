"""Visual sentences: pictures that follow from pictures, without a word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from chiasm.conversation import KnownCodes
from chiasm.data.documents import PictureReader, draw_prompt
from chiasm.data.files import PictureInMemory
from chiasm.data.references import References
from chiasm.data.sample import Message, Picture, Sample
from chiasm.errors import ChiasmError, DataError
from chiasm.generation import decode, draw, sampling_of, to_pictures
from chiasm.generators import Generators, check_count, seeds_of
from chiasm.heads import Sampling

if TYPE_CHECKING:
    from chiasm.model import Model


@torch.inference_mode()
def complete(
    model: Model,
    pictures: Sequence[Picture | Image.Image | str | Path],
    *,
    count: int = 1,
    seed: int = 0,
    temperature: float | None = None,
    top_k: int | None = None,
) -> list[Image.Image]:
    """The next `count` pictures of a visual sentence (LVM, arXiv 2312.00785).

    Classifier-free guidance plays no part: there are no words to be guided by, whatever the model's sampling says.

    pictures: those that there are, as an analogy has them: x1, y1, x2, y2, ..., x.
    seed: of the first picture; each further one has the next.
    Raises ChiasmError for a model that does not read pictures as the codes that it writes, and DataError where its
    context has no room for all pictures, those that are to follow included.
    """
    if not pictures:
        raise DataError("a visual sentence needs a picture to follow")
    options = sampling_of(model, temperature=temperature, top_k=top_k)
    unguided = replace(options.of_images, guidance=1.0)
    seeds = seeds_of(seed, 1, check_count(count))
    reader = KnownCodes(model)
    sentence = [References().picture(each, "the sentence") for each in pictures]
    most = most_images(model)
    if len(sentence) + count > most:
        raise DataError(
            f"a visual sentence of {len(sentence)} images and {count} to follow is too long: the context of "
            f"{model.contract.context} positions has room for {most} images in all"
        )
    images: list[Image.Image] = []
    for each in seeds:
        generators = Generators([each])
        codes = next_codes(model, sentence, reader, unguided, generators)
        images += to_pictures(decode(model, codes, generators))
        sentence.append(PictureInMemory(images[-1]))
        reader.known[sentence[-1].key] = codes[0]
    return images


def most_images(model: Model) -> int:
    """How many images a visual sentence may have in all; raises ChiasmError for a model that completes none."""
    contract = model.contract
    if contract.shown is None or contract.span is None:
        raise ChiasmError(
            "this model cannot complete a visual sentence: it does not read pictures as the codes that it writes"
        )
    markers = len(contract.tokenizer.before_picture) + len(contract.tokenizer.behind_picture)
    return contract.context // (contract.span.length + markers)


def next_codes(
    model: Model,
    sentence: Sequence[Picture],
    reader: PictureReader,
    sampling: Sampling,
    generators: Generators | None = None,
) -> Int[Tensor, "1 gh gw"]:
    """Codes of the picture that follows."""
    asked = Sample("the sentence", (Message("user", tuple(sentence)),))
    prompt = draw_prompt(model.contract, asked)
    return draw(model, [prompt], sampling, generators=generators, reader=reader)
