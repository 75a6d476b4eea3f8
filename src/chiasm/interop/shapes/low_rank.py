"""Low-rank updates in the names of peft, added to the weights that they are of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from chiasm.errors import CheckpointError

WRAPPER = "base_model.model."  # what peft puts before the names of the model that it wraps
UPDATE = re.compile(r"(.+)\.lora_(A|B)(?:\.default)?\.weight")


def has_updates(tensors: Mapping[str, Tensor]) -> bool:
    """Whether any of the tensors is a factor of an update."""
    return any(UPDATE.fullmatch(key) for key in tensors)


def with_updates(tensors: Mapping[str, Tensor], alpha: float, where: Path | str) -> dict[str, Tensor]:
    """The tensors without peft's wrapping, W + alpha / rank B A for each W that has an update.

    Raises CheckpointError naming an update that has one factor alone, or no weight.
    """
    plain: dict[str, Tensor] = {}
    updates: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name = key.replace(WRAPPER, "").replace(".base_layer.", ".")
        match = UPDATE.fullmatch(name)
        if match:
            updates.setdefault(match[1], {})[match[2]] = tensor
        else:
            plain[name] = tensor
    for name, pair in updates.items():
        weight = name + ".weight"
        if len(pair) != 2 or weight not in plain:
            lacks = (
                "is one factor without the other" if len(pair) != 2 else "is of a weight that is not there"
            )
            raise CheckpointError(f"{where}: the low-rank update of {name} {lacks}")
        change = alpha / len(pair["A"]) * (pair["B"].float() @ pair["A"].float())
        plain[weight] = plain[weight] + change.to(plain[weight].dtype)
    return plain
