"""What pydantic finds wrong with a file or a request, in this project's sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from chiasm.errors import excerpt, nearest, quoted
from chiasm.parts.signature import wrong_length

CONTAINERS = {"model": "mapping", "dict": "mapping", "mapping": "mapping", "list": "list", "tuple": "list"}
EXPECTED = "input should be "


def sentence(error: ValidationError, model: type[BaseModel], body: Any, whole: str) -> str:
    """What is wrong, where, and what would be right, for the first of the problems.

    body: what was read as `model`. whole: what it is called.
    """
    place, problems = furthest(error.errors(), body)
    kind = problems[0]["type"]
    place = _named(body, place)
    if length := wrong_length([problems[0], *error.errors()]):
        owner = place[:-1] if kind == "missing" else place
        return f"{excerpt('.'.join(owner), 200)}: {length}"
    if kind in ("extra_forbidden", "missing"):
        *owner, key = place
        where = excerpt(".".join(owner), 200) or whole
        if kind == "missing":
            return f"{where} lacks the key {quoted(key)}"
        return f"{where} has no key {quoted(key)}{nearest(key, fields_at(model, owner))}"
    where, container = excerpt(".".join(place), 200), kind.partition("_")[0]
    if container in CONTAINERS and kind.endswith("_type") and len(problems) == 1:
        return f"{where or whole} must be a {CONTAINERS[container]}, not {quoted(problems[0]['input'])}"
    return f"{where}: {complaint(problems)}" if where else complaint(problems)


def complaint(problems: Sequence[Any]) -> str:
    """What is wrong with a value, without its place. problems: those of it, one for each form it might have had."""
    first = problems[0]
    messages = list(dict.fromkeys(_message(each) for each in problems))
    if first["type"] == "value_error":
        return messages[0]
    others = [each.removeprefix(EXPECTED) for each in messages[1:]]
    return f"{' or '.join([messages[0], *others])}, not {quoted(first['input'])}"


def _message(problem: Any) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ").replace("a valid dictionary", "a mapping")
    return message[:1].lower() + message[1:]


def _named(body: Any, place: Sequence[str]) -> list[str]:
    """A place in which an item of a list stands by its name, as overrides name it."""
    named: list[str] = []
    for key in place:
        item = body[int(key)] if isinstance(body, list | tuple) and int(key) < len(body) else None
        body = body.get(key) if isinstance(body, Mapping) else item
        name = item.get("name") if isinstance(item, Mapping) else None
        named.append(name if isinstance(name, str) and name else key)
    return named


def furthest(problems: Sequence[Any], body: Any) -> tuple[list[str], list[Any]]:
    """Place of the first problem, and the problems there; of the branches of a union, those that read furthest."""
    placed = [(_place(body, each), each) for each in problems]
    first, _ = placed[0]
    place = max(
        (each for each, _ in placed if each[: len(first)] == first), key=len
    )  # the first of the longest
    return place, [problem for each, problem in placed if each == place]


def _place(body: Any, problem: Any) -> list[str]:
    """The fields that lead to a problem; pydantic's names of a union's branches stand in no body."""
    place: list[str] = []
    value = body
    for number, name in enumerate(problem["loc"]):
        if name in value if isinstance(value, dict) else _has_item(value, name):
            value = value[name]
        elif not (problem["type"] == "missing" and number == len(problem["loc"]) - 1):
            continue
        place.append(str(name))
    return place


def _has_item(value: Any, index: Any) -> bool:
    return isinstance(value, list | tuple) and isinstance(index, int) and index < len(value)


def fields_at(annotation: Any, place: Sequence[str]) -> list[str]:
    """The fields of the models that may stand at a place of a value of this type."""
    return list(dict.fromkeys(_fields(annotation, place)))


def _fields(annotation: Any, place: Sequence[str]) -> Iterator[str]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields
        if not place:
            yield from fields
        elif place[0] in fields:
            yield from _fields(fields[place[0]].annotation, place[1:])
    elif get_origin(annotation) in (dict, list, tuple):
        if place:
            for each in get_args(annotation):
                yield from _fields(each, place[1:])
    else:  # a union, or an annotated type
        for each in get_args(annotation):
            yield from _fields(each, place)
