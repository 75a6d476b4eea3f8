"""A recipe of one stage with an objective, in a second or two, and the options that make each objective small."""

from copy import deepcopy

from chiasm import parts
from tiny_recipe import TINY

VIT = {"type": "vit", "patch_size": 8, "width": 16, "depth": 2, "heads": 2, "size": 32}
QFORMER = {"type": "qformer", "queries": 3, "width": 16, "depth": 2, "heads": 2, "hidden": 16}
_parts = {name: parts.lookup("objective", name) for name in parts.names("objective")}
OBJECTIVES = {name: part.example() for name, part in _parts.items()}
# The slots that an objective needs to be so, and what else it trains.
BESIDE = {name: part.example_neighbours() for name, part in _parts.items() if part.example_neighbours()}
TRAINS = {"masked_data": {"connector": 1e-3, "language": 1e-3}, "token_alignment": {"connector": 1e-3}}
WEIGHTLESS = {"token_alignment"}


def raw(name: str) -> dict:
    recipe = {key: deepcopy(value) for key, value in TINY.items() if key != "evaluation"}
    recipe["model"] = {slot: recipe["model"][slot] for slot in ("views", "connector", "language")}
    recipe["model"]["encoder"] = dict(VIT)
    recipe["model"]["connector"] = dict(QFORMER)
    recipe["model"] |= deepcopy(BESIDE.get(name, {}))
    recipe["data"] = {
        "world": {"type": "world", "scenes": 40, "emoji": 8, "grid": 2, "objects": [1, 2], "canvas": 32,
                  "tasks": {"caption": 1}},
    }  # fmt: skip
    recipe["stages"] = [
        {"name": "pretrain", "objective": {"type": name, **OBJECTIVES[name]},
         "train": {**TRAINS.get(name, {"encoder": 1e-3}), **({} if name in WEIGHTLESS else {"objective": 1e-3})},
         "data": {"world": 1.0},
         "steps": 6, "rows": 6},
    ]  # fmt: skip
    return recipe
