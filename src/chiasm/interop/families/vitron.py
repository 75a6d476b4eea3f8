"""Replays of VITRON's parts: the token of a region, and the grounded network with which it draws and edits."""

from __future__ import annotations

import math
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from chiasm.connectors.regions import RegionToken
from chiasm.decoders.conditions import Condition
from chiasm.decoders.denoisers.grounded_unet import GroundedUNet
from chiasm.errors import CheckpointError
from chiasm.interop.config import known_value
from chiasm.interop.convert import load_named
from chiasm.interop.mapping import NameMap, Rule
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import load_case
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.grounding import box_rules, gated_rules
from chiasm.interop.shapes.ldm_unet import ldm_unet, ldm_unet_rules

GATES = {"gatedSA": "self", "gatedCA": "cross"}


@replays("vitron", "RegionExtractor", without_effect={"boxes": "an input says them too"})
@torch.no_grad()
def replay_region(case: Case) -> dict[str, Tensor]:
    """Features and boxes to a token each."""
    config = case.config
    region = RegionToken(config["in"], config["out"], size=config["img"]).eval()
    names = NameMap(
        *(Rule(f"region_linear.layers.{i}.{{p}}", f"network.{2 * i}.{{p}}") for i in range(3)),
        Rule("loc_encoder.loc_encoder.{n}.{p}", "place.{n}.{p}"),
    )
    load_case(region, case, names)
    features = case.inputs["feats"]
    grid = rearrange(features, "n (h w) c -> n h w c", h=math.isqrt(features.shape[1]))
    return {"region_tokens": region(grid, case.inputs["regions"])}


@replays("vitron", "UNetModel", without_effect={"n": "an input has so many boxes"})
@torch.no_grad()
def replay_grounded(case: Case) -> dict[str, Tensor]:
    """The noise in latents with boxes, and with closed gates."""
    config, inputs = case.config, case.inputs
    network = _network(case)
    added = {
        "boxes": inputs["boxes"],
        "phrases": inputs["positive_embeddings"],
        "present": inputs["masks"],
    }
    source = _source(case) if config["inpaint"] else None
    condition = Condition(inputs["context"], added=added, source=source)
    with_boxes, without = (
        network(inputs["x"], inputs["timesteps"], condition._replace(gates=scale)) for scale in (1.0, 0.0)
    )
    tokens = network.boxes(added["boxes"], added["phrases"], added["present"])
    return {"noise_pred": with_boxes, "noise_pred_scale0": without, "grounding_tokens": tokens}


def _source(case: Case) -> Tensor:
    """The masked source and its mask, which an in-painting network reads beside its latents."""
    sources = [each for name, each in case.inputs.items() if name != "x" and each.ndim == 4]
    if len(sources) != 1:
        raise CheckpointError(f"{case.name} paints in, but has no input with the masked source and its mask")
    return sources[0]


def _network(case: Case) -> GroundedUNet:
    config, tensors = case.config, case.tensors
    gate: Any = GATES[known_value("fuser", config["fuser"], *GATES)]
    unet = ldm_unet(
        tensors,
        multipliers=config["mult"],
        blocks=config["nrb"],
        attention=config["attn"],
        heads=config["heads"],
    )
    known_value("ctx", config["ctx"], unet["cross_attention_dim"])
    phrase_width = len(tensors["position_net.null_positive_feature"])
    channels = unet["out_channels"]
    source = channels if config["inpaint"] else 0
    network = GroundedUNet(channels, source, config=unet, phrase_width=phrase_width, gate=gate).eval()
    names = NameMap(*grounded_rules(unet))
    ours, _ = names.to_ours(tensors, case.name)
    load_named(network, ours, names, case.name)
    return network


def grounded_rules(unet: dict[str, Any]) -> list[Rule]:
    """Rules for GLIGEN's tensors: the UNet's, in which the gates stand, and those of the boxes' tokens."""
    rules = box_rules("position_net.", "boxes.")
    for rule in ldm_unet_rules(unet, "", "unet."):
        theirs, ours = str(rule.theirs), str(rule.ours)
        if "attentions" in ours:  # its gates first, for the first rule that matches decides
            block = "transformer_blocks.{n}.fuser."
            rules += gated_rules(theirs.replace("{rest...}", block), ours.replace("{rest...}", block))
        rules.append(rule)
    return rules
