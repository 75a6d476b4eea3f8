"""The merchants' studio measured: product images whose product stays, and an assistant with tools.

    python benchmarks/studio.py product runs/quickstart             # 100 products, each in a new scene
    python benchmarks/studio.py assistant runs/shop                 # 200 tasks, over HTTP
    python benchmarks/studio.py assistant runs/shop --tasks 20 --json

The built-in world is the shop: its emoji are the products, and its exact checker says what an image shows.
docs/studio.md tells what the figures mean.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import sys
import tempfile
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from PIL import Image
from served_folder import Served, served_folder

import chiasm
from chiasm.data.files import PictureInMemory
from chiasm.data.sample import ToolCall
from chiasm.data.tool_calls import call_of
from chiasm.data.world import Checker, Scene, Thing, World, render, score
from chiasm.data.world.dice import Dice
from chiasm.data.world.questions import QUESTIONS
from chiasm.data.world.shop import TOOLS, Errand, Shop
from chiasm.evaluation.statistics import clustered
from chiasm.inference.reconstruction import reconstruct
from chiasm.parts import build
from chiasm.recipe import load_recipe

DEFAULTS = {"product": 100, "assistant": 200}
UNSEEN = 1_000_000  # scenes from here on are in no training
CALLS = 3  # most of an errand, before it is given up
KINDS = ("look", "draw", "edit", "look up what is named", "look up what is shown")


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


def world_of(folder: str) -> World:
    """The world of held-out scenes that a run is evaluated on."""
    recipe = load_recipe(folder)
    world = build("data", recipe.data[recipe.evaluation.data])
    if not isinstance(world, World):
        raise SystemExit(f"{folder} is evaluated on {world.name!r}, not on the built-in world")
    return world


class Shelf:
    """Scenes of a world as images of the size that a model draws, and what an image of one shows."""

    def __init__(self, world: World, canvas: int):
        self.world, self.canvas = world, canvas
        self.checker = Checker(world.emoji, grid=world.grid)

    def image(self, scene: Scene) -> Image.Image:
        return render(scene, self.canvas)

    def pair(self, index: int) -> tuple[Scene, Thing, Scene]:
        """A scene, the first thing of it as the product, and another scene with the product in its place."""
        before, other = (
            self.world.scene(i % len(self.world)).calmed(self.world.drawn_jitter) for i in (index, index + 1)
        )
        kept = before.things[0]
        others = [t for t in other.things if t.cell != kept.cell and t.emoji != kept.emoji]
        return before, kept, before.holding([kept, *others])

    def box(self, cell: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of a cell in pixels."""
        row, column = divmod(cell, self.world.grid[1])
        high, wide = self.canvas // self.world.grid[0], self.canvas // self.world.grid[1]
        return column * wide, row * high, (column + 1) * wide, (row + 1) * high

    def mask(self, cells: Sequence[int]) -> Image.Image:
        """Transparent at these cells, which are drawn anew."""
        mask = Image.new("RGBA", (self.canvas, self.canvas), "black")
        for cell in cells:
            mask.paste((0, 0, 0, 0), self.box(cell))
        return mask

    def others(self, cell: int) -> list[int]:
        return [each for each in range(self.world.grid[0] * self.world.grid[1]) if each != cell]


def product(folder: str, tasks: int, seed: int) -> dict[str, dict[str, Any]]:
    """Each product in a new scene: kept under a mask, or only asked for in words; and with one thing added."""
    model = chiasm.load(folder)
    shelf = Shelf(world_of(folder), model.contract.written_size.width)
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
    """Errands of customers over HTTP, of each kind as many; one has succeeded if all that was asked is right."""
    world = world_of(folder)
    shop = Shop(
        emoji=len(world.emoji),
        grid=world.grid[0],
        language=world.say.language,
        phrasings="held_out",
        scenes=UNSEEN + tasks,
        named=1,
        shown=1,
    )
    right: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as place, served_folder(folder, Path(place) / "log") as server:
        size = int(_get(server, "/v1/models")["data"][0]["image_size"].partition("x")[0])
        customer = Customer(server, Shelf(world, size), shop, seed)
        for task in range(tasks):
            kind = KINDS[task % len(KINDS)]
            right[kind].append(float(customer.serve(kind, task // len(KINDS))))
    every = [value for values in right.values() for value in values]
    return {
        kind: {"tasks": len(values), "right": _figure("right", values)}
        for kind, values in {**right, "all": every}.items()
    }


class Customer:
    """Has the model do an errand, and knows whether it was done."""

    def __init__(self, server: Served, shelf: Shelf, shop: Shop, seed: int):
        self.server, self.shelf, self.shop, self.seed = server, shelf, shop, seed
        self.kinds: dict[str, Callable[[int], bool]] = {
            "look": self.look,
            "draw": self.draw,
            "edit": self.edit,
            "look up what is named": lambda i: self.look_up(i, shown=False),
            "look up what is shown": lambda i: self.look_up(i, shown=True),
        }

    def serve(self, kind: str, index: int) -> bool:
        return self.kinds[kind](index)

    def look(self, index: int) -> bool:
        """A question about a shelf."""
        world = self.shelf.world
        dice = Dice("studio", self.seed, index)
        draft = world.composer.draft(index % len(world))
        questions = [
            q for kind in ("what", "where", "exist") for q in QUESTIONS[kind](draft, world.say, dice, 1)
        ]
        question = dice.pick(questions)
        messages = [_said(question.text, render(draft.scene, world.canvas))]
        answer = self._chat(messages, []).get("content", "")
        return _plain(answer) == _plain(question.answer)

    def draw(self, index: int) -> bool:
        """An image of products in their places."""
        world = self.shelf.world
        scene = world.scene(index % len(world))
        prompt = world.say.ask("draw", caption=world.say.caption(scene))
        reply = _post(
            self.server, "/v1/images/generations", {"model": "model", "prompt": prompt, "seed": index}
        )
        return bool(score(self.shelf.checker.read(_opened(reply)).cells, scene)["all"])

    def edit(self, index: int) -> bool:
        """The product kept, and the scene round it exchanged."""
        world = self.shelf.world
        before, kept, wanted = self.shelf.pair(2 * index + 1000 * self.seed)
        reply = _post(
            self.server,
            "/v1/images/edits",
            {
                "model": "model",
                "prompt": world.say.ask("draw", caption=world.say.caption(wanted)),
                "images": [{"image_url": _url(self.shelf.image(before))}],
                "mask": {"image_url": _url(self.shelf.mask(self.shelf.others(kept.cell)))},
                "seed": index,
            },
        )
        return bool(score(self.shelf.checker.read(_opened(reply)).cells, wanted)["all"])

    def look_up(self, index: int, *, shown: bool) -> bool:
        """A price, a size, or whether something is sold: the right call, and an answer that says what it gave."""
        errand = next(e for e in self.shop.errands(UNSEEN + index) if (e.image is not None) is shown)
        messages = [_said(errand.text, None if errand.image is None else errand.image.open())]
        called: list[ToolCall] = []
        while len(called) < CALLS:
            message = self._chat(messages, list(TOOLS))
            calls = [
                call_of(c["function"]["name"], c["function"]["arguments"], c["id"], "a call")
                for c in message.get("tool_calls") or ()
            ]
            if not calls:
                return self._is_right(errand, called, message.get("content", ""))
            called += calls
            given = [
                {"role": "tool", "tool_call_id": c.id, "content": self.shop.catalogue.look_up(c)}
                for c in calls
            ]
            messages += [message, *given]
        return False

    def _is_right(self, errand: Errand, called: Sequence[ToolCall], answer: str) -> bool:
        wanted = ToolCall(errand.service, {"product": errand.product})
        given = self.shop.catalogue.look_up(wanted)
        looked_up = any(c.name == wanted.name and dict(c.arguments) == wanted.arguments for c in called)
        return looked_up and _plain(answer) == _plain(
            self.shop.catalogue.answer(errand.service, errand.product, given)
        )

    def _chat(self, messages: Sequence[Any], tools: Sequence[Any]) -> dict[str, Any]:
        body = {
            "model": "model",
            "messages": list(messages),
            "modalities": ["text"],
            **({"tools": tools} if tools else {}),
        }
        reply = _post(self.server, "/v1/chat/completions", body)
        return {key: value for key, value in reply["choices"][0]["message"].items() if value is not None}


def _said(text: str, image: Image.Image | None) -> dict[str, Any]:
    shown = [] if image is None else [{"type": "image_url", "image_url": {"url": _url(image)}}]
    return {"role": "user", "content": [*shown, {"type": "text", "text": text}]}


def _url(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _opened(reply: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(reply["data"][0]["b64_json"])))


def _plain(text: str) -> str:
    return text.strip().strip(".。").casefold()


def _get(server: Served, path: str) -> Any:
    with urllib.request.urlopen(server.url + path, timeout=60) as reply:
        return json.load(reply)


def _post(server: Served, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        server.url + path, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=600) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{path}: {json.load(error)['error']['message']}") from None


def _rounded(value: Any) -> str:
    if isinstance(value, list):
        return f"{value[0]:.1%} [{value[1]:.1%}, {value[2]:.1%}]"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
