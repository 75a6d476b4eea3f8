"""Problems that a model solves by itself, and which of its answers a checker verifies (STaR, arXiv 2203.14465)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from chiasm.data import Source
from chiasm.data.documents import draw_prompt, prompt_of
from chiasm.data.mask_answers import ANSWER
from chiasm.data.sample import Media, Picture, Sample, Signal
from chiasm.errors import ChiasmError, DataError
from chiasm.evaluation import metrics
from chiasm.evaluation.asking import ask
from chiasm.evaluation.conversations import Item
from chiasm.evaluation.subject import answers_in_words
from chiasm.evaluation.tasks.generation import checker_of
from chiasm.inference.answers import answers, is_cut
from chiasm.inference.drawing import draw_images
from chiasm.inference.text import WordSampling
from chiasm.model import Model
from chiasm.recipe import SamplingOptions
from chiasm.training.mixture import number

FILE, LOG = "verified.jsonl", "attempts.jsonl"
ROWS = 64  # answers that are drawn together


@dataclass(frozen=True)
class Practice:
    """How much a model tries at a time.

    problems: how many. tries: answers to each, drawn anew. temperature, tokens: of answers in words; images are
    drawn as the model's recipe says. verifier: the metric that must give an answer in words 1; images are read by
    their source's checker.
    """

    problems: int = 200
    tries: int = 4
    temperature: float = 1.0
    tokens: int = 32
    verifier: str = "exact"

    def __post_init__(self) -> None:
        for name in ("problems", "tries", "tokens"):
            if getattr(self, name) < 1:
                raise ChiasmError(f"{name} is {getattr(self, name)}; at least 1")
        if isnan(self.temperature):
            raise ChiasmError("temperature is not a number; above 0")
        if not self.temperature > 0:
            raise ChiasmError(
                f"temperature is {self.temperature}; above 0, for all tries at a problem would be alike"
            )
        metrics.lookup(self.verifier)


@dataclass(frozen=True)
class Attempt:
    """A problem, and what the model answered it: words or an image."""

    problem: Sample
    answer: str | Image.Image
    verified: bool


def problems_of(source: Source, count: int, seed: int, *, draws: bool) -> list[Sample]:
    """The first problems of a source with a checker for their answers, in an order drawn by the seed.

    draws: whether those that an image answers are among them. Raises ChiasmError where there are too few.
    """
    order = np.random.default_rng(seed).permutation(len(source))
    samples = (sample for index in order for sample in source[int(index)])
    problems = list(islice((each for each in samples if _can_be_verified(each, source, draws)), count))
    if len(problems) < count:
        raise ChiasmError(
            f"the data source {source.name!r} has {len(problems):,} problems whose answers can be verified, and "
            f"{count:,} are to be tried; give it more, or take fewer"
        )
    return problems


def attempts(
    model: Model, source: Source, problems: Sequence[Sample], practice: Practice, seed: int
) -> Iterator[Attempt]:
    """Every try at each of the problems, verified."""
    tried = [problem for problem in problems for _ in range(practice.tries)]
    for start in range(0, len(tried), ROWS):
        group = tried[start : start + ROWS]
        seeds = [number(seed, start + i) for i in range(len(group))]
        for drawing in (False, True):
            chosen = [i for i, problem in enumerate(group) if _is_drawn(problem) == drawing]
            if chosen:
                own = [group[i] for i in chosen]
                answer = _draw if drawing else _speak
                yield from answer(model, source, own, practice, [seeds[i] for i in chosen])


def write_practice(folder: Path, tried: Iterable[Attempt]) -> dict[str, int]:
    """Write all attempts, and a data file of one verified answer to each problem that has any; returns counts.

    The file is data of the source `chat`, its images beside it.
    """
    (folder / "images").mkdir()
    numbers: dict[str, int] = {}
    solved: set[str] = set()
    counts = {"answers": 0, "verified": 0, "solved": 0}
    with (
        (folder / LOG).open("w", encoding="utf-8") as log,
        (folder / FILE).open("w", encoding="utf-8") as file,
    ):
        for attempt in tried:
            words = attempt.answer if isinstance(attempt.answer, str) else None
            entry = {"problem": attempt.problem.name, "answer": words, "verified": attempt.verified}
            log.write(json.dumps(entry, ensure_ascii=False) + "\n")
            counts["answers"] += 1
            counts["verified"] += attempt.verified
            if attempt.verified and attempt.problem.name not in solved:
                solved.add(attempt.problem.name)
                file.write(json.dumps(_record(attempt, folder, numbers), ensure_ascii=False) + "\n")
    return counts | {"solved": len(solved)}


def _speak(
    model: Model, source: Source, problems: Sequence[Sample], practice: Practice, seeds: Sequence[int]
) -> Iterator[Attempt]:
    judge = metrics.lookup(practice.verifier)
    prompts = [prompt_of(problem) for problem in problems]
    sampling = WordSampling(temperature=practice.temperature)
    spoken = answers(model, prompts, tokens=practice.tokens, sampling=sampling, seeds=seeds)
    for problem, answer in zip(problems, spoken, strict=True):
        (question,) = ask([Item(problem, 0)], judge)
        question.answers["said"] = answer
        whole = bool(answer.strip()) and not is_cut(answer)  # of nothing, or of a part, nothing is learnt
        yield Attempt(problem, answer, question.right and whole)


def _draw(
    model: Model, source: Source, problems: Sequence[Sample], practice: Practice, seeds: Sequence[int]
) -> Iterator[Attempt]:
    from chiasm.data.world.checker import score

    prompts = [draw_prompt(model.contract, prompt_of(problem)) for problem in problems]
    images = draw_images(model, prompts, seeds, (model.sampling or SamplingOptions()).of_images)
    checker = checker_of(source, problems[0].truth["scene"])
    for problem, image in zip(problems, images, strict=True):
        right = score(checker.read(image).cells, problem.truth["scene"])["all"] == 1
        yield Attempt(problem, image, right)


def _can_be_verified(sample: Sample, source: Source, draws: bool) -> bool:
    """Whether it is one question, whose answer is words or an image that a checker reads."""
    roles = [message.role for message in sample.messages if message.role != "system"]
    plain = not sample.tools and not any(each.special_tokens for each in sample.messages)
    if roles != ["user", "assistant"] or sample.masks is not None or ANSWER in sample.truth or not plain:
        return False
    if _is_drawn(sample):
        return draws and "scene" in sample.truth and hasattr(source, "emoji")
    return answers_in_words(sample)


def _is_drawn(sample: Sample) -> bool:
    content = sample.messages[-1].content
    return len(content) == 1 and isinstance(content[0], Picture)


def _record(attempt: Attempt, folder: Path, numbers: dict[str, int]) -> dict[str, Any]:
    """numbers: of the images that are written already, by key."""

    def image(key: str, opened: Image.Image | Picture) -> dict[str, str]:
        path = f"images/{numbers.setdefault(key, len(numbers))}.png"
        if not (folder / path).exists():
            (opened.open() if isinstance(opened, Picture) else opened).save(folder / path)
        return {"type": "image", "image": path}

    def item(content: str | Media) -> dict[str, str]:
        if isinstance(content, Signal):
            raise DataError(
                f"{attempt.problem.name} has a {content.modality}, which no file of records holds"
            )
        return {"type": "text", "text": content} if isinstance(content, str) else image(content.key, content)

    answer = attempt.answer
    answered = (
        item(str(answer)) if isinstance(answer, str) else image(f"answer {attempt.problem.name}", answer)
    )
    turns = [(each.role, [item(c) for c in each.content]) for each in prompt_of(attempt.problem).messages]
    return {
        "messages": [{"role": r, "content": c} for r, c in [*turns, ("assistant", [answered])]],
        "metadata": {"problem": attempt.problem.name},
    }
