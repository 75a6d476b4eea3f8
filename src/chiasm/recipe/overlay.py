"""Raw recipes laid one over another: `tiny` over its recipe, a recipe over its base, overrides over both."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from chiasm.errors import RecipeError, nearest, quoted
from chiasm.storage import safe_yaml


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """`overlay` laid over `base`, key by key.

    A part that changes its `type` starts afresh; a list of named mappings can be overlaid by name or by index, and
    null takes an item of it out. Raises RecipeError for an overlay that is no mapping.
    """
    if not isinstance(base, Mapping) or not isinstance(overlay, Mapping):
        raise RecipeError(f"{quoted(overlay)} cannot be laid over {quoted(base)}: both must be mappings")
    merged = dict(base)
    for key, value in overlay.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, list | tuple):
            merged[key] = _merge_list(list(old), value, key)
        elif isinstance(value, Mapping) and isinstance(old, Mapping):
            changed = "type" in value and value["type"] != old.get("type")
            merged[key] = dict(value) if changed else merge(old, value)
        else:
            merged[key] = value
    return merged


def load_value(value: str, override: str) -> Any:
    """The value of an override, in YAML; raises RecipeError."""
    return safe_yaml.parse(value, f"the value of override {quoted(override)}")


def nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return value


def _merge_list(items: list[Any], overlay: Mapping[str, Any], where: str) -> list[Any]:
    names = [item.get("name") if isinstance(item, Mapping) else None for item in items]
    places = {name: i for i, name in enumerate(names) if isinstance(name, str)}
    out = set()
    for key, value in overlay.items():
        index = places.get(key, int(key) if re.fullmatch("[0-9]{1,6}", str(key)) else None)
        if index is None or index >= len(items):
            raise RecipeError(f"{where} has no item {quoted(key)}{nearest(str(key), places)}")
        if value is None:
            out.add(index)
        items[index] = merge(items[index], value) if isinstance(value, Mapping) else value
    return [item for index, item in enumerate(items) if index not in out]
