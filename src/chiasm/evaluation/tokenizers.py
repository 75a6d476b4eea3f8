"""Image tokenizers measured on held-out images: the rate in bits, and the distortion."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from chiasm import parts
from chiasm.data import Picture, Source
from chiasm.data.clip import Clip, clip_pixels, pixels
from chiasm.distribution.devices import fitting
from chiasm.errors import ChiasmError, RecipeError
from chiasm.evaluation.fidelity import features, frechet, psnr, ssim, use_of
from chiasm.evaluation.statistics import mean_radius
from chiasm.model import Model
from chiasm.model.checkpoint import load_model
from chiasm.recipe import Recipe, find_recipe, load_recipe
from chiasm.tokenizers import ImageTokenizer, VideoTokenizer
from chiasm.tokenizers.spaces import Codes
from chiasm.training.batches import pictures_of
from chiasm.views import Size

WORLD = {"type": "world", "split": "combination", "tasks": {"draw": 1}}  # where no recipe names pictures
EXAMPLES = 8  # pictures, or frames of a clip, on the sheet
_TOGETHER = 16


@dataclass
class Measurement:
    """The measurements of one tokenizer.

    figures: what report.json holds of it. examples: originals and reconstructions for the sheet.
    """

    name: str
    figures: dict[str, Any]
    examples: tuple[Float[Tensor, "s 3 h w"], Float[Tensor, "s 3 h w"]]


@dataclass
class MeasuredModel:
    """A tokenizer to measure, and the held-out data that its recipe names."""

    name: str
    model: Model
    source: Source | None


def measure_all(
    runs: Sequence[str | Path],
    *,
    count: int = 256,
    data: str | Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
) -> list[Measurement]:
    """Measure the image tokenizers of runs, checkpoints, or recipes that were trained into `runs/NAME`.

    count: held-out pictures (or clips) of each. data: run or recipe whose held-out pictures all are measured on;
    else each its own recipe's, and those without any the first other's, or the built-in world's.
    Raises ChiasmError for a model without an image tokenizer.
    """
    subjects = [_subject(run, device, dtype) for run in runs]
    if data is not None:
        chosen = _held_out(load_recipe(find_recipe(data)))
        if chosen is None:
            raise RecipeError(f"{data} names no held-out data; set evaluation.data in it")
        for subject in subjects:
            subject.source = chosen
    fallback = next((each.source for each in subjects if each.source is not None), None)
    measurements: list[Measurement] = []
    cached: dict[tuple[Any, ...], Tensor] = {}
    for subject in subjects:
        source = subject.source or fallback or parts.build("data", WORLD)
        measurement = measure(subject.model, source, count, name=subject.name, cached=cached)
        measurements.append(measurement)
        say(
            f"{subject.name}: {measurement.figures['psnr']:.2f} dB at {measurement.figures['bits']:,.0f} bits"
        )
    return measurements


@torch.inference_mode()
def measure(
    model: Model,
    source: Source,
    count: int,
    *,
    name: str = "",
    cached: dict[tuple[Any, ...], Tensor] | None = None,
) -> Measurement:
    """Measure the image tokenizer of a model on the first `count` pictures of a data source.

    cached: features of originals, reused from one call to the next.

    A tokenizer of moving pictures is measured on clips where the source has clips, else on pictures.
    """
    tokenizer = model.eval().image_tokenizer
    if tokenizer is None:
        raise ChiasmError(f"{name or 'the model'} has no image tokenizer")
    if not isinstance(tokenizer.space, Codes):
        raise ChiasmError(
            f"{name or 'the model'}: image_tokenizer {tokenizer.name!r} makes vectors, whose rate is no number of "
            "bits; what is measured here are tokenizers of codes"
        )
    images = list(islice(_images(source), count))
    if not images:
        raise ChiasmError(f"the held-out data of {name or 'the model'} has no images")
    moves = isinstance(tokenizer, VideoTokenizer) and isinstance(images[0], Clip)
    size = Size(tokenizer.size, tokenizer.size)
    originals, reconstructions, codes = [], [], []
    for start in range(0, len(images), _TOGETHER):
        batch = images[start : start + _TOGETHER]
        batch_pixels = torch.stack(
            [clip_pixels(p, size) if moves and isinstance(p, Clip) else pixels(p, size) for p in batch]
        )
        encoded, decoded = _through(model, tokenizer, fitting(batch_pixels.to(model.device), tokenizer))
        originals.append(batch_pixels)
        reconstructions.append(decoded.float().cpu())
        codes.append(encoded.cpu())
    figures = {
        "tokenizer": tokenizer.name,
        "parameters": sum(p.numel() for p in tokenizer.parameters()),
        "side": tokenizer.size,
        "frames": originals[0].shape[1] if moves else 1,
        "pictures": len(images),
        "data": source.fingerprint,
        "unit": "clip" if moves else "picture",
        **_rate(tokenizer, torch.cat(codes)),
    }
    flat_original, flat_reconstructed = (
        torch.cat(each).flatten(0, -4) for each in (originals, reconstructions)
    )
    figures["bits_per_pixel"] = figures["bits"] / figures["frames"] / tokenizer.size**2
    key = (source.fingerprint, len(images), flat_original.shape)
    cache = cached if cached is not None else {}
    if key not in cache:
        cache[key] = features(flat_original)
    figures |= _distortion(flat_reconstructed, flat_original, len(images), cache[key])
    every = 1 if moves else len(flat_original) // EXAMPLES or 1
    return Measurement(
        name, figures, (flat_original[::every][:EXAMPLES], flat_reconstructed[::every][:EXAMPLES])
    )


def _through(model: Model, tokenizer: ImageTokenizer, originals: Tensor) -> tuple[Tensor, Tensor]:
    """Codes of images or clips, and the images decoded from them."""
    if originals.ndim == 5:
        assert isinstance(tokenizer, VideoTokenizer)
        codes = tokenizer.encode_video(originals)
        return codes, tokenizer.decode_video(codes)
    codes = tokenizer.encode(originals)
    if model.image_decoder is None:
        return codes, tokenizer.decode(codes)
    return codes, model.image_decoder.decode(codes)


def _rate(tokenizer: ImageTokenizer, codes: Int[Tensor, "n *u gh gw"]) -> dict[str, Any]:
    """What a picture's codes cost, and how they are used."""
    rows = codes.flatten(1)
    if tokenizer.end is not None:  # codes after the end do not count
        counted = ((rows == tokenizer.end).cumsum(1) - (rows == tokenizer.end).long()) == 0
        scales = [rows[counted]]
    elif codes.ndim == 4:
        scales = [rows.flatten()]
    else:
        lengths = [height * width for height, width in tokenizer.scales]
        scales = [part.flatten() for part in rows.split(lengths, 1)]
    use = use_of(scales, len(codes), tokenizer.codebook_size, tokenizer.codebooks > 1)
    return {
        "codes": use.codes,
        "codebook_size": tokenizer.codebook_size,
        "bits": use.codes * math.log2(tokenizer.codebook_size),
        "coded_bits": use.coded,
        "used": use.used,
        "use": use.share,
        "dead": use.dead,
        "perplexity": use.perplexity,
        "entropy": use.entropy,
    }


def _distortion(
    reconstructed: Tensor, original: Tensor, images: int, original_features: Float[Tensor, "m f"]
) -> dict[str, Any]:
    """Of frames; intervals are over pictures or clips. `mean_psnr`: what the mean picture alone would have."""
    noise = psnr(reconstructed, original).view(images, -1).mean(1)
    mean, radius = float(noise.mean()), mean_radius(noise.tolist())
    return {
        "psnr": mean,
        "psnr_ci": [mean - radius, mean + radius],
        "ssim": float(ssim(reconstructed, original).mean()),
        "feature_distance": frechet(features(reconstructed), original_features),
        "mean_psnr": float(psnr(original.mean(0, keepdim=True).expand_as(original), original).mean()),
    }


def _images(source: Source) -> Iterator[Picture]:
    """Different pictures of a source, in order."""
    keys: set[str] = set()
    for index in range(len(source)):
        for image in pictures_of(source[index]):
            if image.key not in keys:
                keys.add(image.key)
                yield image


def _subject(
    run: str | Path, device: str | torch.device | None, dtype: str | torch.dtype | None
) -> MeasuredModel:
    folder = _folder(run)
    model = load_model(folder, device, dtype)
    if model.image_tokenizer is None:
        raise ChiasmError(f"{run} has no image tokenizer")
    return MeasuredModel(folder.resolve().name, model, _held_out(load_recipe(find_recipe(folder))))


def _folder(run: str | Path) -> Path:
    """A run's or checkpoint's folder; of a recipe, the one that it was trained into."""
    if Path(run).is_dir():
        return Path(run)
    name = load_recipe(find_recipe(run)).name
    places = [Path("runs") / name, Path("runs") / f"{name}-tiny"]
    existing = next(filter(Path.is_dir, places), None)
    if existing is None:
        raise ChiasmError(f"recipe {name!r} has not been trained into {places[0]}: chiasm train {run}")
    return existing


def _held_out(recipe: Recipe) -> Source | None:
    name = recipe.evaluation.data
    return parts.build("data", recipe.data[name], where=f"data.{name}") if name is not None else None


def by_data(measurements: Iterable[Measurement]) -> dict[str, list[Measurement]]:
    """Those that were measured on the same pictures, and so can be compared."""
    groups: dict[str, list[Measurement]] = {}
    for each in measurements:
        groups.setdefault(f"{each.figures['data']} {each.figures['unit']}", []).append(each)
    return groups
