"""The slots of a model: `heads: {image: ...}` in a recipe is the slot `heads.image`, as are its weights.

All but the modalities beside text and images are fixed; those have the names that a recipe gives them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
MODALITIES = "modalities"
GROUPS = (*{slot.split(".")[0]: None for slot in MODEL_SLOTS if "." in slot}, MODALITIES)  # hold slots
TAKEN = ("text", "image", "mask")  # names of what models read and write without a modality


def kind_of(slot: str) -> str:
    """Whose parts fill a slot of a model."""
    return "modality" if _is_modality(slot) else MODEL_SLOTS[slot]


def in_order(slots: Iterable[str]) -> list[str]:
    """Slots in the order in which data passes through them, behind them the modalities."""
    slots = list(slots)
    return [slot for slot in MODEL_SLOTS if slot in slots] + [slot for slot in slots if _is_modality(slot)]


def _is_modality(slot: str) -> bool:
    return slot.startswith(f"{MODALITIES}.")


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
        if not isinstance(slot, str):
            raise RecipeError(f"model has no slot {quoted(slot)}{nearest(str(slot), MODEL_SLOTS)}")
        if _is_modality(slot):
            _check_modality(slot)
        elif slot not in MODEL_SLOTS:
            raise RecipeError(f"model has no slot {quoted(slot)}{nearest(slot, MODEL_SLOTS)}")


def _check_modality(slot: str) -> None:
    from torch import nn

    name = slot.removeprefix(f"{MODALITIES}.")
    if not name.isidentifier() or name in TAKEN or hasattr(nn.ModuleDict(), name):
        raise RecipeError(
            f"model.{MODALITIES} names {quoted(name)}; one has letters, digits and underscores in its name, "
            f"which is none of {', '.join(TAKEN)}, and none that torch's modules have (type, keys, training ...)"
        )
