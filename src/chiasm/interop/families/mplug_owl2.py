"""mPLUG-Owl2 (arXiv 2311.04257): a visual abstractor, and a language model with a modality-adaptive module."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from chiasm.interop.config import EVERYWHERE, reader
from chiasm.interop.family import Family, Folder
from chiasm.interop.mapping import NameMap, Reshape, Rule
from chiasm.interop.shapes.mplug_owl import (
    TEMPLATE,
    TRAINING,
    WITHOUT_EFFECT,
    abstractor,
    abstractor_rules,
    closing_rule,
    multiway_config,
    multiway_rules,
    vision_rules,
    vision_tower,
)

SIDE = 448  # pixels of an image
ABSTRACTOR = "model.visual_abstractor."


class MPLUGOwl2(Family, name="mplug-owl2"):
    """The layout of MAGAer13/mplug-owl2-llama2-7b (model_type mplug_owl2).

    An image is stretched to a square. The original does so in two steps, by way of a square as wide as the image's
    longer side.
    """

    looks_for = "config.json with model_type mplug_owl2, and visual_config.visual_abstractor"
    own_conversation = True

    without_effect: ClassVar = {**EVERYWHERE, **WITHOUT_EFFECT, **TRAINING}

    def recognises(self, folder: Folder) -> bool:
        visual = folder.config.get("visual_config") or {}
        return folder.config.get("model_type") == "mplug_owl2" and "visual_abstractor" in visual

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        vision, inner = (config["visual_config"][f"visual_{name}"] for name in ("model", "abstractor"))
        encoder = vision_tower(vision, SIDE, class_token="first")
        options = reader(inner)
        options.only("use_cls_token", True)
        options.only("add_v2t_pos_emb", False)
        return {
            "views": {
                "type": "anchors",
                "size": vision.get("image_size", SIDE),
                "grids": [(1, 1)],
                "overview": False,
            },
            "encoder": encoder,
            "connector": {
                **abstractor(inner, encoder["config"]["hidden_size"], hidden=2816),
                "queries": inner.get("num_learnable_queries", 64),
                "positions": inner.get("grid_size") or 32,
            },
            "language": multiway_config(config),
            "routing": {"type": "modality_adaptive", "kinds": [["read"]]},
        }

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        spec = self.model(config, keys)
        queries, width = spec["connector"]["queries"], spec["encoder"]["config"]["hidden_size"]
        return NameMap(
            *vision_rules(config["visual_config"]["visual_model"], SIDE, "model.vision_model."),
            Rule(
                f"{ABSTRACTOR}query_embeds",
                "connector.queries",
                Reshape((1, queries, width), (queries, width)),
            ),
            *abstractor_rules(ABSTRACTOR, "connector."),
            Rule(f"{ABSTRACTOR}visual_fc.{{p}}", "connector.output.{p}"),
            closing_rule(f"{ABSTRACTOR}vit_eos", spec["language"]["config"].get("hidden_size", 4096)),
            *multiway_rules(),
        )

    def chat_template(self, config: Mapping[str, Any]) -> str | None:
        return TEMPLATE
