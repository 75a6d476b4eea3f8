"""Raw recipes laid one over another: `tiny` over its recipe, a recipe over its base, overrides over both."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from chiasm.errors import RecipeError, excerpt, nearest, quoted
from chiasm.storage import safe_yaml

# Items that have names of the recipe's own, and that null takes out.
_NAMED = re.compile(r"(?:data|evaluation\.tasks|stages\.[^.]+\.(?:data|weights))\.[^.]+")
# All items that null takes out, parts and rates included.
_ITEM = re.compile(rf"{_NAMED.pattern}|(?:stages|model|model\.heads)\.[^.]+|stages\.[^.]+\.train\..+")
# Where nothing but a mapping means anything, and where nothing but a mapping or null does.
_SECTION = re.compile(
    r"model|model\.heads|data|sampling|checkpoints|evaluation|evaluation\.tasks|"
    r"stages\.[^.]+\.(?:train|data|weights)"
)
_PART = re.compile(r"(?:stages|model|model\.heads|data|evaluation\.tasks)\.[^.]+|stages\.[^.]+\.objective")


def on_base(base: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A raw recipe laid over its base, whose `tiny` loses what it says of items that the recipe takes out."""
    merged = merge(base, recipe)
    if not isinstance(base.get("tiny"), Mapping):
        return merged
    return merge({**base, "tiny": _of_present(base["tiny"], base, merged)}, recipe)


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """`overlay` laid over `base`, key by key.

    A part that changes its `type` starts afresh; a list of named mappings can be overlaid by name or by index, and
    null takes an item of it out. Raises RecipeError for what is no mapping where one stands or must stand, and for
    an overlay that would change nothing: an empty one over what is filled, and null for an item that there is not.

    where: the dotted key of both.
    """
    if not isinstance(base, Mapping) or not isinstance(overlay, Mapping):
        raise RecipeError(f"{quoted(overlay)} cannot be laid over {quoted(base)}: both must be mappings")
    merged = dict(base)
    for key, value in overlay.items():
        old, place = merged.get(key), f"{where}.{key}" if where else str(key)
        _check_mapping(old, value, place)
        _check_changes(old, value, place)
        if value is None and key not in base and _NAMED.fullmatch(place):
            there = nearest(str(key), map(str, base))
            raise RecipeError(f"{place} is null, but there is no {quoted(key)} to take out{there}")
        if isinstance(value, Mapping) and isinstance(old, list | tuple):
            merged[key] = _merge_list(list(old), value, place)
        elif isinstance(value, Mapping):
            under = old if isinstance(old, Mapping) else {}
            changed = "type" in value and value["type"] != under.get("type")
            merged[key] = dict(value) if changed else merge(under, value, place)
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


def _check_mapping(old: Any, value: Any, place: str) -> None:
    """Raise RecipeError for a value laid over a mapping that is none, and for one that no mapping can lie over.

    `start` alone may be either, and null takes a part out.
    """
    section = place.removeprefix("tiny.")
    if section == "stages":
        for each in (old, value):
            if isinstance(each, bool | int | float | str):
                raise RecipeError(f"{place} must be a list, not {quoted(each)}")
    elif _SECTION.fullmatch(section) or _PART.fullmatch(section):
        laid = (value,) if value is None and _SECTION.fullmatch(place) else (old, value)
        wrong = [each for each in laid if not isinstance(each, Mapping | None) or len(laid) == 1]
        if old is not None and wrong:
            raise RecipeError(f"{_named(place)} must be a mapping, not {quoted(wrong[0])}")
    elif (
        isinstance(old, Mapping) and value is not None and not isinstance(value, Mapping) and place != "start"
    ):
        raise RecipeError(
            f"{_named(place)} must be a mapping, not {quoted(value)}: it is laid over {quoted(dict(old))}"
        )


def _check_changes(old: Any, value: Any, place: str) -> None:
    """Raise RecipeError for an empty mapping over a filled mapping or list, whose items would all stay."""
    if not (isinstance(value, Mapping) and not value and isinstance(old, Mapping | list | tuple) and old):
        return
    names = list(old) if isinstance(old, Mapping) else _names(old)
    first = next((name for name in names if name is not None), 0)
    raise RecipeError(
        f"{place} is an empty mapping, which changes nothing of what stands there: "
        f"{quoted(dict(old) if isinstance(old, Mapping) else list(old))}; null takes an item out, as in "
        f"{place}.{first}=null"
    )


def _named(place: str) -> str:
    return "a stage" if re.fullmatch(r"stages\.[^.]+", place) else excerpt(place, 200)


def _of_present(tiny: Mapping[str, Any], base: Any, merged: Any, where: str = "") -> dict[str, Any]:
    """`tiny` of a base without what belongs to items of it that are no longer there."""
    present: dict[str, Any] = {}
    for key, value in tiny.items():
        place = f"{where}.{key}" if where else str(key)
        old, new = _item(base, key), _item(merged, key)
        if _ITEM.fullmatch(place) and old is not None and new is None:
            continue
        remaining = _of_present(value, old, new, place) if isinstance(value, Mapping) else value
        if remaining != {} or value == {}:
            present[key] = remaining
    return present


def _item(section: Any, key: Any) -> Any:
    """What stands under a key of a mapping, or under a name in a list; None = nothing."""
    if isinstance(section, list | tuple):
        return next((item for item, name in zip(section, _names(section), strict=True) if name == key), None)
    return section.get(key) if isinstance(section, Mapping) else None


def _names(items: Sequence[Any]) -> list[Any]:
    return [item.get("name") if isinstance(item, Mapping) else None for item in items]


def _merge_list(items: list[Any], overlay: Mapping[str, Any], where: str) -> list[Any]:
    places = {name: i for i, name in enumerate(_names(items)) if isinstance(name, str)}
    out = set()
    for key, value in overlay.items():
        index = places.get(key, int(key) if re.fullmatch("[0-9]{1,6}", str(key)) else None)
        if index is None or index >= len(items):
            raise RecipeError(f"{where} has no item {quoted(key)}{nearest(str(key), places)}")
        if value is None:
            out.add(index)
        place = f"{where}.{key}"
        _check_mapping(items[index], value, place)
        _check_changes(items[index], value, place)
        items[index] = merge(items[index], value, place) if isinstance(value, Mapping) else value
    return [item for index, item in enumerate(items) if index not in out]
