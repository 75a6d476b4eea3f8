"""Runs the cells of a study, several at a time; one that fails takes no other with it, one that is done stays."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from chiasm.errors import ChiasmError
from chiasm.parts.plugins import load_plugins
from chiasm.recipe import write_text
from chiasm.recipe.checkpoints import refuse_run
from chiasm.storage import safe_yaml
from chiasm.storage.claim import claimed
from chiasm.studies.agreed import Agreed
from chiasm.studies.design import Cell, Terms, best_rate, cells_of, sweep_cells
from chiasm.studies.plan import Study
from chiasm.studies.processes import Runner, run_apart
from chiasm.studies.records import read_record, read_records, record_of, write_cells, write_record

RUNS = "cells"
Say = Callable[[str], None]
Task = TypeVar("Task")


def run_study(
    study: Study,
    folder: Path,
    *,
    jobs: int = 0,
    ray: str | None = None,
    plugins: Sequence[str] = (),
    say: Say = lambda line: None,
) -> list[dict[str, Any]]:
    """Train and measure every cell that has no record in the folder yet, and return all records.

    First what the arms have equal is worked out, then the learning rates are swept, then the cells are run.
    jobs: cells at a time, one thread each; 0 = one a core.
    ray: where the cells run on Ray: `local`, or the address of a cluster whose machines all see the folder.
    plugins: as for `chiasm.use`, for every cell.
    Raises ChiasmError when the folder is a run's, or another process runs a study in it, and, at the end, when
    cells have failed.
    """
    load_plugins(plugins)
    refuse_run(folder, "the study")
    cells_of(study)  # any mistake in a recipe comes before the first process
    folder.mkdir(parents=True, exist_ok=True)
    named = list(map(str, plugins))
    with claimed(folder, "running a study"):
        (folder / "study.yaml").write_text(safe_yaml.write(study.model_dump(mode="json")), encoding="utf-8")
        if ray is None:
            return _run_all(StudyRun(study, folder, jobs or os.cpu_count() or 1, named, say, run_apart))
        from chiasm.studies.ray_processes import ray_processes

        with ray_processes(ray, jobs) as processes:
            return _run_all(StudyRun(study, folder.absolute(), processes.jobs, named, say, processes.run))


def _run_all(run: StudyRun) -> list[dict[str, Any]]:
    study, folder = run.study, run.folder
    agreed = Agreed(study, folder, run.plugins, run.at_once, run.apart)
    terms = agreed.terms()
    sweep = sweep_cells(study, terms)
    write_cells(folder, sweep)
    run.cells(sweep, agreed, "sweep of learning rates")
    terms = Terms(terms.widths, terms.steps, best_rates(study, folder, sweep))
    cells = cells_of(study, terms)
    write_cells(folder, [*sweep, *cells])
    run.cells(cells, agreed, "study")
    run.check(len(sweep) + len(cells))
    return read_records(folder)[0]


def best_rates(study: Study, folder: Path, sweep: Sequence[Cell]) -> dict[str, float]:
    """The multiple of its learning rates with which each arm did best."""
    scores: dict[str, dict[float, float]] = {}
    for cell in sweep:
        record = read_record(folder, cell.name, cell.id)
        if record is not None:
            scores.setdefault(cell.arm, {})[cell.rate] = record["score"]
    return {arm: best_rate(swept) for arm, swept in scores.items()}


class StudyRun:
    """What all cells of a run share. apart: calls a function in a process of its own."""

    def __init__(self, study: Study, folder: Path, jobs: int, plugins: list[str], say: Say, apart: Runner):
        self.study, self.folder, self.jobs, self.plugins, self.say = study, folder, jobs, plugins, say
        self.apart = apart
        self.failed: list[Path] = []  # where it stands why

    def at_once(self, function: Callable[[Task], str | None], tasks: Iterable[Task]) -> list[str]:
        """Call the function for each task, `jobs` of them at a time; what it returns, where it is not None."""
        with ThreadPoolExecutor(self.jobs) as pool:
            return [name for name in pool.map(function, tasks) if name is not None]

    def cells(self, cells: Sequence[Cell], agreed: Agreed, what: str) -> None:
        if not cells:
            return
        missing = [cell for cell in cells if read_record(self.folder, cell.name, cell.id) is None]
        self.say(f"{what}: {len(cells)} cells, {len(cells) - len(missing)} of them measured already")
        hopeless = [cell for cell in missing if cell.arm in agreed.failed]
        failed = self.at_once(lambda cell: self._run(cell, agreed), [c for c in missing if c not in hopeless])
        self.failed += [self.folder / RUNS / name / "output.log" for name in failed]
        self.failed += [agreed.log(cell.arm) for cell in hopeless]

    def check(self, cells: int) -> None:
        """Raise ChiasmError where cells have failed."""
        if self.failed:
            places = ", ".join(map(str, dict.fromkeys(self.failed)))
            raise ChiasmError(
                f"{len(self.failed)} of {cells} cells failed; see {places}. The others have their records"
            )

    def _run(self, cell: Cell, agreed: Agreed) -> str | None:
        """Run a cell; its name where it has failed."""
        from chiasm.studies.work import train_and_measure

        place = self.folder / RUNS / cell.name
        recipe, text = place / "recipe.yaml", cell.recipe.to_yaml()
        if recipe.is_file() and recipe.read_text(encoding="utf-8") != text:
            shutil.rmtree(place)  # of an older form of the study
        write_text(recipe, text)
        arguments = (str(recipe), str(place / "run"), self.plugins)
        if not self.apart(train_and_measure, arguments, place / "output.log"):
            self.say(f"{cell.name}: failed")
            return cell.name
        record = record_of(cell, self.study, place / "run", agreed.cost(cell.arm))
        write_record(self.folder, cell.name, record)
        self.say(f"{cell.name}: {record['score']:.3f} in {record['seconds']:.0f} processor seconds")
        return None
