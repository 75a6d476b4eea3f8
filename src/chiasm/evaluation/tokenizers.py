"""Image tokenizers measured on held-out pictures: what a picture costs in bits, and what is left of it."""

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
from chiasm.checkpoint import load_model
from chiasm.data import Picture, Source
from chiasm.data.clip import Clip, clip_pixels, pixels
from chiasm.devices import fitting
from chiasm.errors import ChiasmError, RecipeError
from chiasm.evaluation.fidelity import features, frechet, psnr, ssim, use_of
from chiasm.model import Model
from chiasm.recipe import Recipe, find_recipe, load_recipe
from chiasm.tokenizers import ImageTokenizer, VideoTokenizer
from chiasm.training.batches import pictures_of
from chiasm.views import Size

WORLD = {"type": "world", "split": "combination", "tasks": {"draw": 1}}  # where no recipe names pictures
SHOWN = 8  # pictures, or frames of a clip, on the sheet
_TOGETHER = 16
Z = 1.959964  # of a two-sided interval of 95 %


@dataclass
class Measured:
    """What was found out about one tokenizer.

    figures: what report.json holds of it. shown: originals and reconstructions for the sheet.
    """

    name: str
    figures: dict[str, Any]
    shown: tuple[Float[Tensor, "s 3 h w"], Float[Tensor, "s 3 h w"]]


@dataclass
class Subject:
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
) -> list[Measured]:
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
    found: list[Measured] = []
    seen: dict[tuple[Any, ...], Tensor] = {}
    for subject in subjects:
        source = subject.source or fallback or parts.build("data", WORLD)
        found.append(measure(subject.model, source, count, name=subject.name, seen=seen))
        say(f"{subject.name}: {found[-1].figures['psnr']:.2f} dB at {found[-1].figures['bits']:,.0f} bits")
    return found


@torch.inference_mode()
def measure(
    model: Model,
    source: Source,
    count: int,
    *,
    name: str = "",
    seen: dict[tuple[Any, ...], Tensor] | None = None,
) -> Measured:
    """Measure the image tokenizer of a model on the first `count` pictures of a data source.

    seen: features of originals, kept from one call to the next.

    A tokenizer of moving pictures is measured on clips where the source has clips, else on pictures.
    """
    tokenizer = model.eval().image_tokenizer
    if tokenizer is None:
        raise ChiasmError(f"{name or 'the model'} has no image tokenizer")
    pictures = list(islice(_pictures(source), count))
    if not pictures:
        raise ChiasmError(f"the held-out data of {name or 'the model'} shows no pictures")
    moves = isinstance(tokenizer, VideoTokenizer) and isinstance(pictures[0], Clip)
    size = Size(tokenizer.size, tokenizer.size)
    true, made, codes = [], [], []
    for start in range(0, len(pictures), _TOGETHER):
        some = pictures[start : start + _TOGETHER]
        shown = torch.stack(
            [clip_pixels(p, size) if moves and isinstance(p, Clip) else pixels(p, size) for p in some]
        )
        written, back = _through(model, tokenizer, fitting(shown.to(model.device), tokenizer))
        true.append(shown)
        made.append(back.float().cpu())
        codes.append(written.cpu())
    figures = {
        "tokenizer": tokenizer.name,
        "parameters": sum(p.numel() for p in tokenizer.parameters()),
        "side": tokenizer.size,
        "frames": true[0].shape[1] if moves else 1,
        "pictures": len(pictures),
        "data": source.fingerprint,
        "unit": "clip" if moves else "picture",
        **_rate(tokenizer, torch.cat(codes)),
    }
    flat_true, flat_made = (torch.cat(each).flatten(0, -4) for each in (true, made))
    figures["bits_per_pixel"] = figures["bits"] / figures["frames"] / tokenizer.size**2
    key = (source.fingerprint, len(pictures), flat_true.shape)
    known = seen if seen is not None else {}
    if key not in known:
        known[key] = features(flat_true)
    figures |= _distortion(flat_made, flat_true, len(pictures), known[key])
    every = 1 if moves else len(flat_true) // SHOWN or 1
    return Measured(name, figures, (flat_true[::every][:SHOWN], flat_made[::every][:SHOWN]))


def _through(model: Model, tokenizer: ImageTokenizer, shown: Tensor) -> tuple[Tensor, Tensor]:
    """Codes of pictures or clips, and what is decoded from them."""
    if shown.ndim == 5:
        assert isinstance(tokenizer, VideoTokenizer)
        codes = tokenizer.encode_video(shown)
        return codes, tokenizer.decode_video(codes)
    codes = tokenizer.encode(shown)
    if model.image_decoder is None:
        return codes, tokenizer.decode(codes)
    return codes, model.image_decoder.decode(codes)


def _rate(tokenizer: ImageTokenizer, codes: Int[Tensor, "n *u gh gw"]) -> dict[str, Any]:
    """What a picture's codes cost, and how they are used."""
    rows = codes.flatten(1)
    if tokenizer.end is not None:  # what stands behind the end is not said
        said = ((rows == tokenizer.end).cumsum(1) - (rows == tokenizer.end).long()) == 0
        scales = [rows[said]]
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


def _distortion(made: Tensor, true: Tensor, pictures: int, wanted: Float[Tensor, "m f"]) -> dict[str, Any]:
    """Of frames; intervals are over pictures or clips. `mean_psnr`: what the mean picture alone would have."""
    noise = psnr(made, true).view(pictures, -1).mean(1)
    half = Z * float(noise.std()) / math.sqrt(pictures) if pictures > 1 else float("nan")
    mean = float(noise.mean())
    return {
        "psnr": mean,
        "psnr_ci": [mean - half, mean + half],
        "ssim": float(ssim(made, true).mean()),
        "feature_distance": frechet(features(made), wanted),
        "mean_psnr": float(psnr(true.mean(0, keepdim=True).expand_as(true), true).mean()),
    }


def _pictures(source: Source) -> Iterator[Picture]:
    """Different pictures of a source, in order."""
    seen: set[str] = set()
    for index in range(len(source)):
        for picture in pictures_of(source[index]):
            if picture.key not in seen:
                seen.add(picture.key)
                yield picture


def _subject(run: str | Path, device: str | torch.device | None, dtype: str | torch.dtype | None) -> Subject:
    folder = _folder(run)
    model = load_model(folder, device, dtype)
    if model.image_tokenizer is None:
        raise ChiasmError(f"{run} has no image tokenizer")
    return Subject(folder.resolve().name, model, _held_out(load_recipe(find_recipe(folder))))


def _folder(run: str | Path) -> Path:
    """A run's or checkpoint's folder; of a recipe, the one that it was trained into."""
    if Path(run).is_dir():
        return Path(run)
    name = load_recipe(find_recipe(run)).name
    places = [Path("runs") / name, Path("runs") / f"{name}-tiny"]
    found = next(filter(Path.is_dir, places), None)
    if found is None:
        raise ChiasmError(f"recipe {name!r} has not been trained into {places[0]}: chiasm train {run}")
    return found


def _held_out(recipe: Recipe) -> Source | None:
    name = recipe.evaluation.data
    return parts.build("data", recipe.data[name], where=f"data.{name}") if name is not None else None


def by_data(found: Iterable[Measured]) -> dict[str, list[Measured]]:
    """Those that were measured on the same pictures, and so can be compared."""
    groups: dict[str, list[Measured]] = {}
    for each in found:
        groups.setdefault(f"{each.figures['data']} {each.figures['unit']}", []).append(each)
    return groups
