"""Parts, metrics and tasks of one's own, from a file or a module that the user names."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from chiasm.errors import ChiasmError, excerpt, reason

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


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
        except Exception as error:  # whatever the user's code raises
            raise ChiasmError(f"the plugin {reference} cannot be imported: {reason(error)}") from None


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


def place(definition: Any) -> str:
    """Where a function or a class is defined; two of one name are the same, imported again, only in one place."""
    name = getattr(definition, "__qualname__", None) or repr(definition)
    module = sys.modules.get(definition.__module__)
    return f"{name} in {getattr(module, '__file__', None) or definition.__module__}"


def _import_file(path: Path) -> None:
    if not path.is_file():
        raise ChiasmError(
            f"there is no plugin at {excerpt(path)}; it is a Python file or the name of a module"
        )
    name = f"chiasm_plugin_{path.stem}_{abs(hash(str(path))):x}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
