"""What is kept of a cell: small JSON, from which alone the report is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chiasm.errors import ChiasmError
from chiasm.evaluation import metrics
from chiasm.recipe import write_text
from chiasm.storage.folders import read_json, read_object
from chiasm.studies.budget import ArmCost
from chiasm.studies.design import Cell
from chiasm.studies.plan import Study, score_at

FOLDER, CELLS, SECONDS = "records", "cells.json", "processor.json"
CONTROLS = ("blind", "shuffled", "commonest", "copying", "everything")


def record_of(cell: Cell, study: Study, folder: Path, cost: ArmCost) -> dict[str, Any]:
    """The record of a cell that was run in a folder; raises RecipeError where its evaluation lacks an endpoint."""
    measured = read_object(folder / "eval.json")
    run = read_object(folder / "run.json")
    task, _, rest = study.endpoint.partition(".")
    tasks, spent = measured["tasks"], measured["cost"]
    items = _items(folder, task) if rest == "score" else None
    training = spent["training"]
    return {
        "id": cell.id,
        "arm": cell.arm,
        "seed": cell.seed,
        "size": cell.size,
        "rate": cell.rate,
        "score": score_at(tasks, study.endpoint),
        "secondary": {
            name: {"score": score_at(tasks, place), "controls": controls_of(tasks, place)}
            for name, place in study.secondary.items()
        },
        "items": None if items is None else [round(score, 4) for score in items],
        "controls": controls_of(tasks, study.endpoint) | _oracle(folder, task, measured["metric"]),
        "samples": training.get("samples", 0),  # 0 = not known: an older version began it
        "tokens": training["tokens"],
        "training_flops": cost.total(cell.recipe, "flops"),
        "parameters": spent["parameters"]["total"],
        "trainable": spent["parameters"]["trainable"],
        "image_tokens": spent["image_tokens"],
        "flops": spent["flops"],
        "answer_seconds": {k: v for k, v in spent["seconds"].items() if k in ("answer", "picture")},
        "seconds": read_json(folder / SECONDS),
        "versions": run.get("versions"),
    }


def write_record(folder: Path, name: str, record: Mapping[str, Any]) -> None:
    write_text(folder / FOLDER / f"{name}.json", json.dumps(record) + "\n")


def read_record(folder: Path, name: str, id: str) -> dict[str, Any] | None:
    """The record of a cell; None where there is none, or one of another recipe."""
    path = folder / FOLDER / f"{name}.json"
    if not path.is_file():
        return None
    record = read_object(path)
    return record if record.get("id") == id else None


def write_cells(folder: Path, cells: Sequence[Cell]) -> None:
    """Name the cells of a study, so that a report needs no recipes."""
    named = {cell.name: {"id": cell.id, "sweep": cell.sweep} for cell in cells}
    write_text(folder / CELLS, json.dumps(named, indent=1) + "\n")


def read_records(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int]:
    """The records of the cells that are compared, those of the sweep, and how many cells there are to compare."""
    if not (folder / CELLS).is_file():
        raise ChiasmError(f"{folder} has no {CELLS}: run the study first")
    cells = read_object(folder / CELLS)
    compared: list[dict[str, Any]] = []
    swept: list[dict[str, Any]] = []
    for name, cell in cells.items():
        record = read_record(folder, name, cell["id"])
        if record is not None:
            (swept if cell["sweep"] else compared).append(record)
    return compared, swept, sum(not cell["sweep"] for cell in cells.values())


def controls_of(tasks: Mapping[str, Any], endpoint: str) -> dict[str, float]:
    """Those that stand beside an endpoint; beside any other number than a `score` none, for they are of scores."""
    *path, last = endpoint.split(".")
    table: Any = tasks
    for key in path if last == "score" else ():
        table = table[key]
    return {name: float(table[name]) for name in CONTROLS if isinstance(table.get(name), int | float)}


def _oracle(folder: Path, task: str, metric: str) -> dict[str, float]:
    """The true answers, judged as answers are; of drawings, the true images through the image tokenizer."""
    scores_of_task = read_object(folder / "eval.json")["tasks"].get(task, {})
    if "oracle" in scores_of_task:
        return {"oracle": float(scores_of_task["oracle"])}
    questions = read_object(folder / "samples.json").get(task, {}).get("asked", ())
    judge = metrics.lookup(metric)
    scores = [
        float(judge(each["answer"], tuple(each.get("truths", (each["answer"],))))) for each in questions
    ]
    if scores:
        return {"oracle": sum(scores) / len(scores)}
    reconstruction = scores_of_task.get("reconstruction", {})
    ceiling = reconstruction.get("all" if task == "analogies" else "place")
    return {"oracle": float(ceiling)} if isinstance(ceiling, int | float) else {}


def _items(folder: Path, task: str) -> list[float] | None:
    """The score of each question, in the order in which they were asked."""
    samples = read_object(folder / "samples.json").get(task, {})
    return [float(each["score"]) for each in samples.get("asked", ())] or None
