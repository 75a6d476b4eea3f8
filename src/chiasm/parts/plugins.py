"""Parts, tasks, metrics, families and replays of one's own, from a file or a module that the user names."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import shlex
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chiasm.errors import ChiasmError, excerpt, reason
from chiasm.parts.registry import place

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_loaded: dict[str, None] = {}  # as they were named, in order
_texts: dict[Path, bytes] = {}  # of the files; one that has been edited is imported again


def load_plugins(references: Iterable[str | Path]) -> None:
    """Import Python files (`metrics.py`) and modules (`mine.metrics`), which register what they define.

    Only what the user names on the command line or in a call is imported; no recipe and no checkpoint can name one.
    Raises ChiasmError for one that cannot be imported.
    """
    for reference in references:
        try:
            if str(reference).endswith(".py"):
                _import_file(Path(reference).expanduser().resolve())
            else:
                _import_module(str(reference))
        except ChiasmError:
            raise
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            raise ChiasmError(f"the plugin {excerpt(reference)} cannot be imported: {why(error)}") from None
        _loaded[str(reference)] = None


def loaded() -> list[str]:
    """The plugins of this process as they were named, for a record, and for other processes that need the same."""
    return list(_loaded)


def as_options() -> str:
    """The plugins of this process as a command that needs them too is given them, with a space in front."""
    return "".join(f" --plugin {shlex.quote(name)}" for name in _loaded)


@contextmanager
def recorded(folder: Path) -> Iterator[None]:
    """A name that nothing has, in what a run's folder or a checkpoint of it holds: the run's plugins are named."""
    try:
        yield
    except ChiasmError as error:
        names = _recorded(folder) if error.unknown else []
        if names:
            options = " ".join(f"--plugin {excerpt(name, 200)}" for name in names)
            error.args = (f"{error}; by its run.json the run had {options}",)
            error.unknown = False
        raise


def _recorded(folder: Path) -> list[str]:
    """The plugins that a run's record names and that are not loaded."""
    from chiasm.storage.folders import read_json

    path = next(filter(Path.is_file, (each / "run.json" for each in (folder, *folder.parents[:2]))), None)
    try:
        record = None if path is None else read_json(path)
    except ChiasmError:
        return []
    names = record.get("plugins") if isinstance(record, dict) else None
    names = names if isinstance(names, list) else []
    return [each for each in names if isinstance(each, str) and each not in _loaded]


def is_own(definition: Any) -> bool:
    """Whether a class or a function is of the user's own code."""
    return not str(definition.__module__).startswith("chiasm.")


def why(error: BaseException) -> str:
    """Why code of the user's own failed, in one line."""
    if isinstance(error, SystemExit):
        return f"it ends the program (sys.exit({'' if error.code is None else error.code!r}))"
    return reason(error)  # type: ignore[arg-type]


def failure(error: BaseException, definition: Any) -> str:
    """Where code of the user's own failed, in the file of a class that was called, and why."""
    file = getattr(sys.modules.get(definition.__module__), "__file__", None)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = f"line {lines[-1]} of {file}" if lines else place(definition)
    return f"{where}: {type(error).__name__}: {why(error)}"


def _import_module(name: str) -> None:
    if not _MODULE.fullmatch(name) or Path(name).is_file():
        raise ChiasmError(
            f"{excerpt(name)} is no plugin: one is a Python file (metrics.py) or a module (mine.metrics)"
        )
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # a module that the plugin wants
        raise ChiasmError(
            f"there is no module {name}; a plugin in a file is named with its ending: {name}.py"
        ) from None


def _import_file(path: Path) -> None:
    if not path.is_file():
        raise ChiasmError(
            f"there is no plugin at {excerpt(path)}; it is a Python file or the name of a module"
        )
    text = path.read_bytes()
    if _texts.get(path) == text:
        return
    # A name that is the same in every process, so that what is pickled in one is found in another.
    name = f"chiasm_plugin_{path.stem}_{hashlib.blake2b(bytes(path), digest_size=8).hexdigest()}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    before, sys.modules[name] = sys.modules.get(name), module
    try:
        exec(compile(text, path, "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
        raise
    _texts[path] = text
