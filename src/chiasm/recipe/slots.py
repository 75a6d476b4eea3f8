"""The slots of a model: `heads: {image: ...}` in a recipe is the slot `heads.image`, as are its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chiasm.errors import RecipeError, nearest, quoted

# In the order in which data passes through them, and whose parts fill each. Heads stand by what they make.
MODEL_SLOTS = {
    "views": "views",
    "encoder": "encoder",
    "connector": "connector",
    "language": "language",
    "routing": "routing",
    "image_tokenizer": "image_tokenizer",
    "heads.image": "order",
    "heads.mask": "mask_head",
    "image_decoder": "image_decoder",
}
GROUPS = tuple({slot.split(".")[0]: None for slot in MODEL_SLOTS if "." in slot})  # slots that hold slots


def by_slot(written: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a recipe says of each slot, by its name; raises RecipeError for a slot that there is not."""
    slots: dict[str, Any] = {}
    for key, value in written.items():
        if key not in GROUPS:
            slots |= {key: value}
            continue
        if not isinstance(value, Mapping):
            raise RecipeError(f"{where}.{key} must be a mapping, as in {{image: ...}}; got {quoted(value)}")
        slots |= {f"{key}.{name}": inner for name, inner in value.items()}
    return slots


def as_written(slots: Mapping[str, Any]) -> dict[str, Any]:
    """`by_slot` reversed."""
    written: dict[str, Any] = {}
    for slot, value in slots.items():
        group, dot, name = slot.partition(".")
        if dot:
            written.setdefault(group, {})[name] = value
        else:
            written[slot] = value
    return written


def check_slots(slots: Mapping[str, Any]) -> None:
    """Raise RecipeError for what is no slot of a model."""
    for slot in slots:
        if slot not in MODEL_SLOTS:
            raise RecipeError(f"model has no slot {quoted(slot)}{nearest(slot, MODEL_SLOTS)}")
