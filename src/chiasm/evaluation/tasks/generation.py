"""Pictures drawn from words, judged by an exact checker."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from chiasm.data.documents import writes_picture
from chiasm.data.sample import Sample
from chiasm.evaluation.statistics import Estimate, clustered
from chiasm.evaluation.subject import pictures_read, prompt_and_words, question, written_image
from chiasm.evaluation.tasks import Exam, NotApplicable, Outcome, Task

MEASURES = ("object", "count", "place", "all")
EXAMPLES = 24  # pictures in the report's grid
PROMPTS = 12  # of which several pictures are drawn
SAME = 4  # pictures of one prompt
ROWS = 4  # prompts whose pictures the report shows


class Generation(Task, name="generation"):
    """Held-out captions drawn and read back cell by cell.

    object: share of the asked things found anywhere. place: share found in the cell they were asked for.
    count: share of pictures with as many things as asked. all: share of pictures that are exactly the asked scene.
    reconstruction: the true pictures through the image tokenizer alone, the ceiling of whatever writes its codes.
    shuffled: `place` of the same pictures against another caption's scene, what drawing without heed of the words
    would give; where there is more than one caption.
    """

    def run(self, exam: Exam) -> Outcome:
        if not exam.subject.draws:
            raise NotApplicable("the model has no image head")
        items = exam.required("prompts of a picture that can be checked", _matches, exam.sizes.pictures)
        samples = [item.sample for item in items]
        generated = exam.subject.draw(samples, seed=exam.seed)
        reconstructed = exam.subject.reconstruct([written_image(sample) for sample in samples])
        checker = checker_of(exam.source, samples[0].truth["scene"])
        readings = [checker.read(picture).cells for picture in generated]
        judged = judge(readings, samples)
        ceiling = judge([checker.read(picture).cells for picture in reconstructed], samples)
        several, spread = _diversity(exam, samples)
        place = judged["place"]
        scores: dict[str, Any] = {name: judged[name].value for name in MEASURES}
        scores |= {"score": place.value, "ci": place.interval, "n": len(samples)}
        scores |= {"intervals": {name: judged[name].interval for name in MEASURES}, "cells": place.n}
        scores |= {"smallest_effect": place.smallest_effect, "diversity": spread}
        scores["reconstruction"] = {name: ceiling[name].value for name in MEASURES}
        if len(samples) > 1:
            others = judge(readings, [*samples[1:], samples[0]])["place"]
            scores |= {"shuffled": others.value, "shuffled_ci": others.interval}
        examples, images = _examples(samples, generated, reconstructed, readings)
        return Outcome(scores, {"drawn": examples, "several": _name(several, images)}, images)


def diversity(groups: Sequence[Sequence[Image.Image]]) -> float:
    """How much pictures of one prompt differ, relative to pictures of different prompts; 0 = not at all, at most 1.

    The mean absolute difference of pixels over all pairs of one group, over that of pairs from different groups.
    """
    arrays = [[np.asarray(p.convert("RGB"), dtype=np.float32) / 255 for p in group] for group in groups]
    within = [_distance(a, b) for group in arrays for a, b in combinations(group, 2)]
    between = [
        _distance(a, b) for one, other in combinations(arrays, 2) for a, b in zip(one, other, strict=False)
    ]
    if not within or not between or np.mean(between) == 0:
        return 0.0
    return min(1.0, float(np.mean(within)) / float(np.mean(between)))


def _distance(one: Float[np.ndarray, "h w 3"], other: Float[np.ndarray, "h w 3"]) -> float:
    return float(np.abs(one - other).mean())


def _matches(sample: Sample) -> bool:
    return writes_picture(sample) and not pictures_read(sample) and "scene" in sample.truth


def checker_of(source: Any, scene: Any) -> Any:
    """The checker of the built-in world; raises NotApplicable for a source without one."""
    if not hasattr(source, "emoji"):
        raise NotApplicable(f"the data source {source.name!r} has no checker of pictures")
    from chiasm.data.world.checker import Checker

    return Checker(source.emoji, grid=scene.grid, styles=source.styles)


def judge(readings: Sequence[Sequence[Any]], samples: Sequence[Sample]) -> dict[str, Estimate]:
    """Each measure over all pictures: of things, `object` and `place`; of pictures, `count` and `all`."""
    from chiasm.data.world.checker import score

    each = [score(cells, sample.truth["scene"]) for cells, sample in zip(readings, samples, strict=True)]
    judged = {}
    for name in MEASURES:
        values: list[float] = []
        clusters: list[int] = []
        for i, score_of in enumerate(each):
            things = round(score_of["cells_asked"]) if name in ("object", "place") else 1
            values += [score_of[name]] * things
            clusters += [i] * things
        judged[name] = clustered(values, clusters)
    return judged


def _diversity(exam: Exam, samples: Sequence[Sample]) -> tuple[dict[str, list[Image.Image]], float]:
    """Several pictures of each of some prompts, and how much they differ."""
    prompts = list({question(sample): sample for sample in samples}.items())[:PROMPTS]
    repeated = [sample for _, sample in prompts for _ in range(SAME)]
    generated = exam.subject.draw(repeated, seed=exam.seed + 1)
    groups = [generated[i : i + SAME] for i in range(0, len(generated), SAME)]
    return dict(zip((text for text, _ in prompts), groups, strict=True)), diversity(groups)


def _examples(
    samples: Sequence[Sample],
    generated: Sequence[Image.Image],
    reconstructed: Sequence[Image.Image],
    readings: Sequence[Sequence[Any]],
) -> tuple[list[dict[str, Any]], dict[str, Image.Image]]:
    """The first pictures for the report; the samples stand in random order already."""
    examples: list[dict[str, Any]] = []
    images: dict[str, Image.Image] = {}
    for i, (sample, cells) in enumerate(zip(samples[:EXAMPLES], readings, strict=False)):
        scene = sample.truth["scene"]
        language = sample.truth.get("language", "en")
        requested = {thing.cell: thing.emoji.name(language) for thing in scene.things}
        recognised = [None if emoji is None else emoji.name(language) for emoji in cells]
        files = {"drawn": f"drawn-{i}.webp", "true": f"true-{i}.webp", "rebuilt": f"rebuilt-{i}.webp"}
        images |= {
            files["drawn"]: generated[i],
            files["rebuilt"]: reconstructed[i],
            files["true"]: written_image(sample).open(),
        }
        grid = [{"asked": requested.get(cell), "found": recognised[cell]} for cell in range(scene.cells)]
        prompt = prompt_and_words(sample, generated[i])
        examples.append({"prompt": prompt, **files, "columns": scene.grid[1], "cells": grid})
    return examples, images


def _name(several: dict[str, list[Image.Image]], images: dict[str, Image.Image]) -> list[dict[str, Any]]:
    """File names for the pictures of the first prompts, which are added to `images`."""
    rows = []
    for row, (prompt, group) in enumerate(list(several.items())[:ROWS]):
        names = [f"several-{row}-{i}.webp" for i in range(len(group))]
        images |= dict(zip(names, group, strict=True))
        rows.append({"prompt": prompt, "pictures": names})
    return rows
