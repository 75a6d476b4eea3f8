"""What is found by its name: the parts of every slot, evaluation tasks, metrics, checkpoint families, replays.

Each kind has a registry. What stands in the modules of the kind's own package is there at the first look-up; what a
file of the user's defines, once the user names that file (`chiasm.parts.plugins`). No list is to be extended.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from difflib import get_close_matches
from typing import Any, ClassVar, Generic, TypeVar

from chiasm.errors import ChiasmError, RecipeError, nearest, quoted

T = TypeVar("T")

OWN = "one of your own comes with --plugin FILE or chiasm.use(FILE)"
SLIP = 0.8  # likeness from which on a name is another one mistyped, and none of the user's own


class Registry(Generic[T]):
    """The definitions of one kind (classes or functions) by name.

    kind: in words, for messages. package: the one whose modules define them. error: raised for a wrong name.
    """

    kinds: ClassVar[dict[str, Registry[Any]]] = {}

    def __init__(self, kind: str, package: str, error: type[ChiasmError] = RecipeError):
        self.kind, self.package, self.error = kind, package, error
        self._definitions: dict[str, T] = {}
        self._discovered = False
        Registry.kinds[kind] = self

    def add(self, name: object, definition: T) -> None:
        """Raises `error` for what is no name, or the name of another definition; the same one may come again."""
        if not isinstance(name, str) or not name.strip():
            raise self.error(f"a {self.kind} has no name: {place(definition)}, which gives {quoted(name)}")
        registered = self._definitions.get(name)
        if registered is not None and place(registered) != place(definition):
            raise self.error(
                f"{self.kind} {quoted(name)} is defined twice: {place(registered)} and {place(definition)}; "
                "rename one of them"
            )
        self._definitions[name] = definition

    def items(self) -> dict[str, T]:
        """Every definition by name, in the order of the names."""
        self._discover()
        return dict(sorted(self._definitions.items()))

    def lookup(self, name: str) -> T:
        """The definition of a name; raises `error` with the nearest one."""
        items = self.items()
        if name not in items:
            slip = get_close_matches(name, items, n=1, cutoff=SLIP)
            hint = "" if slip else f" ({OWN})"
            error = self.error(f"there is no {self.kind} {quoted(name)}{nearest(name, items)}{hint}")
            error.unknown = True
            raise error
        return items[name]

    def _discover(self) -> None:
        """Import every module of the package, so that each definition in it registers itself."""
        if self._discovered:
            return
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(getattr(package, "__path__", ()), package.__name__ + "."):
            importlib.import_module(module.name)
        self._discovered = True


def place(definition: Any) -> str:
    """Where a class or a function is defined; two of one name are the same, imported again, only in one place."""
    name = getattr(definition, "__qualname__", None) or repr(definition)
    file = getattr(sys.modules.get(definition.__module__), "__file__", None)
    if file is None:  # of a notebook, where what is written again is meant
        return f"{name} in {definition.__module__}"
    codes = (getattr(each, "__code__", None) for each in (definition, *vars(definition).values()))
    lines = [code.co_firstlineno for code in codes if code is not None and code.co_filename == file]
    return f"{name} in {f'line {min(lines)} of ' if lines else ''}{file}"
