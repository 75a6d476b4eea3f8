"""The data source `shop`: the world as a shop, whose assistant looks products up with tools.

What the assistant must know it can only see (which product stands where) or look up (price, size, whether it is
sold): every price and size is a throw of dice, the same in every shop of a seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

from pydantic import NonNegativeInt, PositiveInt

from chiasm import parts
from chiasm.data import Message, Picture, Sample, Source
from chiasm.data.sample import ToolCall
from chiasm.data.tool_calls import declared
from chiasm.data.world.assets import Emoji, Language, assets_version
from chiasm.data.world.composer import Draft
from chiasm.data.world.dice import Dice
from chiasm.data.world.phrases import phrases
from chiasm.data.world.questions import QUESTIONS
from chiasm.data.world.render import ScenePicture
from chiasm.data.world.scene import Thing
from chiasm.data.world.shop_wordings import ASKED, SHOWN, WORDS
from chiasm.data.world.source import World
from chiasm.data.world.tasks import draw
from chiasm.parts.bounds import Seed

VERSION = 1  # raised when the same options would give other samples
Service = Literal["price", "size", "find"]
SERVICES: tuple[Service, ...] = ("price", "size", "find")
DEAREST = 99  # coins
LOOKS = ("what", "where", "exist")  # kinds of questions about a shelf
OF_WORLD = ("emoji", "strangers", "grid", "canvas", "objects", "language", "scenes", "seed")  # of its shelves
_SAYS = {"price": "what a product costs", "size": "how large a product is", "find": "whether it is sold"}
TOOLS = declared(
    [
        {
            "type": "function",
            "function": {
                "name": name,
                "description": _SAYS[name],
                "parameters": {
                    "type": "object",
                    "properties": {"product": {"type": "string"}},
                    "required": ["product"],
                },
            },
        }
        for name in SERVICES
    ]
)


class Catalogue:
    """What the tools know. products: that are sold, by name. Every other is not."""

    def __init__(self, products: Sequence[Emoji], language: Language = "en", seed: int = 0):
        self.words, self.seed = WORDS[language], seed
        self.products = {emoji.name(language): emoji for emoji in products}

    def look_up(self, call: ToolCall) -> str:
        """What a tool gives for a call; also for one that it cannot make sense of."""
        name = call.arguments.get("product")
        emoji = self.products.get(name) if isinstance(name, str) else None
        if emoji is None or call.name not in SERVICES:
            return self.words["missing"]
        if call.name == "find":
            return self.words["stock"]
        dice = Dice("shop", call.name, self.seed, emoji.code)
        if call.name == "size":
            return dice.pick(self.words["sizes"].split())
        return self.words["coins"].format(1 + dice.below(DEAREST))

    def answer(self, service: Service, name: str, result: str) -> str:
        """The assistant's sentence on what a tool has given."""
        kind = "missing_answer" if result == self.words["missing"] else f"{service}_answer"
        return self.words[kind].format(one=name, given=result)


@dataclass(frozen=True)
class Errand:
    """What a customer wants. image: that is shown with the question. product: that it is about."""

    service: Service
    text: str
    product: str
    image: Picture | None = None


class Shop(Source, name="shop"):
    """Customers' questions, the calls of tools that look their answers up, and the answers.

    A group is a scene, a shelf of products; each of its samples is a conversation: a question about a product that
    is named, or shown and only pointed at, the call of a tool, what the tool gives, and the answer. Visits have
    several turns about one shelf: they begin with such a question, with one about the shelf that is shown, or with
    a drawing of it.

    Args:
        emoji: how many products are sold: the first emoji of the world.
        strangers: how many further emoji customers ask for, which are not sold.
        grid: rows and columns of a shelf.
        canvas: height and width of its image in pixels.
        objects: fewest and most products on a shelf.
        named: how many questions about a product that is named.
        shown: how many about one that is shown.
        visits: how many conversations of two or three turns.
        language: en or zh.
        phrasings: `train`, or `held_out`: words that `train` never uses.
        scenes: number of scenes.
        seed: other scenes for another seed, and other prices.
    """

    def __init__(
        self,
        *,
        emoji: PositiveInt = 32,
        strangers: NonNegativeInt = 32,
        grid: PositiveInt = 3,
        canvas: PositiveInt = 192,
        objects: tuple[int, int] = (2, 4),
        named: NonNegativeInt = 2,
        shown: NonNegativeInt = 2,
        visits: NonNegativeInt = 0,
        language: Language = "en",
        phrasings: Literal["train", "held_out"] = "train",
        scenes: PositiveInt = 4000,
        seed: Seed = 0,
    ):
        self.options = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        self.world = World(drawn_jitter=0.0, **{name: self.options[name] for name in OF_WORLD})
        self.named, self.shown, self.visits = named, shown, visits
        self.phrasings, self.seed = phrasings, seed
        self.language: Language = language
        self.catalogue = Catalogue(self.world.emoji, language, seed)

    @classmethod
    def check_together(cls, options: Mapping[str, Any]) -> None:
        parts.check("data", {"type": "world"} | {name: options[name] for name in OF_WORLD}, "the shelves")

    def __len__(self) -> int:
        return len(self.world)

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        record = f"shop {VERSION} {sorted(self.options.items())} {assets_version()}"
        return blake2b(record.encode(), digest_size=16).hexdigest()

    def __getitem__(self, index: int) -> list[Sample]:
        errands = [self._sample(errand, index, i) for i, errand in enumerate(self.errands(index), 1)]
        return [*errands, *(self._visit(index, i) for i in range(1, self.visits + 1))]

    def errands(self, index: int) -> list[Errand]:
        """The questions about scene `index`."""
        draft = self.world.composer.draft(index)
        dice = Dice("shop", self.seed, self.phrasings, index)
        errands = [self._of_a_name(draft, dice) for _ in range(self.named)]
        image = ScenePicture(draft.scene, self.world.canvas)
        things = dice.sample(draft.scene.things, self.shown)
        return [*errands, *(self._of_a_place(thing, draft, dice, image) for thing in things)]

    def _of_a_name(self, draft: Draft, dice: Dice) -> Errand:
        service, strange = dice.pick(SERVICES), draft.strangers
        unsold = service == "find" and bool(strange) and dice.coin()
        name = self.world.say.name(dice.pick(strange if unsold else self.world.emoji))
        return Errand(service, self._asked(ASKED, service, dice, one=name), name)

    def _of_a_place(self, thing: Thing, draft: Draft, dice: Dice, image: Picture | None) -> Errand:
        service = dice.pick(SERVICES[:2])
        cell = self.world.say.cell(thing.cell, draft.scene.grid)
        text = self._asked(SHOWN, service, dice, cell=cell)
        return Errand(service, text, self.world.say.name(thing.emoji), image)

    def _visit(self, index: int, number: int) -> Sample:
        """A conversation of two or three turns about one shelf."""
        draft, dice = (
            self.world.composer.draft(index),
            Dice("visit", self.seed, self.phrasings, index, number),
        )
        say = phrases(self.language, self.phrasings, dice)
        image = ScenePicture(draft.scene, self.world.canvas)
        first, calls = dice.pick(("look", "draw", "look up")), 0
        messages: list[Message] = []
        for turn in range(2 + dice.below(2)):
            looks = first != "look up" and (turn == 0 or dice.coin())
            if looks and turn == 0 and first == "draw":
                (wanted,), target, _ = next(draw(self.world, draft, say, dice, 1))
                messages += [Message("user", (wanted,)), Message("assistant", target)]
            elif looks:
                question = dice.pick(
                    [each for kind in LOOKS for each in QUESTIONS[kind](draft, say, dice, 1)]
                )
                shown = (image,) if turn == 0 else ()
                messages += [
                    Message("user", (*shown, question.text)),
                    Message("assistant", (question.answer,)),
                ]
            else:
                seen = first != "look up" and dice.coin()
                thing = dice.pick(draft.scene.things)
                errand = self._of_a_place(thing, draft, dice, None) if seen else self._of_a_name(draft, dice)
                calls += 1
                messages += self._looked_up(errand, calls)
        name = f"scene {index} of shop, visit {number}"
        truth = {"task": "shop", "type": "visit", "language": self.language}
        return Sample(name, tuple(messages), truth, tools=TOOLS if calls or dice.coin() else ())

    def _asked(
        self,
        wordings: Mapping[str, Mapping[str, Mapping[str, Sequence[str]]]],
        service: str,
        dice: Dice,
        **names: str,
    ) -> str:
        return dice.pick(wordings[self.language][service][self.phrasings]).format(**names)

    def _sample(self, errand: Errand, index: int, number: int) -> Sample:
        messages = self._looked_up(errand)
        return Sample(
            f"scene {index} of shop, question {number}",
            tuple(messages),
            {
                "task": "shop",
                "type": errand.service,
                "answer": messages[-1].content[0],
                "language": self.language,
            },
            tools=TOOLS,
        )

    def _looked_up(self, errand: Errand, number: int = 0) -> list[Message]:
        """The question, call `number` of the conversation, what it gives, and the answer."""
        call = ToolCall(errand.service, {"product": errand.product}, f"call{number:05}")
        result = self.catalogue.look_up(call)
        shown: tuple[Any, ...] = () if errand.image is None else (errand.image,)
        return [
            Message("user", (*shown, errand.text)),
            Message("assistant", (), calls=(call,)),
            Message("tool", (result,), call=call),
            Message("assistant", (self.catalogue.answer(errand.service, errand.product, result),)),
        ]
