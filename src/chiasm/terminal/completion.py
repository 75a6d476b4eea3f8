"""What the shell proposes behind `chiasm COMMAND`, once `chiasm --install-completion` has been typed.

Nothing heavy is imported: a proposal comes while somebody types.
"""

from __future__ import annotations

from collections.abc import Iterable
from glob import escape, glob


def recipe_names(incomplete: str) -> list[str]:
    """Recipes that come with Chiasm, and YAML files."""
    from chiasm.recipe import recipes

    return _proposed(recipes(), incomplete)


def study_names(incomplete: str) -> list[str]:
    """Studies that come with Chiasm, and YAML files."""
    from chiasm.recipe import shipped

    return _proposed(shipped("studies", "study-files"), incomplete)


def slot_names(incomplete: str) -> list[str]:
    """What parts there are for."""
    from chiasm.parts import SLOTS

    return [slot for slot in SLOTS if slot.startswith(incomplete)]


def served_folders(incomplete: str) -> list[str]:
    """Folders, also behind `NAME=`."""
    name, equals, place = incomplete.partition("=")
    start = f"{name}=" if equals else ""
    return [f"{start}{folder}" for folder in sorted(glob(escape(place if equals else name) + "*/"))]


def _proposed(names: Iterable[str], incomplete: str) -> list[str]:
    files = sorted(glob(escape(incomplete) + "*.yaml"))
    return [name for name in names if name.startswith(incomplete)] + files
