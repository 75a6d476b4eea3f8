"""The folder of a run: what it was asked, by whom it is being written, and from what it can be retold."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from chiasm.checkpoint import FILES, read_json, remove_drafts
from chiasm.data import Source
from chiasm.devices import name_of
from chiasm.errors import ChiasmError, RecipeError
from chiasm.recipe import Recipe, load_recipe, write_text
from chiasm.training.distribution import Ranks
from chiasm.training.state import differing_keys


class Run:
    """A folder claimed for training by one process (of each run, the first rank); a context manager.

    Raises:
        RecipeError: when the folder holds a run of another recipe.
        ChiasmError: when another process trains in it.
    """

    def __init__(self, folder: Path, recipe: Recipe, ranks: Ranks):
        self.folder, self.recipe, self.ranks = folder, recipe, ranks
        self._lock: int | None = None

    def __enter__(self) -> Run:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.ranks.first:
            self._claim()
        try:
            self._compare()
            self.ranks.wait()
            if self.ranks.first:
                remove_drafts(self.folder)
                remove_drafts(self.folder / "checkpoints")
                self.recipe.save(self.folder / "recipe.yaml")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def finished(self) -> bool:
        record = self.folder / "run.json"
        whole = all((self.folder / "final" / name).is_file() for name in FILES)
        return whole and record.is_file() and read_json(record).get("finished") is not None

    def started(self, sources: Mapping[str, Source], device: torch.device) -> None:
        """Write down what the run is made of, when it begins and each time it is taken up again."""
        if not self.ranks.first:
            return
        path = self.folder / "run.json"
        record: dict[str, Any] = read_json(path) if path.is_file() else {"sessions": []}
        record |= {
            "command": command(),
            "seed": self.recipe.seed,
            "data": {name: source.fingerprint for name, source in sources.items()},
            "versions": versions(),
            "git": _commit(),
            "machine": _machine(device) | {"processes": self.ranks.world},
            "finished": None,
        }
        record.setdefault("started", _now())
        record["sessions"].append(_now())
        write_text(path, _json(record))

    def note(self, **entries: Any) -> None:
        """Add entries to the run's record."""
        if self.ranks.first:
            path = self.folder / "run.json"
            write_text(path, _json(read_json(path) | entries))

    def ended(self) -> None:
        if self.ranks.first:
            path = self.folder / "run.json"
            write_text(path, _json(read_json(path) | {"finished": _now()}))

    def _claim(self) -> None:
        self._lock = os.open(self.folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            self._lock = None
            raise ChiasmError(
                f"another process is training in {self.folder}; choose another folder"
            ) from None

    def _compare(self) -> None:
        path = self.folder / "recipe.yaml"
        differing = differing_keys(self.recipe, load_recipe(path)) if path.is_file() else []
        if differing:
            raise RecipeError(
                f"{self.folder} holds a run of another recipe: it differs in {', '.join(differing)}; "
                "choose another folder, or the recipe that is there"
            )


def command() -> str:
    """The command line of this process, as one would type it."""
    name = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else ""
    first = (
        [name]
        if name == "chiasm"
        else ["python", *([sys.argv[0]] if name not in ("", "-c") else ["-c", "..."])]
    )
    return shlex.join([*first, *sys.argv[1:]])


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("chiasm", "torch", "transformers", "tokenizers", "safetensors", "numpy", "pillow"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """The commit of the repository that the working folder belongs to."""
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() or None


def _machine(device: torch.device) -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    threads = torch.get_num_threads()
    return {"cpu": cpu, "cores": os.cpu_count(), "threads": threads, "device": name_of(device)}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"
