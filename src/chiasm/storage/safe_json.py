"""JSON of a stranger: whatever is wrong with it is a ValueError, however deep it is nested."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from chiasm.errors import excerpt


def parse(text: str | bytes, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The value of a JSON text; raises ValueError."""
    try:
        return json.loads(text, object_pairs_hook=object_pairs_hook)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_object(
    text: str | bytes, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> dict[str, Any]:
    """The object that a JSON text holds; raises ValueError, also for what is none."""
    value = parse(text, object_pairs_hook)
    if not isinstance(value, dict):
        raise ValueError(f"it holds no object ({{...}}) but {excerpt(value)}")
    return value


def each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An `object_pairs_hook` by which a key that stands twice in an object is an error, and not the last one's."""
    key = repeated(pairs)
    if key is not None:
        raise ValueError(f"the key {excerpt(key)!r} stands there twice")
    return dict(pairs)


def repeated(pairs: list[tuple[str, Any]]) -> str | None:
    """The first repeated key of an object; None = there is none."""
    keys: set[str] = set()
    for key, _ in pairs:
        if key in keys:
            return key
        keys.add(key)
    return None
