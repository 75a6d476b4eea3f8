"""GVT (arXiv 2305.12223): EVA-02 and a perceiver resampler before Vicuna."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from chiasm import parts
from chiasm.interop.config import EVERYWHERE, reader
from chiasm.interop.families.flamingo import perceiver_options, perceiver_rules
from chiasm.interop.family import Family, Folder
from chiasm.interop.mapping import NameMap, Reshape, Rule, Unused
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import load_case, unnormalised
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.eva import eva, eva_rules
from chiasm.interop.shapes.towers import causal_config, normalisation
from chiasm.language.templates import QUESTION

VICUNA = QUESTION


class Gvt(Family, name="gvt"):
    """GVT's state dict (github.com/TencentARC/GVT), its language model behind `llm.`.

    The config, which the original keeps in code, is `{visual_encoder, perceiver, llm_hidden, llm}`, the last one a
    config of transformers.
    """

    looks_for = "config.json with visual_encoder, perceiver, llm_hidden and llm"

    without_effect: ClassVar = {
        **EVERYWHERE,
        "llm_hidden": "the tensors tell",
    }

    def recognises(self, folder: Folder) -> bool:
        return {"visual_encoder", "perceiver", "llm_hidden", "llm"} <= folder.config.keys()

    def model(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        return {
            "views": {"type": "whole", "size": config["visual_encoder"]["img_size"], "fit": "stretch"},
            **_vision(config),
            "language": causal_config(config["llm"], config["llm"].get("model_type", "llama")),
        }

    def names(self, config: Mapping[str, Any], keys: Collection[str] = ()) -> NameMap:
        return NameMap(
            *_vision_rules(config),
            Unused("llm.model.layers.{n}.self_attn.rotary_emb.inv_freq"),
            Rule("llm.{rest...}", "language.inner.{rest...}"),
        )

    def constants(self, folder: Folder) -> dict[str, Tensor]:
        return normalisation(folder)

    def chat_template(self, config: Mapping[str, Any]) -> str | None:
        return VICUNA


def _vision(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Encoder and connector; ln_vision is the encoder's final norm, with torch's epsilon."""
    width, perceiver = config["visual_encoder"]["embed_dim"], reader(config["perceiver"])
    perceiver.only("dim", width)
    return {
        "encoder": {**eva(config["visual_encoder"]), "final_norm": True, "final_epsilon": 1e-5},
        "connector": {**perceiver_options(perceiver, width), "projected": True},
    }


def _vision_rules(config: Mapping[str, Any]) -> list[Any]:
    spec, width = _vision(config), config["visual_encoder"]["embed_dim"]
    count = spec["connector"]["pictures"]
    return [
        *eva_rules(spec["encoder"], "visual_encoder."),
        Rule("ln_vision.{p}", "encoder.final_norm.{p}"),
        Rule("perceiver.media_pos_emb", "connector.pictures", Reshape((count, 1, width), (count, width))),
        *perceiver_rules("perceiver.", spec["connector"], width),
        Rule("llm_proj.{p}", "connector.output.{p}"),
        Unused("input_ln.{p}"),
    ]


@replays("gvt", "GVT")
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    """Without the language model; `latents` stand before the projection to its width."""
    spec = _vision(case.config)
    encoder = parts.build("encoder", spec["encoder"])
    connector = parts.build("connector", spec["connector"], encoder.width, case.config["llm_hidden"])
    modules = nn.ModuleDict({"encoder": encoder, "connector": connector}).eval()
    names = NameMap(*_vision_rules(case.config))
    load_case(modules, case, names)
    pixels = unnormalised(encoder, case.inputs["image"])
    outputs = {"vision": encoder.tokens(pixels), "llm_inputs": connector(encoder(pixels))}
    connector.output = nn.Identity()
    return outputs | {"latents": connector(encoder(pixels))}
