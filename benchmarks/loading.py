"""What processes that make batches are worth: steps with images from files, made in turn and made ahead.

    python benchmarks/loading.py

Three models take the same batches: none at all, one that computes on another device (it sleeps, and the cores are
free), and one that computes on these cores. `benchmarks/README.md` says how to read the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter

from chiasm import parts
from chiasm.distribution.processes import Ranks
from chiasm.model import Model
from chiasm.recipe import Recipe, load_recipe
from chiasm.training.aims import DocumentsAim
from chiasm.training.batches import DocumentBatches
from chiasm.training.feed import Feed
from chiasm.training.optimiser import build_optimiser
from chiasm.training.step import TrainStep

CPU = torch.device("cpu")
QUICK = {
    "images": 8,
    "side": 64,
    "view": 28,
    "rows": 1,
    "width": 16,
    "rounds": 1,
    "steps": 2,
    "seconds": 0.02,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default, about in (
        ("images", 64, "files of JPEG, each in a record of its own"),
        ("side", 800, "pixels of the longer side of a file; the other has three quarters"),
        ("view", 336, "pixels of a side of what the encoder sees"),
        ("rows", 4, "of a packed batch, of 1,280 positions each"),
        ("width", 192, "of the language model"),
        ("rounds", 3, "each number of workers takes its turn in each; the medians are printed"),
        ("steps", 8, "of a round"),
        ("seconds", 0.25, "of a step of the model that computes elsewhere"),
    ):
        kind = float if isinstance(default, float) else int
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{about} (default: {default})")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(QUICK)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options, Path(folder))
    print(json.dumps(result) if options.json else table(result))


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds a step of each model with each number of workers."""
    recipe = load_recipe(_recipe(options, _files(options, folder)))
    model = Model(recipe.model, texts=["What is it?", "noise"], seed=0)
    source = parts.build("data", recipe.data["files"])
    models: dict[str, Callable[[Any], object]] = {
        "none": lambda batch: None,
        "elsewhere": lambda batch: time.sleep(options.seconds),
        "on these cores": _training(recipe, model),
    }

    def seconds(use: Callable[[Any], object], workers: int) -> float:
        batches = DocumentBatches(model.contract, {"files": source}, recipe.stages[0], seed=0)
        with Feed(batches, workers) as feed:
            use(feed.take().batch)  # the workers are there
            began = time.perf_counter()
            for _ in range(options.steps):
                use(feed.take().batch)
            return (time.perf_counter() - began) / options.steps

    rounds: dict[str, dict[int, list[float]]] = {name: {n: [] for n in options.workers} for name in models}
    for _ in range(options.rounds):
        for name, use in models.items():
            for workers in options.workers:
                rounds[name][workers].append(seconds(use, workers))
    batch = DocumentBatches(model.contract, {"files": source}, recipe.stages[0], seed=0).next()
    return {
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "images": sum(len(group) for group in batch.read.groups) if batch.read else 0,
        "seconds": {name: {n: median(each) for n, each in by.items()} for name, by in rounds.items()},
    }


def table(result: dict[str, Any]) -> str:
    """The figures of `measure`, with the ratio to batches that are made in turn."""
    lines = [
        f"{result['images']} images a batch, {result['cores']} cores, load {result['load']:.0f}",
        f"{'model':16}{'workers':>8}{'seconds a step':>16}{'ratio':>8}",
    ]
    for name, by in result["seconds"].items():
        base = by[min(by)]
        lines += [f"{name:16}{n:8}{each:16.3f}{base / each:8.2f}" for n, each in by.items()]
    return "\n".join(lines)


def _training(recipe: Recipe, model: Model) -> Callable[[Any], object]:
    stage = recipe.stages[0]
    model.train_only(stage.train)
    step = TrainStep(DocumentsAim(model), build_optimiser(model, stage), stage, Ranks.start(CPU), CPU)
    return lambda batch: step([batch])


def _files(options: argparse.Namespace, folder: Path) -> Path:
    """A file of records, each about a JPEG of noise that was blurred until it compresses as photographs do."""
    dice, records = np.random.default_rng(0), folder / "records.jsonl"
    with records.open("w", encoding="utf-8") as file:
        for number in range(options.images):
            shape = (options.side * 3 // 4, options.side, 3)
            image = Image.fromarray(dice.integers(0, 255, shape, np.uint8)).filter(
                ImageFilter.GaussianBlur(2)
            )
            image.save(folder / f"{number}.jpg", quality=90)
            turns = [
                {"role": "user", "content": "<image>What is it?"},
                {"role": "assistant", "content": f"noise {number}"},
            ]
            file.write(json.dumps({"messages": turns, "images": [f"{number}.jpg"]}) + "\n")
    return records


def _recipe(options: argparse.Namespace, records: Path) -> dict[str, Any]:
    language = {
        "model_type": "llama",
        "hidden_size": options.width,
        "intermediate_size": 3 * options.width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    }
    encoder = {"type": "vit", "patch_size": 14, "width": 64, "depth": 2, "heads": 4, "size": options.view}
    return {
        "name": "loading",
        "model": {
            "views": {"type": "whole", "size": options.view},
            "encoder": encoder,
            "connector": {"type": "pixel_shuffle", "factor": 2},
            "language": {"type": "causal", "config": language, "vocabulary": 400},
        },
        "data": {"files": {"type": "chat", "path": str(records)}},
        "stages": [
            {
                "name": "learn",
                "train": {"encoder": 1e-4, "connector": 1e-4, "language": 1e-4},
                "data": {"files": 1.0},
                "steps": 1,
                "rows": options.rows,
                "length": 1280,
            }
        ],
    }


if __name__ == "__main__":
    main()
