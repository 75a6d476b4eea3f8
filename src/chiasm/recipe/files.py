"""Recipes as files: where one lies, which come with Chiasm, and how one is written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from chiasm.errors import RecipeError, check_path, nearest, quoted
from chiasm.storage import safe_yaml

SUFFIXES = (".yaml", ".yml")


def find_recipe(source: str | Path) -> Path:
    """The file of a recipe given by path or by name; raises RecipeError."""
    path = check_path("recipe", source, RecipeError)
    if path.suffix in SUFFIXES or len(path.parts) > 1 or path.exists():
        if not path.exists():
            raise RecipeError(f"there is no recipe at {path}: no such file or folder")
        if path.is_dir():
            path = path / "recipe.yaml"
        if not path.is_file():
            raise RecipeError(f"there is no recipe at {path}")
        return path
    shipped = recipes()
    if str(source) not in shipped:
        raise RecipeError(f"there is no recipe {quoted(str(source))}{nearest(str(source), shipped)}")
    return shipped[str(source)]


def recipes() -> dict[str, Path]:
    """The recipes that come with Chiasm, by name."""
    return shipped("recipes", "recipes")


def shipped(folder: str, packaged: str) -> dict[str, Path]:
    """The YAML files of a folder of the repository, by name; in a wheel it has the name `packaged`."""
    package = Path(__file__).parents[1]
    place = next(filter(Path.is_dir, (package / packaged, package.parents[1] / folder)), None)
    return {} if place is None else {path.stem: path for path in sorted(place.glob("*.yaml"))}


def about(path: Path) -> str:
    """The line `about` of a recipe's file, without reading the rest."""
    lines = (line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("about:"))
    line = next(lines, "about: ''")
    return str(safe_yaml.parse(line, str(path))["about"])


def read_raw(path: Path) -> dict[str, Any]:
    """What a recipe's file holds, of whatever form; raises RecipeError."""
    raw = safe_yaml.read(path)
    if not isinstance(raw, dict):
        raise RecipeError(f"{path} must hold a mapping with 'name', 'model', 'data' and 'stages'")
    return raw


def find_base(base: str, folder: Path) -> Path:
    """The file of what a recipe in a folder names as its `base`; raises RecipeError."""
    beside = folder / base
    return beside if beside.is_file() else find_recipe(base)


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, sees the old one or the new one and nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(draft, 0o644)
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
