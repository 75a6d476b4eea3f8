"""One cell of a study, in a process of its own: `python -m chiasm.studies.cells RECIPE FOLDER [PLUGIN ...]`.

Trains and measures the recipe in the folder, and says on standard output what it cost in processor seconds.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from chiasm.evaluation.evaluate import evaluate
from chiasm.parts.plugins import load_plugins
from chiasm.storage.folders import read_json
from chiasm.studies.plan import Cell, Study, score_at
from chiasm.training import train

SECONDS = "processor.json"


def run(recipe: str, folder: str, *plugins: str) -> None:
    """A cell that was stopped goes on where it was; its seconds are added up."""
    began = time.process_time()
    load_plugins(plugins)
    train(recipe, folder)
    evaluate(folder, report=False)
    spent = Path(folder) / SECONDS
    before = read_json(spent) if spent.is_file() else 0.0
    spent.write_text(json.dumps(before + time.process_time() - began))


def record_of(cell: Cell, study: Study, folder: Path) -> dict[str, Any]:
    """What is kept of a cell; raises RecipeError where the evaluation has no such endpoint."""
    measured = read_json(folder / "eval.json")
    made = read_json(folder / "run.json")
    task, _, rest = study.endpoint.partition(".")
    table = measured["tasks"].get(task, {})
    cost = measured["cost"]
    return {
        "id": cell.id,
        "arm": cell.arm,
        "seed": cell.seed,
        "score": score_at(measured["tasks"], study.endpoint),
        "items": _items(folder, task) if rest == "score" else None,
        "controls": {name: table[name] for name in ("blind", "shuffled", "commonest") if name in table},
        "samples": sum(stage.steps * stage.rows * stage.accumulate for stage in cell.recipe.stages),
        "parameters": cost["parameters"]["total"],
        "trainable": cost["parameters"]["trainable"],
        "image_tokens": cost["image_tokens"],
        "flops": cost["flops"],
        "tokens": cost["training"]["tokens"],
        "seconds": read_json(folder / SECONDS),
        "versions": made.get("versions"),
    }


def _items(folder: Path, task: str) -> list[float] | None:
    """The score of each question, in the order in which they were asked."""
    samples = read_json(folder / "samples.json").get(task, {})
    return [float(each["score"]) for each in samples.get("asked", ())] or None


if __name__ == "__main__":
    run(*sys.argv[1:])
