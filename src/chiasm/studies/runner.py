"""Runs the cells of a study, several at a time; one that fails takes no other with it, one that is done stays."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from chiasm.errors import ChiasmError
from chiasm.recipe import write_text
from chiasm.storage import safe_yaml
from chiasm.storage.folders import read_json
from chiasm.studies.cells import record_of
from chiasm.studies.plan import Cell, Study, cells_of

RECORDS, RUNS = "records", "cells"


def run_study(
    study: Study,
    folder: Path,
    *,
    jobs: int = 0,
    plugins: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Train and measure every cell that has no record in the folder yet, and return all records.

    jobs: cells at a time, one thread each; 0 = one a core.
    plugins: as for `chiasm.use`, for every cell.
    Raises ChiasmError when cells have failed, at the end.
    """
    cells = cells_of(study)
    (folder / RECORDS).mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(safe_yaml.write(study.model_dump(mode="json")), encoding="utf-8")
    missing = [cell for cell in cells if read_record(folder, cell) is None]
    say(f"{len(cells)} cells, {len(cells) - len(missing)} of them measured already")
    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        failed = [
            name for name in pool.map(lambda cell: _run(study, cell, folder, plugins, say), missing) if name
        ]
    if failed:
        places = ", ".join(str(folder / RUNS / name / "output.log") for name in failed)
        raise ChiasmError(
            f"{len(failed)} of {len(cells)} cells failed; see {places}. The others have their records"
        )
    return records_of(folder, cells)


def read_record(folder: Path, cell: Cell) -> dict[str, Any] | None:
    """The record of a cell; None where there is none, or one of another recipe."""
    path = folder / RECORDS / f"{cell.name}.json"
    if not path.is_file():
        return None
    record = read_json(path)
    return record if record.get("id") == cell.id else None


def records_of(folder: Path, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    return [record for cell in cells if (record := read_record(folder, cell)) is not None]


def _run(
    study: Study, cell: Cell, folder: Path, plugins: Sequence[str], say: Callable[[str], None]
) -> str | None:
    """Run a cell; its name where it has failed."""
    place = folder / RUNS / cell.name
    recipe = place / "recipe.yaml"
    if recipe.is_file() and recipe.read_text(encoding="utf-8") != _text(cell):
        shutil.rmtree(place)  # of an older form of the study
    place.mkdir(parents=True, exist_ok=True)
    recipe.write_text(_text(cell), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "chiasm.studies.cells",
        str(recipe),
        str(place / "run"),
        *map(str, plugins),
    ]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with (place / "output.log").open("a", encoding="utf-8") as log:
        code = subprocess.run(
            command, env=os.environ | threads, stdout=log, stderr=log, check=False
        ).returncode
    if code:
        say(f"{cell.name}: failed")
        return cell.name
    record = record_of(cell, study, place / "run")
    write_text(folder / RECORDS / f"{cell.name}.json", json.dumps(record, indent=1) + "\n")
    say(f"{cell.name}: {record['score']:.3f} in {record['seconds']:.0f} processor seconds")
    return None


def _text(cell: Cell) -> str:
    return safe_yaml.write(cell.recipe.model_dump(mode="json"))
