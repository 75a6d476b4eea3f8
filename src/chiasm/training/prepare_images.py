"""Before a stage in which an image decoder learns alone: what stays of its images, cached on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from rich.console import Console
from torch import Tensor

from chiasm.data import Picture, Source
from chiasm.data.clip import pixels
from chiasm.distribution.processes import Ranks
from chiasm.model import Model
from chiasm.recipe import Stage
from chiasm.storage.cache import TensorCache
from chiasm.tokenizers import ImageTokenizer
from chiasm.training.aims import targets_of
from chiasm.training.batches import PictureBatches
from chiasm.training.encoded_images import EncodedReader
from chiasm.training.mixture import LeftOut
from chiasm.training.prepare import fill_targets, target_cache
from chiasm.training.usable import stage_batches
from chiasm.views import Size


def prepared_images(
    model: Model,
    sources: Mapping[str, Source],
    stage: Stage,
    *,
    seed: int,
    ranks: Ranks,
    console: Console,
    left_out: LeftOut = MappingProxyType({}),
) -> EncodedReader | None:
    """A reader that finds the images of the stage in the caches, which are filled where they lack any.

    None where broken images are skipped, which is found out by reading them.
    """
    tokenizer, decoder = model.image_tokenizer, model.image_decoder
    assert tokenizer is not None
    assert decoder is not None
    batches = stage_batches(model, sources, stage, seed, ranks)
    assert isinstance(batches, PictureBatches)
    batches.mixture.leave_out(left_out)
    if batches.mixture.skips:
        return None
    images = _images(batches, sources, stage, ranks)
    size, device = Size(decoder.size, decoder.size), model.device

    def filled(
        encoder: ImageTokenizer, what: str, encode: Callable[[Tensor], Tensor], *transform: str
    ) -> TensorCache:
        cache = target_cache(encoder, what, *transform)
        fill_targets(
            cache, images, lambda each: pixels(each, size), lambda own: encode(own.to(device)), what, console
        )
        return cache

    resized = f"of images of {decoder.size} pixels"
    codes = filled(tokenizer, "codes", partial(targets_of, tokenizer), resized)
    autoencoder = decoder.autoencoder
    latents = None if autoencoder is None else filled(autoencoder, "latents", autoencoder.encode)
    ranks.wait()  # in later epochs a process meets images that others have encoded
    return EncodedReader(size, codes, latents)


def _images(
    batches: PictureBatches, sources: Mapping[str, Source], stage: Stage, ranks: Ranks
) -> dict[str, Picture]:
    """The images that the stage will use, by key: those of its batches, until these have had all of its data."""
    images: dict[str, Picture] = {}
    for _ in range(stage.steps * stage.accumulate):
        for each in batches.pack():
            assert isinstance(each, Picture)
            images.setdefault(each.key, each)
        groups = batches.state()["groups"]
        if all(groups[name] * ranks.world > len(sources[name]) + ranks.world for name in groups):
            break
    return images
