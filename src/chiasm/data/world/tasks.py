"""What a scene gives besides single questions: captions, drawings, edits, analogies, masks, regions and calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from chiasm.data import Picture
from chiasm.data.sample import Message
from chiasm.data.world.calls import scene_call
from chiasm.data.world.composer import TINTS, Draft
from chiasm.data.world.dice import Dice
from chiasm.data.world.edits import SceneEdit
from chiasm.data.world.edits import analogy as scene_analogy
from chiasm.data.world.edits import edit as scene_edit
from chiasm.data.world.phrases import Phrases, phrases
from chiasm.data.world.questions import QUESTIONS, UNANSWERABLE, Question
from chiasm.data.world.regions import region_prompt
from chiasm.data.world.render import SceneMasks, ScenePicture, TextPicture
from chiasm.data.world.scene import Scene

if TYPE_CHECKING:
    from chiasm.data.world.source import World

# Where the truth has the masks that are asked for, and the turns before, on its way into a sample.
MASKS, EARLIER = "masks", "earlier"
# content of the user, content of the assistant (none: masks are the answer, or the first is a document of its own),
# and the truth
Exchange = tuple[tuple[str | Picture, ...], tuple[str | Picture, ...], dict[str, Any]]


def caption(world: World, draft: Draft, say: Phrases, dice: Dice, count: int) -> Iterator[Exchange]:
    text = say.caption(draft.scene)
    labels = tuple(say.name(emoji) for emoji in draft.scene.counts)
    for _ in range(count):
        truth = {"answer": text, "labels": labels}
        yield (ScenePicture(draft.scene, world.canvas), say.ask("describe")), (text,), truth


def name(world: World, draft: Draft, say: Phrases, dice: Dice, count: int) -> Iterator[Exchange]:
    for _ in range(count):
        emoji = dice.pick(world.emoji)
        scene = replace(draft.scene, grid=(1, 1), things=(world.composer.place(emoji, 0, dice),))
        label = say.label(emoji)
        truth = {"answer": label, "scene": scene, "labels": (say.name(emoji),)}
        yield (ScenePicture(scene, world.canvas), say.ask("which")), (label,), truth


def draw(world: World, draft: Draft, say: Phrases, dice: Dice, count: int) -> Iterator[Exchange]:
    for _ in range(count):
        text = say.ask("draw", caption=say.caption(draft.scene))
        yield (text,), (_target(world, draft.scene),), {}


def captioned(world: World, draft: Draft, say: Phrases, dice: Dice, count: int) -> Iterator[Exchange]:
    words = phrases(world.say.language).caption(draft.scene)
    for prompt, images, truth in draw(world, draft, say, dice, count):
        yield prompt, (words, *images), truth


def edit(world: World, draft: Draft, say: Phrases, dice: Dice, count: int) -> Iterator[Exchange]:
    for _ in range(count):
        example = scene_edit(draft, say, dice)
        yield _edited(world, example, example.text)


def instructed(world: World, draft: Draft, say: Phrases, dice: Dice, count: int) -> Iterator[Exchange]:
    for _ in range(count):
        example = scene_edit(draft, say, dice)
        yield _edited(world, example, example.text, example.plain)


def referred(world: World, draft: Draft, say: Phrases, dice: Dice, count: int) -> Iterator[Exchange]:
    for _ in range(count):
        first = scene_edit(draft, say, dice)
        number = 1 + dice.below(2) if first.after.single else 1
        base = (first.before, first.after)[number - 1]
        absent = tuple(emoji for emoji in draft.absent if emoji not in base.counts)
        second = scene_edit(replace(draft, scene=base, absent=absent), say, dice)
        prompt, answer, _ = _edited(world, first, first.text)
        text = f"{say.again.format(number=number)} {second.text}"
        _, target, truth = _edited(world, second, text)
        earlier = (Message("user", prompt), Message("assistant", answer))
        yield (text,), target, {**truth, "picture": number, EARLIER: earlier}


def _edited(world: World, example: SceneEdit, text: str, *words: str) -> Exchange:
    """A scene, an instruction and the changed scene, perhaps behind words."""
    truth = {"kind": example.kind, "scene": example.after, "before": example.before}
    return (ScenePicture(example.before, world.canvas), text), (*words, _target(world, example.after)), truth


def analogy(world: World, draft: Draft, say: Phrases, dice: Dice, count: int) -> Iterator[Exchange]:
    for _ in range(count):
        example = scene_analogy(draft, world.composer, dice)
        first, second, third = (
            ScenePicture(scene, world.canvas) for scene in (*example.example, example.before)
        )
        truth = {
            "kind": example.kind,
            "scene": example.after,
            "before": example.before,
            "example": example.example,
        }
        yield (first, say.then, second, say.next_pair, third), (_target(world, example.after),), truth


def sentence(world: World, draft: Draft, say: Phrases, dice: Dice, count: int) -> Iterator[Exchange]:
    for _ in range(count):
        example = scene_analogy(draft, world.composer, dice)
        scenes = (*example.example, example.before, example.after)
        truth = {
            "kind": example.kind,
            "scene": example.after,
            "before": example.before,
            "example": example.example,
        }
        yield tuple(_target(world, each) for each in scenes), (), truth


def read(world: World, draft: Draft, say: Phrases, dice: Dice, count: int) -> Iterator[Exchange]:
    for _ in range(count):
        # English in any language: PIL's built-in font has no Chinese letters.
        lines = tuple(one.english for one in dice.sample(world.emoji, 1 + dice.below(2)))
        answer = " ".join(lines)
        image = TextPicture(lines, world.canvas, TINTS[dice.below(world.composer.tints)])
        yield (image, say.ask("read")), (answer,), {"answer": answer}


def words(world: World, draft: Draft, say: Phrases, dice: Dice, count: int) -> Iterator[Exchange]:
    caption = say.caption(draft.scene)
    for task in dice.sample(list(QUESTIONS), count):
        for question in QUESTIONS[task](draft, say, dice, 1):
            yield (f"{caption} {question.text}",), (question.answer,), truth_of(question)


def segment(world: World, draft: Draft, say: Phrases, dice: Dice, count: int) -> Iterator[Exchange]:
    scene = draft.scene
    present = dice.sample(list(scene.counts), count)
    for emoji in present:
        absent = draft.unanswerable > 0 and dice.uniform() < draft.unanswerable
        asked = dice.pick(draft.absent) if absent else emoji
        things = tuple(i for i, thing in enumerate(scene.things) if thing.emoji == asked)
        truth = {
            "type": UNANSWERABLE if absent else "segment",
            MASKS: SceneMasks(scene, world.canvas, things),
        }
        yield (ScenePicture(scene, world.canvas), say.ask("mask", one=say.name(asked))), (), truth


def region(world: World, draft: Draft, say: Phrases, dice: Dice, count: int) -> Iterator[Exchange]:
    for thing in dice.sample(range(len(draft.scene.things)), count):
        prompt = region_prompt(draft.scene, world.canvas, thing, say, dice)
        name = say.name(draft.scene.things[thing].emoji)
        truth = {"type": prompt.kind, "question": prompt.ask(say, mask=False), "answer": name}
        yield (prompt.picture, truth["question"]), (name,), truth


def segment_region(world: World, draft: Draft, say: Phrases, dice: Dice, count: int) -> Iterator[Exchange]:
    for thing in dice.sample(range(len(draft.scene.things)), count):
        prompt = region_prompt(draft.scene, world.canvas, thing, say, dice)
        truth = {"type": prompt.kind, MASKS: SceneMasks(draft.scene, world.canvas, (thing,))}
        yield (prompt.picture, prompt.ask(say, mask=True)), (), truth


def call(world: World, draft: Draft, say: Phrases, dice: Dice, count: int) -> Iterator[Exchange]:
    for _ in range(count):
        example = scene_call(draft, world.canvas, say, dice)
        answer = str(example.call)
        shown = (ScenePicture(draft.scene, world.canvas),) if example.shows else ()
        yield (*shown, example.text), (answer,), {"type": example.kind, "answer": answer}


def _target(world: World, scene: Scene) -> ScenePicture:
    """A scene as it is written."""
    return ScenePicture(scene.calmed(world.drawn_jitter), world.drawn_canvas)


def truth_of(question: Question) -> dict[str, Any]:
    """answer_class: what "always the commonest answer" counts: the answer, or which name of a choice."""
    answer_class = question.answer
    if question.type == "choice":
        answer_class = ("first", "second")[question.choices.index(question.answer)]
    truth = {
        "type": question.type,
        "question": question.text,
        "answer": question.answer,
        "choices": question.choices,
    }
    return {**truth, "answer_class": answer_class}


TASKS: dict[str, Callable[[World, Draft, Phrases, Dice, int], Iterator[Exchange]]] = {
    "caption": caption,
    "name": name,
    "draw": draw,
    "captioned": captioned,
    "edit": edit,
    "instructed": instructed,
    "referred": referred,
    "analogy": analogy,
    "sentence": sentence,
    "read": read,
    "words": words,
    "segment": segment,
    "region": region,
    "segment_region": segment_region,
    "call": call,
}
