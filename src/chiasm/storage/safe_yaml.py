"""YAML as data and nothing else: of bounded size, each key once; recipes by the core schema of YAML 1.2.

What PyYAML reads as YAML 1.1 would surprise: `1e-3` is a word, `1:30` is ninety, `010` is eight, `no` is false, a
date is an object, the second of two equal keys wins, and aliases of aliases grow without end.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, ClassVar

import yaml

from chiasm.errors import RecipeError, excerpt

MOST_BYTES = 1 << 20  # of a document
MOST_FOREIGN_BYTES = 1 << 17  # of another project's, of which a folder may have many
MOST = 1 << 63  # of a number, as wide as those of tensors and seeds
MOST_VALUES = 100_000  # of a document, those that aliases repeat included

_CORE = (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
)
_BREAKS = re.compile("[\\x85\\u2028\\u2029]")
_MERGE = "tag:yaml.org,2002:merge"
_KINDS = ("null", "bool", "float", "str", "seq", "map")


def _integer(loader: yaml.SafeLoader, node: Any) -> int:
    return int(loader.construct_scalar(node))


def _constructors(**others: Any) -> dict[Any, Any]:
    """Those of plain values, and the one that refuses any other tag."""
    tags: dict[Any, Any] = {f"tag:yaml.org,2002:{kind}": None for kind in (*_KINDS, *others)}
    plain = {tag: yaml.SafeLoader.yaml_constructors[tag] for tag in (*tags, None)}
    return plain | {f"tag:yaml.org,2002:{kind}": function for kind, function in others.items()}


class _Once(yaml.SafeLoader):
    """Each key of a mapping occurs once, and is a plain value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys: set[Hashable] = set()
        for name, _ in node.value:
            if name.tag == _MERGE:  # merged again and again they grow without end
                raise yaml.constructor.ConstructorError(
                    None, None, "merge keys (<<) are not read", name.start_mark
                )
            key = self.construct_object(name, deep=True)
            if not isinstance(key, str | int | float | bool | None):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is no plain value", name.start_mark
                )
            if key in keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands there twice", name.start_mark
                )
            keys.add(key)
        return super().construct_mapping(node, deep=deep)


class _Loader(_Once):
    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {}  # type: ignore[misc]
    yaml_constructors: ClassVar[dict[Any, Any]] = _constructors(int=_integer)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """No merge keys: what a recipe is laid over is its `base`."""


class _ForeignLoader(_Once):
    """YAML 1.1 as OmegaConf and jsonargparse read it: dates are words, and `1e-4` is a number."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {  # type: ignore[misc]
        first: [each for each in resolvers if each[0] != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors: ClassVar[dict[Any, Any]] = _constructors(
        int=yaml.SafeLoader.yaml_constructors["tag:yaml.org,2002:int"]
    )


def _on_libyaml(loader: type[_Once]) -> type[Any]:
    """The loader on libyaml's parser, where PyYAML was built with it, in a tenth of the time.

    The values are the same; libyaml also takes some tabs that PyYAML's own parser refuses.
    """
    if not yaml.__with_libyaml__:
        return loader
    tables = {name: getattr(loader, name) for name in ("yaml_constructors", "yaml_implicit_resolvers")}
    return type(f"{loader.__name__}OnLibyaml", (yaml.CSafeLoader, loader), tables)


_FAST: dict[type[_Once], type[Any]] = {loader: _on_libyaml(loader) for loader in (_Loader, _ForeignLoader)}


class _Dumper(yaml.SafeDumper):
    """Quotes whatever the loader would not read back as the same text."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {}  # type: ignore[misc]

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Of line breaks the emitter folds any, but only "\\n" is read back; between double quotes all are."""
        style = '"' if _BREAKS.search(data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)


_Dumper.add_representer(str, _Dumper.represent_str)
for _tag, _pattern, _first in _CORE:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}",
            re.compile(f"^(?:{_pattern})$"),
            [*_first, *([""] if _tag == "null" else [])],
        )
_ForeignLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), [*"-+0123456789"]
)


def read(path: Path) -> Any:
    """The content of a YAML file; raises RecipeError naming it."""
    return parse(_text(path, MOST_BYTES, "a recipe is a page"), str(path))


def read_foreign(path: Path) -> Any:
    """The content of a YAML file of another project, which is YAML 1.1; raises RecipeError naming it."""
    return _value(_text(path, MOST_FOREIGN_BYTES, "a config is a page"), _ForeignLoader, str(path))


def _text(path: Path, most: int, advice: str) -> str:
    try:
        if path.stat().st_size > most:
            raise RecipeError(f"{path} is larger than {most:,} bytes; {advice}")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not YAML: {error}") from None
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None


def parse(text: str, where: str) -> Any:
    """The value of a YAML text; raises RecipeError, which begins with `where`."""
    return _value(text, _Loader, where)


def _value(text: str, loader: type[_Once], where: str) -> Any:
    try:
        value = _loaded(text, loader)
        check_plain(value, where)
        return value
    # All but the first two: a tag on a text that does not fit it, such as `!!bool x`.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
        raise RecipeError(f"{where} is not YAML: {_sentence(error)}") from None
    except RecursionError:
        raise RecipeError(f"{where} is nested too deeply") from None


def _loaded(text: str, loader: type[_Once]) -> Any:
    """By libyaml; what it refuses PyYAML's own parser reads again, whose words for what is wrong are the better."""
    try:
        return yaml.load(text, _FAST[loader])
    except Exception:
        return yaml.load(text, loader)


def _sentence(error: Exception) -> str:
    """PyYAML's message of several lines in one: the place in the text, and what is wrong there."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or problem is None:
        return excerpt(" ".join(str(error).split()), 200)
    return f"line {mark.line + 1}, column {mark.column + 1}: {excerpt(problem, 200)}"


def nodes(text: str) -> yaml.Node:
    """A YAML text as nodes, which know where in it they stand; raises yaml.YAMLError."""
    node = yaml.compose(text, _Loader)
    assert node is not None, "a text without a value has no nodes"
    return node


def value_of(node: yaml.Node) -> Any:
    """The plain value of a scalar node."""
    return _Loader("").construct_object(node)


def write(value: Any, *, flow: bool = False) -> str:
    """A value as YAML that `parse` reads back as it is; with `flow`, on one line."""
    width = 1 << 20 if flow else 110
    return yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=width,
        default_flow_style=flow,
    )


def check_plain(value: Any, where: str) -> None:
    """Raise RecipeError for a value that holds itself, has too many values, or a number that is not finite."""
    try:
        count = _count(value, {}, where)
    except RecursionError:
        raise RecipeError(f"{where} is nested too deeply, or holds itself") from None
    if count > MOST_VALUES:
        raise RecipeError(
            f"{where} has {count:,} values once its aliases are written out, more than {MOST_VALUES:,}"
        )


def _count(value: Any, counted: dict[int, int], where: str) -> int:
    """The number of values in `value`, those of aliases each time; `counted` counts by the container's id."""
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"{where} is {value}, which is not a finite number")
    if isinstance(value, int) and abs(value) >= MOST:
        raise RecipeError(f"{where} is a number of {len(str(value))} digits, which nothing takes")
    if not isinstance(value, dict | list | tuple):
        return 1
    if id(value) not in counted:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        counted[id(value)] = 1 + sum(_count(item, counted, f"{where}: {key}") for key, item in items)
    return counted[id(value)]
