"""The merchants' studio measured: product images whose product stays, and an assistant with tools.

    python benchmarks/studio.py product runs/quickstart             # 100 products, each in a new scene
    python benchmarks/studio.py assistant runs/shop                 # 200 tasks, half of several turns
    python benchmarks/studio.py assistant runs/shop --tasks 20 --json

The built-in world is the shop: its emoji are the products, and its exact checker says what an image shows.
docs/studio.md tells what the figures mean.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from customers import KINDS, ONE_TURN, Customer, Shelf, shop_of
from PIL import Image
from served_folder import get, served_folder

import chiasm
from chiasm.data.files import PictureInMemory
from chiasm.data.world import Scene, Thing, World
from chiasm.evaluation.statistics import clustered
from chiasm.inference.reconstruction import reconstruct
from chiasm.parts import build
from chiasm.recipe import load_recipe

DEFAULTS = {"product": 100, "assistant": 200}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("journey", choices=sorted(DEFAULTS))
    parser.add_argument("folder", help="a run or a checkpoint that was trained on the built-in world")
    parser.add_argument("--tasks", type=int, help=f"how many; default: {DEFAULTS}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    journey = product if options.journey == "product" else assistant
    result = journey(options.folder, options.tasks or DEFAULTS[options.journey], options.seed)
    if options.json:
        json.dump(result, sys.stdout, indent=1)
        return
    for name, figures in result.items():
        print(f"{name:24}", ", ".join(f"{key} {_rounded(value)}" for key, value in figures.items()))


def worlds_of(folder: str) -> list[World]:
    """The world of held-out scenes that a run is evaluated on, in each language that it was trained in."""
    recipe = load_recipe(folder)
    data = recipe.data[recipe.evaluation.data]
    if data["type"] != "world":
        raise SystemExit(f"{folder} is evaluated on {data['type']!r}, not on the built-in world")
    languages = {
        each.get("language", "en") for each in recipe.data.values() if each["type"] in ("world", "shop")
    }
    return [build("data", {**data, "language": language}) for language in sorted(languages)]


def product(folder: str, tasks: int, seed: int) -> dict[str, dict[str, Any]]:
    """Each product in a new scene: kept under a mask, or only asked for in words; and with one thing added."""
    model = chiasm.load(folder)
    shelf = Shelf(worlds_of(folder)[0], model.contract.written_size.width)
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def note(
        way: str, image: Image.Image, before: Image.Image, kept: Thing, wanted: Scene, stays: Sequence[int]
    ) -> None:
        cells = shelf.checker.read(image).cells
        others = [thing for thing in wanted.things if thing.cell != kept.cell]
        scores[way]["product is itself"].append(cells[kept.cell] == kept.emoji)
        scores[way]["pixels of the product, dB"].append(_psnr(image, before, [shelf.box(kept.cell)]))
        if others:
            scores[way]["new things in place"].append(fmean(cells[t.cell] == t.emoji for t in others))
        if stays:
            scores[way]["pixels outside the mask, dB"].append(_psnr(image, before, map(shelf.box, stays)))

    for task in range(tasks):
        scene, kept, wanted = shelf.pair(2 * task + 1000 * seed)
        before, prompt = (
            shelf.image(scene),
            shelf.world.say.ask("draw", caption=shelf.world.say.caption(wanted)),
        )
        (edited,) = model.edit(before, prompt, mask=shelf.mask(shelf.others(kept.cell)), seed=task)
        note("edited: a new scene", edited, before, kept, wanted, [kept.cell])
        (drawn,) = model.generate(prompt, seed=task)
        note("drawn from words", drawn, before, kept, wanted, [])
        free = next(cell for cell in scene.free if cell != kept.cell)
        other = wanted.things[-1].emoji if wanted.things[-1].emoji != kept.emoji else scene.things[-1].emoji
        added = scene.holding([*scene.things, Thing(other, free)])
        prompt = shelf.world.say.ask("draw", caption=shelf.world.say.caption(added))
        (edited,) = model.edit(before, prompt, mask=shelf.mask([free]), seed=task)
        note(
            "edited: one thing added",
            edited,
            before,
            kept,
            added.holding([kept, Thing(other, free)]),
            shelf.others(free),
        )
        coded = reconstruct(model, PictureInMemory(before)).decoded[-1].image
        note("image tokenizer alone", coded, before, kept, scene.holding([kept]), shelf.others(kept.cell))
    return {
        way: {name: _figure(name, values) for name, values in each.items()} for way, each in scores.items()
    }


def _figure(name: str, values: Sequence[float]) -> Any:
    """A share with its 95 % interval, or a mean in dB."""
    if name.endswith("dB"):
        return fmean(values)
    estimate = clustered([float(value) for value in values], range(len(values)))
    return [estimate.value, *estimate.interval]


def _psnr(image: Image.Image, original: Image.Image, boxes: Any) -> float:
    """In dB, over the pixels of some boxes."""
    error = [
        np.square(np.asarray(image.crop(box), float) - np.asarray(original.crop(box), float)).ravel()
        for box in boxes
    ]
    return float(10 * np.log10(255**2 / max(np.concatenate(error).mean(), 1e-6)))


def assistant(folder: str, tasks: int, seed: int) -> dict[str, dict[str, Any]]:
    """Tasks of customers over HTTP, of each kind as many, in turn in each language that the run knows; one has
    succeeded if all that was asked is right."""
    worlds = worlds_of(folder)
    right: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as place, served_folder(folder, Path(place) / "log") as server:
        size = int(get(server, "/v1/models")["data"][0]["image_size"].partition("x")[0])
        customers = [Customer(server, Shelf(world, size), shop_of(world, tasks), seed) for world in worlds]
        for task in range(tasks):
            kind, index = KINDS[task % len(KINDS)], task // len(KINDS)
            customer = customers[index % len(customers)]
            done = float(customer.serve(kind, index))
            turns = "one turn" if kind in ONE_TURN else "several turns"
            for name in (kind, turns, f"in {customer.shop.language}", "all"):
                right[name].append(done)
    names = [*KINDS, "one turn", "several turns", *(f"in {world.say.language}" for world in worlds), "all"]
    return {
        name: {"tasks": len(right[name]), "right": _figure("right", right[name])}
        for name in names
        if name in right
    }


def _rounded(value: Any) -> str:
    if isinstance(value, list):
        return f"{value[0]:.1%} [{value[1]:.1%}, {value[2]:.1%}]"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
