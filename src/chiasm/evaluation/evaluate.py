"""`chiasm eval`: run every task on a trained model; eval.json, samples.json and report.html in its folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from PIL import Image

from chiasm import parts
from chiasm.data import Source, counts
from chiasm.data.sample import Sample
from chiasm.distribution.devices import DTYPES
from chiasm.errors import CheckpointError, ChiasmError, RecipeError, check_path, check_texts, quoted
from chiasm.evaluation import experts
from chiasm.evaluation.cost import cost
from chiasm.evaluation.outcomes import FailedTask, run_task
from chiasm.evaluation.report import SAMPLES, numbers, write_report
from chiasm.evaluation.subject import ModelSubject
from chiasm.evaluation.tasks import Exam, NotApplicable, check, tasks
from chiasm.model.checkpoint import load_model
from chiasm.parts.plugins import load_plugins, loaded
from chiasm.recipe import Recipe, check_sampling, load_recipe, section_of, write_text
from chiasm.recipe.checkpoints import find_checkpoint
from chiasm.storage.folders import read_json
from chiasm.storage.integrity import checksum
from chiasm.training.metrics import read_metrics
from chiasm.training.run import date_of

OVERRIDABLE = ("evaluation", "sampling", "data")


def evaluate(
    folder: str | Path,
    *,
    overrides: Sequence[str] = (),
    only: Iterable[str] = (),
    plugins: Iterable[str | Path] = (),
    say: Callable[[str], None] = lambda line: None,
    report: bool = True,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
) -> dict[str, Any]:
    """Measure the model of a run's folder and write the results into the folder.

    overrides: `dotted.key=value` within the recipe's evaluation, sampling and data (`evaluation.questions=100`).
    only: names of tasks, if not all. plugins: files or modules of one's own, as for `chiasm.use`.
    say: is called with lines about the progress. device, dtype: as for `chiasm.load`.
    Returns what eval.json holds: the figures, and how they were measured.
    Raises RecipeError for an override of anything else, CheckpointError for a folder without a model, ChiasmError
    where nothing can be measured, or a task of one's own fails: then the results of the others are there.
    """
    folder = check_path("folder", folder, CheckpointError)
    for override in check_texts("overrides", overrides, "dotted.key=value"):
        if section_of(override) not in OVERRIDABLE:
            raise RecipeError(
                f"override {quoted(override)} would change the model that was trained; an evaluation can change "
                f"{', '.join(OVERRIDABLE)}"
            )
    only = list(only)
    load_plugins(plugins)
    find_checkpoint(folder)
    recipe = load_recipe(folder, overrides)
    check(recipe.evaluation)
    check_sampling(recipe)
    model = load_model(folder, device, dtype)
    if not model.speaks:
        raise ChiasmError(
            f"{folder} has no language model to ask; look at its image tokenizer: chiasm tokenizer report {folder}"
        )
    day = date_of(folder)
    if day is not None:
        model.language.tokenizer.date(day)
    source = held_out(recipe)
    results, samples, pictures = examine(
        ModelSubject(model, recipe.sampling, recipe.evaluation.answer_tokens),
        source,
        recipe,
        read_metrics(folder),
        only=only,
        say=say,
    )
    results |= {
        "overrides": list(overrides),
        "only": only,
        "plugins": loaded(),
        "device": str(model.device),
        "dtype": None if dtype is None else _dtype_name(dtype),
        "settings": settings_of(recipe),
        "weights": _weights(folder),
    }
    save(folder, results, samples, pictures)
    if report and results["tasks"]:
        say(f"report: {write_report(folder)}")
    if results["failed"]:
        raise ChiasmError("; ".join(results["failed"].values()))
    return results


def is_evaluated(folder: Path) -> bool:
    """Whether a run has a report of all tasks, of its present weights, measured with its recipe's settings."""
    try:
        measured = read_json(folder / "eval.json")
    except CheckpointError:
        return False
    expected = {
        "only": [],
        "failed": {},
        "weights": _weights(folder),
        "settings": settings_of(load_recipe(folder)),
    }
    current = isinstance(measured, dict) and all(
        measured.get(key, {}) == value for key, value in expected.items()
    )
    return current and (folder / "report.html").is_file()


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """A recipe's settings of evaluation and its data, every option spelled out."""
    settings = recipe.model_dump(mode="json", include={"seed", "evaluation", "sampling", "data"})
    measured = recipe.evaluation.sources
    settings["data"] = {name: spec for name, spec in settings["data"].items() if name in measured}
    return settings


def _dtype_name(dtype: str | torch.dtype) -> str:
    return next((name for name, each in DTYPES.items() if each == dtype), str(dtype))


def _weights(folder: Path) -> str:
    return checksum(find_checkpoint(folder) / "model.safetensors")


def held_out(recipe: Recipe) -> Source:
    """The recipe's source of held-out samples; raises RecipeError if it names none."""
    name = recipe.evaluation.data
    if name is None:
        raise RecipeError(
            f"recipe {recipe.name!r} says nothing about evaluation; set evaluation.data to a source"
        )
    return parts.build("data", recipe.data[name], where=f"data.{name}")


def examine(
    subject: ModelSubject,
    source: Source,
    recipe: Recipe,
    training: Sequence[dict[str, Any]] = (),
    *,
    only: Iterable[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Image.Image]]:
    """What eval.json and samples.json hold, and the pictures of the report by file name.

    training: the lines of metrics.jsonl. A task of the user's own that fails stands in `failed`, with a sentence.
    Raises ChiasmError where no task applies.
    """
    exam = Exam(subject, source, recipe.evaluation, recipe.seed, _labelled(recipe))
    registered, chosen = tasks(recipe.evaluation.tasks), list(only)
    for name in chosen:
        parts.lookup("task", name)
    results: dict[str, Any] = {"tasks": {}, "left_out": {}, "failed": {}}
    samples: dict[str, Any] = {}
    images: dict[str, Image.Image] = {}
    seconds: dict[str, float] = {}
    usual = [n for n, task in registered.items() if not task.on_request or n in recipe.evaluation.tasks]
    for name in chosen or usual:
        begin = perf_counter()
        try:
            outcome = run_task(registered[name], exam)
        except NotApplicable as reason:
            results["left_out"][name] = str(reason)
            say(f"{name}: left out, {reason}")
            continue
        except FailedTask as error:
            results["failed"][name] = str(error)
            say(f"{name}: failed, {error}")
            continue
        seconds[name] = perf_counter() - begin
        results["tasks"][name] = outcome.scores
        samples[name] = outcome.samples
        images |= outcome.pictures
        say(f"{summary(name, outcome.scores)} in {seconds[name]:.0f} s")
    if skipped := Counter(source.skipped) + Counter(exam.unusable.values()):
        results["skipped"] = dict(skipped)
        say(f"held-out data: {counts(skipped)}")
    if not results["tasks"] and not results["failed"]:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in results["left_out"].items())
        raise ChiasmError(f"nothing of this model can be measured on {recipe.evaluation.data!r}: {reasons}")
    if use := subject.model.routing.report():
        results["routing"] = use
        say(experts.summary(use))
    results["cost"] = cost(subject, recipe, _some(exam), training)
    results["cost"]["seconds"]["evaluation"] = seconds
    results |= {
        "metric": recipe.evaluation.metric,
        "seed": recipe.seed,
        "data": recipe.evaluation.data,
        "fingerprint": source.fingerprint,
    }
    return results, samples, images


def summary(name: str, scores: Mapping[str, Any]) -> str:
    """One line: the score with its interval, or its numbers; answers cut off, and items left out."""
    if "score" in scores:
        text = f"{name}: {scores['score']:.1%}"
        if "ci" in scores:
            text += " [{:.1%}, {:.1%}]".format(*scores["ci"])
    else:
        figures = [f"{key} {value:.4g}" for key, value in numbers(scores).items()]
        text = f"{name}: {', '.join(figures)}"
    if scores.get("cut"):
        text += f" ({scores['cut']} of {scores['n']} answers cut off by the limit of tokens)"
    if isinstance(scores.get("note"), str):
        text += f", {scores['note']}"
    if isinstance(scores.get("left_out"), str):
        text += f" ({scores['left_out']})"
    return text


def _labelled(recipe: Recipe) -> tuple[Source, Source] | None:
    if recipe.evaluation.labelled is None:
        return None
    learnt, judged = (
        parts.build("data", recipe.data[name], where=f"data.{name}") for name in recipe.evaluation.labelled
    )
    return learnt, judged


def save(
    folder: Path, results: dict[str, Any], samples: dict[str, Any], images: dict[str, Image.Image]
) -> None:
    """Write eval.json last, so that whoever sees it finds the rest."""
    images_folder = folder / SAMPLES
    images_folder.mkdir(parents=True, exist_ok=True)
    for old in images_folder.glob("*.webp"):
        old.unlink()
    for name, image in images.items():
        image.convert("RGB").save(images_folder / name, quality=90, method=4)
    write_text(folder / "samples.json", json.dumps(samples, ensure_ascii=False, indent=1))
    write_text(folder / "eval.json", json.dumps(results, ensure_ascii=False, indent=2))


def _some(exam: Exam, groups: int = 20) -> list[Sample]:
    return [
        sample
        for index in range(min(groups, len(exam.source)))
        for sample in exam.source[index]
        if exam.usable(exam.source, sample.name, sample)
    ]
