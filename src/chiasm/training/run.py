"""The folder of a run: its recipe, the process that writes it, and all that is needed to repeat it."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from chiasm.distribution.devices import name_of
from chiasm.distribution.processes import Ranks
from chiasm.errors import CheckpointError, ChiasmError, OutdatedError, RecipeError, quoted
from chiasm.parts.plugins import loaded
from chiasm.recipe import Recipe, load_recipe, write_text
from chiasm.recipe.checkpoints import FILES, training_checkpoints
from chiasm.storage.claim import claim
from chiasm.storage.folders import read_json, remove_drafts
from chiasm.storage.integrity import check_seal
from chiasm.training.state import differing_keys, only_more_steps


class Run:
    """A folder claimed for training by one process (of each run, the first rank); a context manager.

    Raises:
        RecipeError: when the folder holds a run of another recipe.
        ChiasmError: when another process trains in it, or when its name is no text.
    """

    def __init__(self, folder: Path, recipe: Recipe, ranks: Ranks):
        name = str(folder)
        if "\0" in name or name.encode(errors="ignore").decode() != name:
            raise ChiasmError(f"the run's folder {quoted(name)} has bytes that are no text; choose another")
        self.folder, self.recipe, self.ranks = folder, recipe, ranks
        self._lock: int | None = None
        self._began: datetime | None = None
        self.more_steps = False  # than the run had that is there

    def __enter__(self) -> Run:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.ranks.first:
            self._lock = claim(self.folder)
        try:
            self._compare()
            self.ranks.wait()
            if self.ranks.first:
                remove_drafts(self.folder)
                remove_drafts(self.folder / "checkpoints")
                path = self.folder / "recipe.yaml"
                if not (self.begun and path.is_file()):  # else it changes once the new recipe is checked
                    self.recipe.save(path)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def finished(self, say: Callable[[str], None]) -> bool:
        """Whether the final model is there, of as many steps as the recipe has, and as it was written."""
        final = self.folder / "final"
        if self.more_steps or not all((final / name).is_file() for name in FILES):
            return False
        if self._record().get("finished") is None:
            return False
        try:
            check_seal(final)
        except CheckpointError as error:
            say(f"{error}; it is written anew from the last checkpoint")
            return False
        return True

    def check_data(self, data: Mapping[str, str], held_out: Mapping[str, str], meant: bool) -> None:
        """Raise RecipeError where data has changed since it was last trained or measured on, unless that is meant.

        data, held_out: identities of the sources of either kind.
        """
        before, measured = _last_data(self._record())
        changed = [name for name, identity in data.items() if before.get(name, identity) != identity]
        if measured:
            either = sorted({*held_out, *measured})
            changed += [name for name in either if held_out.get(name) != measured.get(name)]
        if changed and not meant:
            names = ", ".join(dict.fromkeys(changed))
            raise RecipeError(
                f"{self.folder} holds a run on other data: {names} has changed since (see run.json); choose "
                "another folder, bring the data back, or say that it is meant: --other-data (other_data=True)"
            )

    @property
    def began(self) -> datetime:
        """When the run first began: the same on every rank, and after every resumption."""
        if self._began is None:
            own = date_of(self.folder) if self.ranks.first else None
            self._began = self.ranks.gather(own or datetime.now(UTC).replace(microsecond=0))[0]
        return self._began

    def started(self, data: Mapping[str, str], held_out: Mapping[str, str], device: torch.device) -> None:
        """Record the run's recipe, data and environment, when it begins and at every resumption.

        What it first began with stays (`data`, `held_out`); later changes are listed in `data_changes`.
        """
        if not self.ranks.first:
            return
        path = self.folder / "run.json"
        record: dict[str, Any] = {"sessions": []} | self._record()
        _note_data(record, data, held_out)
        record |= {
            "command": command(),
            "plugins": loaded(),
            "seed": self.recipe.seed,
            "versions": versions(),
            "git": _commit(),
            "machine": _machine(device) | {"processes": self.ranks.world},
            "finished": None,
        }
        record["started"] = self.began.isoformat()
        record["sessions"].append(_now())
        write_text(path, _json(record))
        self.recipe.save(self.folder / "recipe.yaml")

    def measured_on(self, held_out: Mapping[str, str]) -> None:
        """Record the held-out data that a finished run is measured on from now on, and its recipe."""
        if self.ranks.first:
            record = self._record()
            before = _json(record)
            _note_data(record, _last_data(record)[0], held_out)
            if _json(record) != before:
                write_text(self.folder / "run.json", _json(record))
            self.recipe.save(self.folder / "recipe.yaml")

    def note(self, **entries: Any) -> None:
        """Add entries to the run's record."""
        if self.ranks.first:
            path = self.folder / "run.json"
            write_text(path, _json(self._record() | entries))

    def ended(self) -> None:
        if self.ranks.first:
            path = self.folder / "run.json"
            write_text(path, _json(self._record() | {"finished": _now()}))

    @property
    def begun(self) -> bool:
        """Whether a step was ever done in this folder; a start that failed before may be replaced."""
        metrics = self.folder / "metrics.jsonl"
        done = metrics.is_file() and metrics.stat().st_size > 0
        return done or (self.folder / "final").is_dir() or bool(training_checkpoints(self.folder))

    def _record(self) -> dict[str, Any]:
        """What `run.json` holds; nothing where there is none."""
        path = self.folder / "run.json"
        record = read_json(path) if path.is_file() else {}
        kinds = {"data": dict, "held_out": dict, "sessions": list, "data_changes": list}
        whole = isinstance(record, dict) and all(
            isinstance(record.get(name, kind()), kind) for name, kind in kinds.items()
        )
        changes = record.get("data_changes", []) if whole else []
        if not whole or not all(_is_change(each) for each in changes):
            raise CheckpointError(f"{path} is not the record of a run; remove it, and it is written anew")
        return record

    def _compare(self) -> None:
        path = self.folder / "recipe.yaml"
        self.more_steps = False
        if not self.begun:
            if self.ranks.first:
                (self.folder / "run.json").unlink(missing_ok=True)
            return
        if not path.is_file():
            return  # the checkpoints have it too
        try:
            theirs = load_recipe(path)
        except OutdatedError:
            raise
        except ChiasmError as error:
            raise RecipeError(
                f"{path}, the recipe of this run, cannot be read: {error}; remove it: the checkpoints have it too"
            ) from None
        differing = differing_keys(self.recipe, theirs)
        self.more_steps = bool(differing) and only_more_steps(self.recipe, theirs, differing)
        if differing and not self.more_steps:
            raise RecipeError(
                f"{self.folder} holds a run of another recipe: it differs in {', '.join(differing)}; "
                "choose another folder, or the recipe that is there"
            )


def _is_change(entry: Any) -> bool:
    """Whether it is an entry of `data_changes`."""
    return isinstance(entry, dict) and all(
        isinstance(each, dict) for each in (entry.get("data"), entry.get("held_out", {}))
    )


def _last_data(record: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Identities of the sources that a run was last trained on, and of those that it is measured on."""
    changes = record.get("data_changes") or [{}]
    return (
        record.get("data", {}) | changes[-1].get("data", {}),
        changes[-1].get("held_out", record.get("held_out", {})),
    )


def _note_data(record: dict[str, Any], data: Mapping[str, str], held_out: Mapping[str, str]) -> None:
    """Append the identities of a run's sources to those in its record."""
    record.setdefault("data", dict(data))
    record["held_out"] = record.get("held_out") or dict(held_out)
    changes = record.setdefault("data_changes", [])
    if (dict(data), dict(held_out)) != _last_data(record):
        changes.append({"time": _now(), "data": dict(data), "held_out": dict(held_out)})


def command() -> str:
    """The command line of this process, as one would type it; what is no text in it is written as \\udcff."""
    name = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else ""
    first = (
        [name]
        if name == "chiasm"
        else ["python", *([sys.argv[0]] if name not in ("", "-c") else ["-c", "..."])]
    )
    return shlex.join([*first, *sys.argv[1:]]).encode("utf-8", "backslashreplace").decode()


def versions() -> dict[str, str]:
    result = {"python": platform.python_version()}
    for package in ("chiasm", "torch", "transformers", "tokenizers", "safetensors", "numpy", "pillow"):
        try:
            result[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return result


def _commit() -> str | None:
    """The commit of the repository that the working folder belongs to."""
    try:
        completed = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return completed.stdout.strip() or None


def _machine(device: torch.device) -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    threads = torch.get_num_threads()
    return {"cpu": cpu, "cores": os.cpu_count(), "threads": threads, "device": name_of(device)}


def date_of(folder: Path) -> datetime | None:
    """When the run in this folder began; None where there is none. Raises CheckpointError."""
    path = folder / "run.json"
    record = read_json(path) if path.is_file() else {}
    text = record.get("started") if isinstance(record, dict) else None
    try:
        return None if text is None else datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise CheckpointError(f"{path} says that the run started at {text!r}, which is no time") from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"
