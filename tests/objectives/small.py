"""A recipe of one stage with an objective, in a second or two, and the options that make each objective small."""

from copy import deepcopy

from tiny_recipe import TINY

VIT = {"type": "vit", "patch_size": 8, "width": 16, "depth": 2, "heads": 2, "size": 32}
QFORMER = {"type": "qformer", "queries": 3, "width": 16, "depth": 2, "heads": 2, "hidden": 16}
OBJECTIVES = {
    "contrastive": {"width": 8, "text_width": 16, "text_depth": 1, "text_heads": 2},
    "masked_reconstruction": {"width": 16, "depth": 1, "heads": 2},
    "self_distillation": {"outputs": 32, "hidden": 16, "bottleneck": 8, "local_crops": 2, "local_size": 16},
    "supervised": {},
    "qformer_stage1": {"shared": 8, "context": 16},
    "feature_distillation": {"teacher": {"type": "patches", "patch_size": 4}},
    "sigmoid": {"width": 8, "text_width": 16, "text_depth": 1, "text_heads": 2},
    "masked_data": {"block": 2},
}
# The slots that an objective needs to be so, and what else it trains.
BESIDE = {
    "masked_data": {
        "encoder": {"type": "patches", "patch_size": 8},
        "connector": {"type": "embedding", "grid": [4, 4]},
        "language": {"type": "beit3", "width": 16, "depth": 1, "heads": 2, "hidden": 24, "context": 256,
                     "vocabulary": 400},
        "image_tokenizer": {"type": "vq", "size": 32, "downsample": 8, "width": 16, "depth": 1, "codebook_size": 16,
                            "code_width": 8, "settle": 1},
    },
}  # fmt: skip
TRAINS = {"masked_data": {"connector": 1e-3, "language": 1e-3}}


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
         "train": {**TRAINS.get(name, {"encoder": 1e-3}), "objective": 1e-3}, "data": {"world": 1.0},
         "steps": 6, "rows": 6},
    ]  # fmt: skip
    return recipe
