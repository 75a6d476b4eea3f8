"""A part's options as its constructor's signature has them, with their help from its docstrings."""

from __future__ import annotations

import inspect
import operator
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, reduce
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ConfigDict, Field, TypeAdapter

if TYPE_CHECKING:
    from chiasm.parts import Part


@dataclass(frozen=True)
class Option:
    """One keyword-only argument of a part's constructor."""

    name: str
    annotation: Any
    default: Any  # inspect.Parameter.empty when the option is required
    help: str

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    @property
    def type(self) -> str:
        text = inspect.formatannotation(_unbounded(self.annotation))
        return re.sub(r"\b(?:typing|chiasm\.[\w.]+)\.(?=\w)", "", text)

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """What checks a value, built once: that takes a hundred times as long as to check one."""
        return TypeAdapter(self.annotation, config=ConfigDict(arbitrary_types_allowed=True))

    @cached_property
    def items_adapter(self) -> TypeAdapter[Any]:
        """What checks the bounds of a list of parts, which are checked one by one."""
        bounded = [form for form in forms(self.annotation) if get_origin(form) is Annotated]
        return TypeAdapter(
            Annotated[list[Any], Field(), *(b for form in bounded for b in get_args(form)[1:])]
        )


def has_stray_boolean(annotation: Any, value: Any) -> bool:
    """Whether a boolean stands where an annotation has only numbers, texts and null; pydantic reads a 0 or a 1."""
    return _leaves(annotation) <= {int, float, str, types.NoneType} and _holds_boolean(value)


def wrong_length(problems: Sequence[Any]) -> str | None:
    """What is wrong with a list of a fixed or a bounded length, if that is the first of what pydantic finds."""
    first = problems[0]
    *owner, index = first["loc"] or (None,)
    if first["type"] == "missing" and isinstance(
        index, int
    ):  # of a fixed length, once for each item that lacks
        length = 1 + max(each["loc"][-1] for each in problems if list(each["loc"][:-1]) == owner)
        return f"it must have {length} items, not {len(first['input'])}"
    bound = {"too_long": ("at most", "max_length"), "too_short": ("at least", "min_length")}.get(
        first["type"]
    )
    if bound is None or not isinstance(first["input"], list | tuple):
        return None
    return f"it must have {bound[0]} {first['ctx'][bound[1]]} items, not {len(first['input'])}"


def _leaves(annotation: Any) -> set[Any]:
    """The types that an annotation is of, without bounds and containers."""
    if get_origin(annotation) is Annotated:
        return _leaves(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return {type(value) for value in get_args(annotation)}
    inner = [each for each in get_args(annotation) if each is not Ellipsis]
    return set().union(*map(_leaves, inner)) if inner else {annotation}


def _holds_boolean(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_boolean, value.values()))
    return any(map(_holds_boolean, value)) if isinstance(value, list | tuple) else isinstance(value, bool)


def forms(annotation: Any) -> tuple[Any, ...]:
    """What an annotation allows, one by one."""
    return get_args(annotation) if get_origin(annotation) in (types.UnionType, Union) else (annotation,)


def without_bounds(annotation: Any) -> Any:
    """The type that bounds stand round."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _unbounded(annotation: Any) -> Any:
    """The type without its bounds: `PositiveInt` is int, and `list[Width]` a list[int]."""
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return _unbounded(arguments[0])
    if get_origin(annotation) in (types.UnionType, Union):
        return reduce(operator.or_, map(_unbounded, arguments))
    if get_origin(annotation) in (list, tuple, dict):
        return get_origin(annotation)[tuple(map(_unbounded, arguments))]
    return annotation


@cache
def signature_options(part: type[Part]) -> dict[str, Option]:
    """Its options by name, in the order of its signature."""
    docs = _argument_docs(part)
    signature = inspect.signature(part.__init__, eval_str=True)
    return {
        p.name: Option(
            p.name, Any if p.annotation is p.empty else p.annotation, p.default, docs.get(p.name, "")
        )
        for p in signature.parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }


def _argument_docs(part: type[Part]) -> dict[str, str]:
    """`name: text` entries under `Args:` in the docstrings of the class, its bases and its constructor."""
    docs: dict[str, str] = {}
    own = [each.__dict__.get("__doc__") for each in reversed(part.__mro__)]
    for text in map(inspect.cleandoc, filter(None, [*own, part.__init__.__doc__])):
        block = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", text, re.MULTILINE)
        if block:
            entries = re.findall(r"^ {4}(\w+): (.+(?:\n {5,}.+)*)", block.group(1), re.MULTILINE)
            docs |= {name: re.sub(r"\s+", " ", entry) for name, entry in entries}
    return docs
