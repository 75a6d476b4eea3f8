"""A subject that answers and draws plausibly, and a run's folder with made-up training, to look at."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from chiasm.data.sample import Picture, Sample
from chiasm.data.world import ScenePicture
from chiasm.evaluation.evaluate import save
from chiasm.evaluation.subject import Subject, expected, pictures_read
from chiasm.evaluation.tasks import Exam, NotApplicable, tasks
from chiasm.recipe import Recipe, resolve

TASKS = dict.fromkeys(("what", "where", "count", "exist", "choice", "relation", "draw", "words"), 1)


class Plausible(Subject):
    """Right with probability `skill` while it sees, else it guesses. Draws the true scene, blurred."""

    sees = draws = True

    def __init__(self, skill: float):
        self.skill = skill
        self.dice = random.Random(0)
        self.last: np.ndarray | None = None

    def answer(self, samples: Sequence[Sample], *, blind: bool = False) -> list[str]:
        return [self._answer(sample, blind) for sample in samples]

    def draw(self, samples: Sequence[Sample], *, seed: int) -> list[Image.Image]:
        return [self._draw(sample) for sample in samples]

    def reconstruct(self, pictures: Sequence[Picture]) -> list[Image.Image]:
        return [picture.open().filter(ImageFilter.GaussianBlur(1)) for picture in pictures]

    def _answer(self, sample: Sample, blind: bool) -> str:
        shown = [p for p in pictures_read(sample) if isinstance(p, ScenePicture)]
        swapped = any(picture.scene != sample.truth["scene"] for picture in shown)
        if not blind and not swapped and self.dice.random() < self.skill:
            return expected(sample)
        choices = sample.truth.get("choices") or ("dog", "tree", "car")
        return self.dice.choice(choices)

    def _draw(self, sample: Sample) -> Image.Image:
        picture = next(c for c in sample.messages[-1].content if isinstance(c, Picture)).open()
        array = np.asarray(picture).copy()
        third = array.shape[0] // 3
        if self.dice.random() > self.skill:
            row, column = self.dice.randrange(3), self.dice.randrange(3)
            cell = np.s_[row * third : (row + 1) * third, column * third : (column + 1) * third]
            array[cell] = self.last[cell] if self.last is not None else array[0, 0]
        self.last = array
        return Image.fromarray(array).filter(ImageFilter.GaussianBlur(0.8))


def a_recipe(**sizes: int) -> Recipe:
    """A recipe that names the world as its held-out data."""
    held = {"type": "world", "split": "combination", "tasks": TASKS, "scenes": 1000}
    return resolve(
        {
            "name": "quickstart",
            "about": "One small model that answers questions about pictures and draws them from words, "
            "trained from scratch on two processor cores with frozen pretrained features.",
            "model": {"language": {"type": "causal", "config": {"model_type": "llama", "hidden_size": 64}}},
            "data": {"train": {"type": "world"}, "held": held},
            "stages": [{"name": "joint", "train": {"language": 1e-3}, "data": {"train": 1.0}, "steps": 900}],
            "evaluation": {"data": "held", **sizes},
        }
    )


def a_run(folder: Path, source: Any, *, skill: float = 0.9, **sizes: int) -> dict[str, Any]:
    """Fill a folder as a training and an evaluation would, and return what eval.json holds."""
    recipe = a_recipe(**sizes)
    exam = Exam(Plausible(skill), source, recipe.evaluation)
    outcomes = {}
    for name, task in tasks().items():
        if task.on_request:
            continue
        with suppress(NotApplicable):  # of what this source has nothing for
            outcomes[name] = task.run(exam)
    results = {
        "tasks": {name: outcome.scores for name, outcome in outcomes.items()},
        "left_out": {},
        "cost": COST,
    }
    pictures = {name: each for outcome in outcomes.values() for name, each in outcome.pictures.items()}
    recipe.save(folder / "recipe.yaml")
    save(folder, results, {name: outcome.samples for name, outcome in outcomes.items()}, pictures)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in _metrics()))
    (folder / "run.json").write_text(json.dumps(RUN))
    return results


def _metrics() -> list[dict[str, Any]]:
    noise = np.random.default_rng(0).normal(size=(900, 4))
    lines: list[dict[str, Any]] = []
    for step in range(1, 400, 3):
        losses = {"reconstruction": 0.02 + 0.3 * np.exp(-step / 60) + 0.004 * noise[step, 0]}
        health = {"codebook_use": 1 - np.exp(-step / 80), "perplexity": 400 * (1 - np.exp(-step / 90))}
        lines.append({"stage": "codes", "step": step, "seconds": 0.9, "losses": losses, "health": health})
    for step in range(1, 900, 3):
        losses = {
            "text": 0.08 + 3 * np.exp(-step / 90) + 0.03 * noise[step, 1],
            "image": 1.9 + 4 * np.exp(-step / 200) + 0.08 * noise[step, 2],
        }
        rate = 1e-3 * np.cos(step / 900 * 1.5)
        sizes = {
            "real": 4000 + int(20 * noise[step, 0]),
            "places": 4096,
            "seconds": 0.43 + 0.02 * noise[step, 3],
        }
        lines.append({"stage": "joint", "step": step, "losses": losses, "lr": {"language": rate}, **sizes})
    return lines


COST: dict[str, Any] = {
    "parameters": {
        "total": 9533344,
        "trainable": 6574496,
        "by_slot": {"encoder": 2958848, "connector": 120192, "language": 2305344, "image_tokenizer": 3945440},
    },
    "image_tokens": {"read": 36, "written": 36},
    "flops": {"question": 750268416, "picture": 537896448},
    "seconds": {"answer": 0.0515, "picture": 0.243, "evaluation": {"questions": 12.0, "generation": 20.0}},
    "peak_memory": 650858496,
    "threads": 2,
    "training": {
        "seconds": 840,
        "tokens": 3686400,
        "stages": {"codes": {"steps": 400, "seconds": 210}, "joint": {"steps": 900, "seconds": 630}},
    },
}
RUN = {
    "command": "chiasm train quickstart --out runs/quickstart",
    "versions": {"chiasm": "0.1.0", "torch": "2.13.0+cpu", "python": "3.12.3"},
    "machine": {"processor": "x86_64", "cores": 2},
    "seed": 0,
    "data": {"train": "6d84dddf6a8593ed060963abb3b3907d"},
}
