"""The data source `world`: every scene with its captions, questions, edits and drawings as documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from hashlib import blake2b
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from chiasm.data import Message, Sample, Source
from chiasm.data.mask_answers import MaskForm, MaskSide, answer_with_masks
from chiasm.data.world.assets import Emoji, Language, assets_version, emoji_set
from chiasm.data.world.composer import Composer, Draft
from chiasm.data.world.dice import Dice
from chiasm.data.world.options import check_options
from chiasm.data.world.phrases import phrases
from chiasm.data.world.questions import QUESTIONS, answered_falsely
from chiasm.data.world.render import SceneChange, ScenePicture
from chiasm.data.world.scene import Scene
from chiasm.data.world.splits import Split, strangers
from chiasm.data.world.tasks import EARLIER, MASKS, TASKS, Exchange, truth_of
from chiasm.data.world.wordings import Phrasings
from chiasm.parts.bounds import Seed, Share

# Raised when the same options would give other samples, so that caches and records are not mistaken.
VERSION = 4
DEFAULT_TASKS = {**dict.fromkeys(QUESTIONS, 1), "draw": 1, "words": 1}


def few_documents(tasks: dict[str, int]) -> dict[str, int]:
    """Tasks of which a scene gives so many documents as memory holds."""
    for name, count in tasks.items():
        if not 0 <= count <= MOST_DOCUMENTS:
            raise ValueError(f"{name} asks for {count:,} documents of a scene; 0 to {MOST_DOCUMENTS:,}")
    return tasks


MOST_DOCUMENTS = 10_000  # of a task and a scene
# Upper ends that keep a slip of the keyboard from asking for more memory or time than there is.
Amount = Annotated[int, Field(ge=0, le=10**9)]
Rows = Annotated[int, Field(ge=1, le=64)]
Side = Annotated[int, Field(ge=1, le=4_096)]  # pixels
Tasks = Annotated[dict[str, int], AfterValidator(few_documents)]


class World(Source, name="world"):
    """The built-in world: emoji on a grid, with exact ground truth for every question and answer.

    A group is a scene; each of its samples is a document of its own, so that no question
    sees the answer of another.

    Args:
        emoji: how many emoji scenes are made of, 1 to 1,914; the first ones look least alike.
        unseen: how many further emoji the split `emoji` is made of.
        grid: rows and columns.
        canvas: height and width of pictures that are read, in pixels.
        drawn_canvas: height and width of pictures that are written, in pixels.
        objects: fewest and most things in a scene; the largest count asked is one less, and at most 4.
        jitter: variation of place and size within the cell, 0 (none) to 1.
        drawn_jitter: the share of that variation which is kept in pictures that are written, 0 to 1.
        tints: how many colours the ground may have, 1 to 8.
        scenes: number of scenes.
        split: train, or what is held out: combination, emoji or style.
        held_out: share of the pairs of emoji that never meet in training; the same for all splits of a study.
        styles: drawing styles of every split but `style`.
        unseen_styles: drawing styles of the split `style`.
        language: en or zh.
        phrasings: how questions and instructions are worded: `train`, in nine ways or more a kind, as people type
            them; `held_out`, in ways that `train` never uses; `both`, every question in one of each; `plain`, in
            one way a kind.
        unanswerable: share of the questions what, where and relation that ask about what is not there (0 to 1).
        untrue: share of the questions about images that are answered falsely, by an answer that they could have
            and have not (0 to 1).
        strangers: how many further emoji questions name although no scene shows them; a quarter of them is kept out
            of training.
        turns: how many questions about a picture follow one another in one document; 1 = each is a document of
            its own, in which nothing can be learnt from other answers, as evaluation wants it.
        tasks: how many documents of each task a scene gives (fewer where a scene cannot be asked so many): what,
            where, count, exist, choice, relation, caption, name (one emoji that fills the picture, drawn from all
            of them evenly), draw, captioned (the same, with the plain caption before the image), edit, instructed
            (the same, with the plain instruction before the image), referred (two turns: a change, and then
            another one of the first or the second picture, named by its number), analogy, sentence (an analogy in
            pictures alone), read, words, segment (the masks of every thing of a name, which may be none),
            region and segment_region (what a box, a point or a stroke of red is on: its name, its mask),
            call (an instruction answered by the call of a tool; see `chiasm.data.calls`).
        mask_form: what answers `segment`: `head`, positions of a mask head; `polygons` or `runs`, words; `image`,
            an image that is white where the mask is.
        mask_side: cells to a side of the image, on which masks in words count.
        seed: other scenes for another seed; what is held out stays the same.
    """

    def __init__(
        self,
        *,
        emoji: Amount = 32,
        unseen: Amount = 16,
        grid: Rows = 3,
        canvas: Side = 192,
        drawn_canvas: Side = 96,
        objects: tuple[int, int] = (2, 5),
        jitter: Share = 1.0,
        drawn_jitter: Share = 1.0,
        tints: Annotated[int, Field(ge=1, le=8)] = 8,
        scenes: Amount = 8000,
        split: Split = "train",
        held_out: Annotated[float, Field(gt=0, le=0.5)] = 0.1,
        styles: tuple[str, ...] = ("plain",),
        unseen_styles: tuple[str, ...] = ("flat", "line", "grey", "mirror"),
        language: Language = "en",
        phrasings: Phrasings = "train",
        unanswerable: Share = 0.1,
        untrue: Share = 0.0,
        strangers: Amount = 0,
        turns: Amount = 1,
        tasks: Tasks = DEFAULT_TASKS,
        mask_form: MaskForm = "head",
        mask_side: MaskSide = 24,
        seed: Seed = 0,
    ):
        self.options = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        self.check_together(self.options)
        self.split, self.canvas, self.drawn_canvas, self.seed = split, canvas, drawn_canvas, seed
        self.scenes, self.tasks, self.drawn_jitter, self.turns = scenes, dict(tasks), drawn_jitter, turns
        self.untrue, self.mask_form, self.mask_side = untrue, mask_form, mask_side
        self.say = phrases(language)
        self.phrasings: tuple[Phrasings, ...] = ("train", "held_out") if phrasings == "both" else (phrasings,)
        self.grid = (grid, grid)
        self.emoji: tuple[Emoji, ...] = (
            emoji_set(emoji + unseen)[emoji:] if split == "emoji" else emoji_set(emoji)
        )
        self.styles = tuple(unseen_styles if split == "style" else styles)
        self.composer = Composer(
            split, self.emoji, self.grid, objects, held_out, self.styles, jitter, tints, seed, unanswerable,
            _strangers(emoji + unseen, self.options["strangers"], split),
        )  # fmt: skip

    @classmethod
    def check_together(cls, options: Mapping[str, Any]) -> None:
        check_options(options, task_names=[*QUESTIONS, *TASKS])

    def __len__(self) -> int:
        return self.scenes

    def __getitem__(self, index: int) -> list[Sample]:
        if not 0 <= index < self.scenes:
            raise IndexError(f"the world has scenes 0 to {self.scenes - 1}; scene {index} was asked for")
        draft = self.composer.draft(index)
        samples = [
            self._sample(document, draft, index, task, phrasings, number)
            for task, count in self.tasks.items()
            if count > 0
            for phrasings in (self.phrasings if task in QUESTIONS else self.phrasings[:1])
            for number, document in enumerate(self._documents(task, phrasings, draft, index, count), 1)
        ]
        return samples if self.turns == 1 else self._conversations(samples, index)

    def scene(self, index: int) -> Scene:
        """The description of scene `index`."""
        return self.composer.draft(index).scene

    def change(self, sample: Sample) -> SceneChange:
        """What an edit changes in the image as it is written (tasks edit, instructed, referred)."""
        before, after = (sample.truth[name].calmed(self.drawn_jitter) for name in ("before", "scene"))
        return SceneChange(before, after, self.drawn_canvas)

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        record = f"world {VERSION} {sorted(self.options.items())} {assets_version()}"
        return blake2b(record.encode(), digest_size=16).hexdigest()

    def _sample(
        self, document: Exchange, draft: Draft, index: int, task: str, phrasings: Phrasings, number: int
    ) -> Sample:
        user, assistant, truth = document
        masks = truth.get(MASKS)
        name = f"{'question ' * (task in QUESTIONS)}{task} {number}"
        if phrasings == "held_out":
            name += " in a held-out phrasing"
        messages = (
            (*truth.get(EARLIER, ()), Message("user", user), Message("assistant", assistant))
            if assistant
            else (Message("document" if masks is None else "user", user),)
        )
        common = {"task": task, "split": self.split, "language": self.say.language, "phrasings": phrasings}
        sample = Sample(
            f"scene {index} of world({self.split}), {name}",
            messages,
            {
                **common,
                "scene": draft.scene,
                **{key: truth[key] for key in truth if key not in (MASKS, EARLIER)},
            },
            masks,
        )
        return answer_with_masks(sample, self.mask_form, self.mask_side)

    def _conversations(self, samples: list[Sample], index: int) -> list[Sample]:
        """The same samples, those of questions in random order, `turns` of them in one document."""
        questions = Dice("turns", self.seed, self.split, index).shuffle(
            [sample for sample in samples if sample.truth["task"] in QUESTIONS]
        )
        chunks = [questions[start : start + self.turns] for start in range(0, len(questions), self.turns)]
        conversations = [_conversation(chunk, number) for number, chunk in enumerate(chunks, 1)]
        return [*conversations, *(sample for sample in samples if sample.truth["task"] not in QUESTIONS)]

    def _documents(
        self, task: str, phrasings: Phrasings, draft: Draft, index: int, count: int
    ) -> Iterator[Exchange]:
        # Its own dice a task, and for the words: neither changes what another task asks.
        dice = Dice(task, self.seed, self.split, index)
        say = phrases(self.say.language, phrasings, Dice("phrasing", task, self.seed, self.split, index))
        if task not in QUESTIONS:
            yield from TASKS[task](self, draft, say, dice, count)
            return
        image = ScenePicture(draft.scene, self.canvas)
        lies = Dice("untrue", task, self.seed, self.split, index)
        for question in QUESTIONS[task](draft, say, dice, count):
            if self.untrue > 0 and lies.uniform() < self.untrue:
                question = answered_falsely(question, draft, say, lies)
            yield (image, question.text), (question.answer,), truth_of(question)


def _conversation(questions: list[Sample], number: int) -> Sample:
    """Questions about one image, which stands in the first of them, as one conversation."""
    first = questions[0]
    later = [
        Message(message.role, tuple(item for item in message.content if isinstance(item, str)))
        for question in questions[1:]
        for message in question.messages
    ]
    shared = {key: first.truth[key] for key in ("split", "language", "scene")}
    truth = {"task": "conversation", "questions": [question.truth for question in questions], **shared}
    return Sample(f"{first.name.split(', ')[0]}, conversation {number}", (*first.messages, *later), truth)


def _strangers(named: int, count: int, split: Split) -> tuple[Emoji, ...]:
    return strangers(emoji_set(named + count)[named:], split) if count else ()
