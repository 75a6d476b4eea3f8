"""Records that a run leaves out because they cannot be used, noticed before the first step or on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from chiasm.data import Source, counts
from chiasm.data.picture_reader import PictureReader
from chiasm.distribution.processes import Ranks
from chiasm.errors import DataError
from chiasm.model import Model
from chiasm.recipe import Recipe, Stage
from chiasm.training.batches import DescribedBatches, DocumentBatches, PictureBatches
from chiasm.training.encoded_images import EncodedReader
from chiasm.training.mixture import LeftOut, records_left_out

StageBatches = DocumentBatches | PictureBatches | DescribedBatches


def stage_batches(
    model: Model,
    sources: Mapping[str, Source],
    stage: Stage,
    seed: int,
    ranks: Ranks,
    reader: PictureReader | EncodedReader | None = None,
) -> StageBatches:
    """The batches of what the stage learns: documents, pictures, or pictures with words.

    reader: of the pictures of documents, or of those from which an image decoder learns alone.
    """
    options: dict[str, Any] = {"seed": seed, "rank": ranks.rank, "world": ranks.world}
    if stage.objective is not None:
        return DescribedBatches(model.contract, sources, stage, **options)
    if "image_tokenizer" in stage.train:
        assert model.image_tokenizer is not None
        return PictureBatches(model.image_tokenizer, sources, stage, **options)
    if "image_decoder" in stage.train and not model.conditions:
        assert model.image_decoder is not None
        assert not isinstance(reader, PictureReader)
        return PictureBatches(model.image_decoder, sources, stage, reader=reader, **options)
    assert not isinstance(reader, EncodedReader)
    unconditional = model.image_head.unconditional if model.image_head is not None else 0.0
    return DocumentBatches(
        model.contract, sources, stage, unconditional=unconditional, reader=reader, **options
    )


def unusable(
    recipe: Recipe, model: Model, sources: Mapping[str, Source], ranks: Ranks, *, decode: bool = False
) -> dict[str, LeftOut]:
    """By stage, the samples of records from outside that it cannot use; images are measured, or decoded too.

    Raises DataError for the first of a source that skips none.
    """
    result: dict[str, LeftOut] = {}
    for stage in recipe.stages:
        if any(sources[name].foreign for name in stage.data):
            result[stage.name] = _checked(model, sources, stage, recipe.seed, ranks, decode)
    return result


def _checked(
    model: Model, sources: Mapping[str, Source], stage: Stage, seed: int, ranks: Ranks, decode: bool
) -> LeftOut:
    own: LeftOut | DataError
    try:
        own = stage_batches(model, sources, stage, seed, ranks).check(decode=decode)
    except DataError as error:
        own = error  # raised by all ranks, for none may wait for another
    parts = ranks.gather(own)
    for part in parts:
        if isinstance(part, DataError):
            raise part
    return merged(*parts)


def merged(*parts: LeftOut) -> LeftOut:
    """All that is left out in any of these."""
    whole: dict[str, dict[str, str]] = {}
    for part in parts:
        for name, kinds in part.items():
            whole.setdefault(name, {}).update(kinds)
    return whole


def skipped(sources: Mapping[str, Source], *left_out: LeftOut) -> dict[str, Counter[str]]:
    """By source, how many records cannot be used, by kind: those that could not be read, and those left out."""
    used = records_left_out(*left_out)
    return {name: Counter(source.skipped) + used.get(name, Counter()) for name, source in sources.items()}


def lines(sources: Mapping[str, Source], skipped: Mapping[str, Counter[str]]) -> Iterator[str]:
    """`mine: 120 groups, 1 records skipped (1 too long)` for each source that skips records."""
    for name, source in sources.items():
        if source.broken == "skip":
            remaining = len(source) - (skipped[name] - Counter(source.skipped)).total()
            yield f"{name}: {remaining:,} groups, {counts(skipped[name])}"
