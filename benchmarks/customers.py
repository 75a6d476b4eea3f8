"""Scripted customers of the merchants' studio: what they ask, in one turn or in several, and when it is right."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from PIL import Image
from served_folder import Served, data_url, post

from chiasm.data.sample import ToolCall
from chiasm.data.tool_calls import call_of
from chiasm.data.world import Checker, Scene, Thing, World, render, score
from chiasm.data.world.dice import Dice
from chiasm.data.world.questions import QUESTIONS, Question
from chiasm.data.world.shop import TOOLS, Errand, Shop

UNSEEN = 1_000_000  # scenes from here on are in no training
CALLS = 3  # most of a turn, before it is given up
ONE_TURN = ("look", "draw", "edit", "look up what is named", "look up what is shown")
SEVERAL_TURNS = (
    "look up twice",
    "look, then look up",
    "draw, then look",
    "draw, then look up",
    "draw, then edit",
)
KINDS = ONE_TURN + SEVERAL_TURNS


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

    def shows(self, image: Image.Image | None, scene: Scene) -> bool:
        """Whether an image has all things of a scene in their places, and nothing else."""
        return image is not None and bool(score(self.checker.read(image).cells, scene)["all"])

    def drawing(self, scene: Scene) -> str:
        """The words that ask for an image of a scene."""
        return self.world.say.ask("draw", caption=self.world.say.caption(scene))


def shop_of(world: World, tasks: int) -> Shop:
    """The shop of a world's products, in its language, asked in words that training never uses."""
    return Shop(
        emoji=len(world.emoji),
        grid=world.grid[0],
        language=world.say.language,
        phrasings="held_out",
        scenes=UNSEEN + tasks,
        named=1,
        shown=1,
    )


class Turn(NamedTuple):
    """What the assistant has said, called and drawn in one turn."""

    text: str
    calls: list[ToolCall]
    image: Image.Image | None


class Visit:
    """A conversation of a customer; what the assistant calls is looked up."""

    def __init__(self, server: Served, shop: Shop, seed: int):
        self.server, self.shop, self.seed = server, shop, seed
        self.messages: list[dict[str, Any]] = []

    def ask(
        self, text: str, image: Image.Image | None = None, *, tools: bool = False, draws: bool = False
    ) -> Turn:
        self.messages.append(_said(text, image))
        calls: list[ToolCall] = []
        while len(calls) <= CALLS:
            message = self._answer(tools, draws)
            self.messages.append(message)
            called = [
                call_of(c["function"]["name"], c["function"]["arguments"], c["id"], "a call")
                for c in message.get("tool_calls") or ()
            ]
            if not called:
                images = [each["image_url"]["url"].partition(",")[2] for each in message.get("images", ())]
                return Turn(
                    message.get("content", ""), calls, _opened(images[0]) if len(images) == 1 else None
                )
            calls += called
            self.messages += [
                {"role": "tool", "tool_call_id": c.id, "content": self.shop.catalogue.look_up(c)}
                for c in called
            ]
        return Turn("", calls, None)

    def _answer(self, tools: bool, draws: bool) -> dict[str, Any]:
        body = {
            "model": "model",
            "messages": self.messages,
            "seed": self.seed,
            **({} if draws else {"modalities": ["text"]}),
            **({"tools": list(TOOLS)} if tools else {}),
        }
        reply = post(self.server, "/v1/chat/completions", body)
        return {key: value for key, value in reply["choices"][0]["message"].items() if value is not None}


class Customer:
    """Has the assistant do tasks of each kind in one language; one is done if all of its turns are right."""

    def __init__(self, server: Served, shelf: Shelf, shop: Shop, seed: int):
        self.server, self.shelf, self.shop, self.seed = server, shelf, shop, seed
        tasks: list[Callable[[int], bool]] = [
            *(self.look, self.draw, self.edit, self.look_up_named, self.look_up_shown),
            *(self.look_up_twice, self.look_then_look_up),
            *(self.draw_then_look, self.draw_then_look_up, self.draw_then_edit),
        ]
        self.kinds = dict(zip(KINDS, tasks, strict=True))

    def serve(self, kind: str, index: int) -> bool:
        return self.kinds[kind](index)

    def look(self, index: int) -> bool:
        """A question about a shelf."""
        scene, question = self._question(index, "what", "where", "exist")
        turn = self._visit(index).ask(question.text, render(scene, self.shelf.world.canvas))
        return plain(turn.text) == plain(question.answer)

    def draw(self, index: int) -> bool:
        """An image of products in their places."""
        scene = self._scene(index)
        body = {"model": "model", "prompt": self.shelf.drawing(scene), "seed": index}
        return self.shelf.shows(_drawn(post(self.server, "/v1/images/generations", body)), scene)

    def edit(self, index: int) -> bool:
        """The product kept, and the scene round it exchanged."""
        before, kept, wanted = self.shelf.pair(2 * index + 1000 * self.seed)
        return self._edits(index, self.shelf.image(before), kept, wanted)

    def look_up_named(self, index: int) -> bool:
        """A price, a size, or whether something is sold: the right call, and an answer that says what it gave."""
        return self._looks_up(self._visit(index), self._errand(index, shown=False))

    def look_up_shown(self, index: int) -> bool:
        """The same of a product that only the image names."""
        return self._looks_up(self._visit(index), self._errand(index, shown=True))

    def look_up_twice(self, index: int) -> bool:
        """Of one product, and then of another."""
        visit = self._visit(index)
        errands = [self._errand(2 * index + i, shown=False) for i in range(2)]
        return all(self._looks_up(visit, errand) for errand in errands)

    def look_then_look_up(self, index: int) -> bool:
        """What is on a shelf, and then what a product that is only named costs, or how large it is."""
        scene, question = self._question(index, "what")
        visit = self._visit(index)
        turn = visit.ask(question.text, render(scene, self.shelf.world.canvas), tools=True)
        right = plain(turn.text) == plain(question.answer) and not turn.calls
        return self._looks_up(visit, self._errand(index, shown=False)) and right

    def draw_then_look(self, index: int) -> bool:
        """Draw, and say what stands in a place of the image."""
        scene, question = self._question(index, "what")
        visit = self._visit(index)
        drawn = visit.ask(self.shelf.drawing(scene), draws=True)
        turn = visit.ask(question.text)
        return self.shelf.shows(drawn.image, scene) and plain(turn.text) == plain(question.answer)

    def draw_then_look_up(self, index: int) -> bool:
        scene, visit = self._scene(index), self._visit(index)
        drawn = visit.ask(self.shelf.drawing(scene), tools=True, draws=True)
        looked_up = self._looks_up(visit, self._errand(index, shown=False))
        return self.shelf.shows(drawn.image, scene) and looked_up

    def draw_then_edit(self, index: int) -> bool:
        """Draw a scene, and put its first product into another one."""
        before, kept, wanted = self.shelf.pair(2 * index + 1000 * self.seed)
        drawn = self._visit(index).ask(self.shelf.drawing(before), draws=True)
        if not self.shelf.shows(drawn.image, before):
            return False
        assert drawn.image is not None
        return self._edits(index, drawn.image, kept, wanted)

    def _visit(self, index: int) -> Visit:
        return Visit(self.server, self.shop, index)

    def _scene(self, index: int) -> Scene:
        return self.shelf.world.scene(index % len(self.shelf.world))

    def _question(self, index: int, *kinds: str) -> tuple[Scene, Question]:
        world, dice = self.shelf.world, Dice("studio", self.seed, index)
        draft = world.composer.draft(index % len(world))
        return draft.scene, dice.pick(
            [q for kind in kinds for q in QUESTIONS[kind](draft, world.say, dice, 1)]
        )

    def _errand(self, index: int, *, shown: bool) -> Errand:
        return next(e for e in self.shop.errands(UNSEEN + index) if (e.image is not None) is shown)

    def _edits(self, index: int, image: Image.Image, kept: Thing, wanted: Scene) -> bool:
        body = {
            "model": "model",
            "prompt": self.shelf.drawing(wanted),
            "images": [{"image_url": data_url(image)}],
            "mask": {"image_url": data_url(self.shelf.mask(self.shelf.others(kept.cell)))},
            "seed": index,
        }
        return self.shelf.shows(_drawn(post(self.server, "/v1/images/edits", body)), wanted)

    def _looks_up(self, visit: Visit, errand: Errand) -> bool:
        turn = visit.ask(errand.text, None if errand.image is None else errand.image.open(), tools=True)
        return self.is_right(errand, turn.calls, turn.text)

    def is_right(self, errand: Errand, called: Sequence[ToolCall], answer: str) -> bool:
        """Whether a look-up was done: by the right call, and with its answer said."""
        wanted = ToolCall(errand.service, {"product": errand.product})
        given = self.shop.catalogue.look_up(wanted)
        looked_up = any(c.name == wanted.name and dict(c.arguments) == wanted.arguments for c in called)
        return looked_up and plain(answer) == plain(
            self.shop.catalogue.answer(errand.service, errand.product, given)
        )


def plain(text: str) -> str:
    return text.strip().strip(".。").casefold()


def _said(text: str, image: Image.Image | None) -> dict[str, Any]:
    shown = [] if image is None else [{"type": "image_url", "image_url": {"url": data_url(image)}}]
    return {"role": "user", "content": [*shown, {"type": "text", "text": text}]}


def _opened(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def _drawn(reply: dict[str, Any]) -> Image.Image:
    return _opened(reply["data"][0]["b64_json"])
