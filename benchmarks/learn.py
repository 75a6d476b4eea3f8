"""Trains the tiny overlay of every recipe on the built-in world, measures it, and writes docs/learn.md.

What it learnt is written into the catalogue of docs/systems.md too.

    python benchmarks/learn.py                    # every recipe with a tiny overlay
    python benchmarks/learn.py llava fuyu         # these; the page shows the others as they were measured
    python benchmarks/learn.py --page             # the page again, from what is there

A recipe that was measured and has not changed since is not trained again, so this can be stopped and taken up.
`benchmarks/README.md` says how to read the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import process_time
from typing import Any

import yaml
from learn_catalogue import write_catalogue, write_grid
from learn_figures import gather
from learn_page import write_page

ROOT = Path(__file__).parents[1]
RECORD = "record.json"
CATALOGUE, GRID = "systems.md", "grid.md"  # beside the page
SECONDS = "seconds.json"  # processor time of training, session by session
# Not shown to learn here: the quickstart's figures stand in the README, its tiny overlay only tries the
# machinery, and so does that of the pretrained pair.
ELSEWHERE = ("quickstart", "smol")
CLIPS = 96  # on which an image tokenizer alone is measured


def main() -> int:
    options = _options()
    if options.worker:
        learn(options.recipes[0], Path(options.runs))
        return 0
    chosen = options.recipes or tiny_recipes()
    if not options.page:
        _learn_all(chosen, options)
    page = Path(options.out)
    rows = gather(read_records(Path(options.runs)), page)
    failed = [row["name"] for row in rows if "failed" in row]
    write_page(rows, page)
    write_catalogue(rows, page.parent / CATALOGUE)
    write_grid(page.parent / GRID)
    print(f"{options.out}: {len(rows) - len(failed)} recipes measured, {len(failed)} failed {failed or ''}")
    return 1 if failed else 0


def arguments(description: str | None, runs: str) -> argparse.ArgumentParser:
    """Of a command that trains in a folder of `runs` and writes into docs/learn.md. description: of its module."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    parser.add_argument("--runs", default=str(ROOT / "runs" / runs), help="folder of the runs")
    parser.add_argument("--out", default=str(ROOT / "docs" / "learn.md"), help="the page")
    return parser


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, "learn")
    parser.add_argument("recipes", nargs="*", help="names or files (default: all with a tiny overlay)")
    parser.add_argument("--workers", type=int, default=2, help="recipes at a time, one thread each")
    parser.add_argument("--page", action="store_true", help="train nothing; write the page")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def tiny_recipes() -> list[str]:
    """The recipes that come with Chiasm and have a tiny overlay which is meant to learn."""
    from chiasm.recipe import recipes

    return [name for name, path in recipes().items() if name not in ELSEWHERE and _has_tiny(path)]


def name_of(source: str) -> str:
    """Of a recipe's run: the recipe's name, or that of its file."""
    return Path(source).name.removesuffix(".yaml")


def _has_tiny(path: Path) -> bool:
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    return "tiny" in raw or ("base" in raw and _has_tiny(path.parent / raw["base"]))


def _learn_all(sources: Sequence[str], options: argparse.Namespace) -> None:
    with ThreadPoolExecutor(options.workers) as pool:
        try:
            list(pool.map(lambda source: _in_process(source, options), sources))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _in_process(source: str, options: argparse.Namespace) -> None:
    """One recipe in a process of its own with one thread: two such keep two cores busier than one with two."""
    command = [sys.executable, __file__, source, "--worker", "--runs", options.runs]
    threads = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    finished = subprocess.run(command, env={**os.environ, **threads}, capture_output=True, text=True)
    folder = Path(options.runs) / name_of(source)
    reason = (
        next(reversed(finished.stderr.strip().splitlines()), "it was killed") if finished.returncode else ""
    )
    if reason and "Interrupted" not in finished.stderr:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / RECORD, {"name": folder.name, "failed": reason})
        print(f"{folder.name}: failed: {reason}", flush=True)
    else:
        print(reason or finished.stdout.strip().splitlines()[-1], flush=True)


def learn(source: str, runs: Path) -> None:
    """Train and measure one recipe; its record stands in the run's folder."""
    import torch

    from chiasm.recipe import load_recipe

    torch.set_num_threads(1)
    recipe = load_recipe(source, tiny=True)
    folder = runs / name_of(source)
    measured = _read(folder / RECORD).get("recipe")
    if measured and not recipe.differs_from(load_recipe(measured)):
        print(f"{folder.name}: measured before")
        return
    _clear(folder, recipe)
    seconds = train(recipe, folder)
    figures = _measured(recipe, folder)
    run = _read(folder / "run.json")
    record = {
        "name": folder.name,
        "about": recipe.about,
        "recipe": recipe.model_dump(mode="json"),
        "figures": figures,
        "training_seconds": seconds,
        "machine": run["machine"],
        "commit": run["git"],
        "finished": run["finished"],
    }
    _write(folder / RECORD, record)
    scores = {name: f"{task['score']:.1%}" for name, task in figures["tasks"].items()}
    if "tokenizer" in figures:
        scores = {"PSNR": f"{figures['tokenizer']['psnr']:.2f} dB"}
    print(f"{folder.name}: {scores} in {record['training_seconds'] / 60:.1f} processor minutes")


def train(recipe: Any, folder: Path) -> float:
    """Train a recipe, unless that was done; returns the processor seconds that it took, over all sessions."""
    import chiasm

    began = process_time()
    try:
        chiasm.train(recipe, folder)
    finally:
        _add(folder / SECONDS, process_time() - began)
    return float(sum(_read(folder / SECONDS)["sessions"]))


def _measured(recipe: Any, folder: Path) -> dict[str, Any]:
    """What `chiasm eval` finds; of an image tokenizer alone, what `chiasm tokenizer report` finds."""
    import chiasm
    from chiasm.evaluation.tokenizers import measure_all

    if "language" not in recipe.model:
        return {"tasks": {}, "tokenizer": measure_all([folder], count=CLIPS)[0].figures}
    figures = chiasm.evaluate(folder)
    if "questions" in figures["tasks"]:
        figures["tasks"]["questions"]["exact"] = _exact(_read(folder / "samples.json"))
    return figures


def _exact(samples: dict[str, Any]) -> dict[str, Any]:
    """Of the answers to questions, how many were wholly right, whatever the metric is."""
    from chiasm.evaluation.statistics import clustered

    asked = samples["questions"]["asked"]
    right = clustered([float(each["right"]) for each in asked], [each["cluster"] for each in asked])
    return {"score": right.value, "ci": right.interval}


def _clear(folder: Path, recipe: Any) -> None:
    """Remove the run of another recipe; one of this recipe is gone on with."""
    from chiasm.recipe import load_recipe
    from chiasm.training.state import differing_keys

    saved = folder / "recipe.yaml"
    if saved.is_file() and differing_keys(recipe, load_recipe(saved)):
        shutil.rmtree(folder)
    elif (folder / RECORD).is_file():
        (folder / RECORD).unlink()


def read_records(runs: Path) -> list[dict[str, Any]]:
    """The records of all runs, by name, with the folder that each lies in."""
    found = sorted(runs.glob(f"*/{RECORD}"))
    return [_read(path) | {"folder": str(path.parent)} for path in found]


def _add(path: Path, seconds: float) -> None:
    sessions: Sequence[float] = _read(path).get("sessions", [])
    _write(path, {"sessions": [*sessions, round(seconds, 1)]})


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
