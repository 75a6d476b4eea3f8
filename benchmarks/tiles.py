"""Tiles against a single view, at equal parameters: on small text, and on scenes of large objects.

    python benchmarks/tiles.py          # two trainings of InternVL's tiny overlay, and the table in docs/learn.md

The arms differ in nothing but the views, up to twelve tiles and a thumbnail or the whole image at the size of one
tile, and in the rows of a step, so that both read about as many documents. Each is trained on written letters and
on scenes together. A stopped run goes on where it was.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from learn import arguments, train
from learn_figures import TILES, folder_of, gather, write
from learn_page import write_page

RECIPE = "internvl-1.5"
ARMS = {
    "tiles": ["model.views.tiles=12"],  # as the overlay has it: 8 rows a step, 63 questions of 65 positions
    "single view": [
        "model.views.tiles=1",
        "stages.pretrain.rows=2",  # 60 questions of 17 positions
        "stages.instruct.rows=2",
    ],
}
LEGIBLE = 128  # pixels of the longer side of a page that twelve tiles show
# By the resolution that a question needs: what tiles show and a single view does not, and what neither does.
TEXTS = {"small text": f"{LEGIBLE} px", "smaller text": f"above {LEGIBLE} px"}
SCENES = "large objects"
TASKS = (*TEXTS, SCENES)


def main() -> int:
    options = arguments(__doc__, "tiles").parse_args()
    page, runs = Path(options.out), Path(options.runs)
    rows = [row for arm in ARMS for row in measured(arm, runs)]
    rows.sort(key=lambda row: TASKS.index(row["task"]))
    write(folder_of(page) / TILES, rows)
    write_page(gather([], page), page)
    for row in rows:
        print(f"{row['task']}, {row['arm']}: {row['scores']['score']:.1%}")
    return 0


def measured(arm: str, runs: Path) -> list[dict[str, Any]]:
    """Train an arm, unless that was done, and measure it on each task by exact match."""
    import torch

    from chiasm.evaluation.evaluate import evaluate
    from chiasm.recipe import load_recipe

    torch.set_num_threads(1)
    folder = runs / arm.replace(" ", "-")
    seconds = train(load_recipe(RECIPE, ARMS[arm], tiny=True), folder)
    exact = "evaluation.metric=exact"
    bands = f"evaluation.tasks.resolution={{questions: 600, edges: [{LEGIBLE}]}}"
    pages = evaluate(folder, overrides=[exact, bands], only=["resolution"], report=False)
    asked = [exact, "evaluation.data=held-out-scenes", "evaluation.questions=200"]
    scenes = evaluate(folder, overrides=asked, only=["questions"], report=False)
    texts = pages["tasks"]["resolution"]["by_type"]
    return [
        *(
            _row(task, arm, texts[band] | {"by_type": {}}, pages, folder, seconds)
            for task, band in TEXTS.items()
        ),
        _row(SCENES, arm, scenes["tasks"]["questions"], scenes, folder, seconds),
    ]


def _row(
    task: str,
    arm: str,
    scores: Mapping[str, Any],
    figures: Mapping[str, Any],
    folder: Path,
    seconds: float,
) -> dict[str, Any]:
    from chiasm.storage.folders import read_json

    run: Mapping[str, Any] = read_json(folder / "run.json")
    cost = figures["cost"]
    return {
        "task": task,
        "arm": arm,
        "scores": scores,
        "seconds": seconds,
        "parameters": cost["parameters"]["total"],
        "image_tokens": cost["image_tokens"]["read"],
        "commit": str(run["git"])[:7],
        "finished": run["finished"],
    }


if __name__ == "__main__":
    sys.exit(main())
