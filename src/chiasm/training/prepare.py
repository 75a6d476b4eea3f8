"""Before a stage: features of frozen encoders, and codes or latents of frozen image tokenizers, cached on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from chiasm.data import Picture, Source
from chiasm.data.cut import cut
from chiasm.data.picture_reader import PictureReader
from chiasm.distribution.processes import Ranks
from chiasm.errors import DataError
from chiasm.model import Model
from chiasm.recipe import Stage
from chiasm.storage.cache import TensorCache, default_folder, fingerprint
from chiasm.tokenizers import ImageTokenizer
from chiasm.training.batches import DocumentBatches
from chiasm.training.mixture import LeftOut
from chiasm.training.stage_images import Listing, stage_images
from chiasm.training.usable import stage_batches
from chiasm.views import View

CUT = "cut 2"  # raised when the same view would give other pixels
# Images that go through a network at once. On CPU more outgrow the cache, and take nearly twice as long.
_TOGETHER = 16

Work = TypeVar("Work")
Result = TypeVar("Result")
Broken = dict[str, DataError]  # why an image cannot be read, by its key


def prepared(
    model: Model,
    sources: Mapping[str, Source],
    stage: Stage,
    *,
    seed: int,
    ranks: Ranks,
    bf16: bool,
    console: Console,
    left_out: LeftOut = MappingProxyType({}),
) -> PictureReader:
    """A reader that finds the pictures of the stage in the caches, which are filled where they lack any.

    Pictures are read as pixels where the encoder learns or has no weights. bf16: cache features in bf16.
    left_out: samples that the stage passes over.
    """
    contract = model.contract
    encodes = (
        model.encoder is not None
        and any(True for _ in model.encoder.parameters())
        and "encoder" not in stage.train
        and model.mask_head is None  # which reads other levels too
    )
    encodes_targets = model.target_encoder is not None
    if not encodes and not encodes_targets:
        return PictureReader(contract)
    broken: Broken | None = {} if any(sources[name].broken == "skip" for name in stage.data) else None
    while True:
        batches = stage_batches(model, sources, stage, seed, ranks, Listing(contract, broken=broken))
        assert isinstance(batches, DocumentBatches)
        batches.mixture.leave_out(left_out)
        broken_before = len(broken or ())
        images, shared = stage_images(batches, sources, stage, ranks)
        part = (ranks.rank, ranks.world) if shared else (0, 1)
        features = codes = None
        if encodes and images.read:
            features = feature_cache(model, bf16)
            fill_features(model, features, images.read, bf16=bf16, console=console, part=part, broken=broken)
        if encodes_targets and images.written:
            codes = code_cache(model)
            fill_codes(model, codes, images.written, console=console, part=part, broken=broken)
        if broken is None:
            ranks.wait()
            return PictureReader(contract, features, codes)
        for each in ranks.gather(broken):
            broken |= each
        # Without the documents of broken images, a stage that sees a part of its data goes further in it.
        if shared or not ranks.any(len(broken) > broken_before):
            return PictureReader(contract, features, codes, broken)


def feature_cache(model: Model, bf16: bool) -> TensorCache:
    """The cache of the features of this encoder with these weights."""
    assert model.encoder is not None
    dtype = str(torch.bfloat16 if bf16 else torch.float32)
    options = _options(model.standalone()["encoder"])
    return TensorCache(default_folder() / "features", fingerprint(model.encoder, options, CUT, dtype))


def code_cache(model: Model) -> TensorCache:
    """The cache of what images that are written are learnt as: codes, or latents."""
    assert model.target_encoder is not None
    return target_cache(model.target_encoder, _targets_of(model))


def target_cache(encoder: ImageTokenizer, what: str, *transform: str) -> TensorCache:
    """The cache of what an image tokenizer with these weights makes of images, `codes` or `latents`."""
    options = _options({**encoder.spec, **encoder.standalone()})
    return TensorCache(default_folder() / what, fingerprint(encoder, options, CUT, *transform))


def _targets_of(model: Model) -> str:
    return "latents" if model.conditions else "codes"


def fill_features(
    model: Model,
    cache: TensorCache,
    views: Mapping[str, tuple[Picture, View]],
    *,
    bf16: bool,
    console: Console,
    part: tuple[int, int] = (0, 1),
    broken: Broken | None = None,
) -> None:
    """Compute what the cache lacks. part: (rank, world) when several processes share the work.

    broken: takes up the pictures that cannot be read; None = the first is an error.
    """
    assert model.encoder is not None
    encoder, device = model.encoder.eval(), model.device
    dtype = torch.bfloat16 if bf16 else torch.float32
    by_size: dict[tuple[int, int], list[str]] = {}
    for key, (_, view) in views.items():
        by_size.setdefault(view.size, []).append(key)
    chunks = [chunk for keys in by_size.values() for chunk in _chunks(keys)]

    def encode(pixels: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            return encoder(pixels.to(device)).to(dtype)

    _fill(
        cache,
        chunks[part[0] :: part[1]],
        _Pixels(lambda keys: _cut_views([views[key] for key in keys]), lambda key: views[key][0].key, broken),
        encode,
        "features",
        console,
    )


def fill_codes(
    model: Model,
    cache: TensorCache,
    images: Mapping[str, Picture],
    *,
    console: Console,
    part: tuple[int, int] = (0, 1),
    broken: Broken | None = None,
) -> None:
    """Compute what the cache lacks; as `fill_features`."""
    assert model.target_encoder is not None
    encoder, device, reader = model.target_encoder.eval(), model.device, PictureReader(model.contract)

    def encode(pixels: Tensor) -> Tensor:
        return encoder.encode(pixels.to(device))

    fill_targets(cache, images, reader.target, encode, _targets_of(model), console, part=part, broken=broken)


def fill_targets(
    cache: TensorCache,
    images: Mapping[str, Picture],
    read: Callable[[Picture], Tensor],
    encode: Callable[[Tensor], Tensor],
    what: str,
    console: Console,
    *,
    part: tuple[int, int] = (0, 1),
    broken: Broken | None = None,
) -> None:
    """Compute what the cache lacks; as `fill_features`. read: an image's pixels. encode: those of several."""

    def targets(pixels: Tensor) -> Tensor:
        target = encode(pixels)
        return target.float() if target.is_floating_point() else target.to(torch.int32)

    chunks = _chunks(list(images))[part[0] :: part[1]]
    pixels = _Pixels(lambda keys: [read(images[key]) for key in keys], lambda key: images[key].key, broken)
    _fill(cache, chunks, pixels, targets, what, console)


def _cut_views(views: Sequence[tuple[Picture, View]]) -> list[Tensor]:
    """The pixels of views; those of one image, which follow one another, by opening it once."""
    pixels = []
    opened: tuple[str, Image.Image] | None = None
    for image, view in views:
        if opened is None or opened[0] != image.key:
            opened = (image.key, image.open())
        pixels.append(cut(opened[1], view))
    return pixels


@dataclass(frozen=True)
class _Pixels:
    """Pixels by key. read: of several keys. picture: a key's image. broken: see `fill_features`."""

    read: Callable[[Sequence[str]], list[Tensor]]
    picture: Callable[[str], str]
    broken: Broken | None

    def of(self, keys: Sequence[str]) -> tuple[list[str], Tensor | None]:
        """The keys whose images can be read, with their pixels."""
        try:
            return list(keys), torch.stack(self.read(keys))
        except DataError:
            if self.broken is None:
                raise
        sound = [key for key in keys if self.readable(key)]
        return sound, torch.stack(self.read(sound)) if sound else None

    def readable(self, key: str) -> bool:
        if self.broken is None:
            return True
        try:
            self.read([key])
        except DataError as error:
            self.broken[self.picture(key)] = error
            return False
        return True


def _fill(
    cache: TensorCache,
    chunks: Sequence[list[str]],
    pixels: _Pixels,
    encode: Callable[[Tensor], Tensor],
    what: str,
    console: Console,
) -> None:
    # A chunk that lacks one picture is computed whole: the last bits of a network's output can depend on what
    # else is in its batch, and a run that was killed here must find the same features as one that was not.
    # What it lacks for a broken picture it will lack for ever.
    incomplete = [chunk for chunk in chunks if any(pixels.readable(key) for key in cache.missing(chunk))]
    if not incomplete:
        return
    total = sum(map(len, incomplete))
    with (
        ThreadPoolExecutor(2) as pool,
        cache,
        Progress(console=console, transient=True, disable=not console.is_terminal) as bar,
        torch.inference_mode(),
    ):
        task = bar.add_task(f"{what} of {total:,} images", total=total)
        for chunk, (keys, stacked) in _ahead(pool, incomplete, pixels.of):
            if stacked is not None:
                cache.put(dict(zip(keys, encode(stacked), strict=True)))
            bar.advance(task, len(chunk))
    console.print(
        f"{what} of {total:,} images computed; they are stored in {cache.folder}",
        highlight=False,
        soft_wrap=True,
    )


def _ahead(
    pool: ThreadPoolExecutor, work: Iterable[Work], do: Callable[[Work], Result]
) -> Iterator[tuple[Work, Result]]:
    """Each piece of work with its result, while the next two are being done."""
    waiting = []
    for piece in work:
        waiting.append((piece, pool.submit(do, piece)))
        if len(waiting) > 2:
            piece_done, result = waiting.pop(0)
            yield piece_done, result.result()
    for piece_done, result in waiting:
        yield piece_done, result.result()


def _chunks(keys: list[str]) -> list[list[str]]:
    return [keys[start : start + _TOGETHER] for start in range(0, len(keys), _TOGETHER)]


def _options(spec: Mapping[str, Any]) -> str:
    """A part's options; where its weights came from is not one of them, for they are hashed themselves."""
    return json.dumps(
        {key: value for key, value in spec.items() if key != "checkpoint"}, sort_keys=True, default=str
    )
