"""Replays of Vary's cases: its tower alone, and the whole with an image at either tower's size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from chiasm import parts
from chiasm.interop.convert import load
from chiasm.interop.families.vary import TOWERS
from chiasm.interop.family import Original, find_family
from chiasm.interop.mapping import NameMap
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import CasePicture, case_document, load_case, read_documents, unnormalised
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes.vary_tower import vary_tower, vary_tower_rules
from chiasm.views import Size

BATCH = {"B": "how many images the case has"}
# The case's keys and Qwen's.
LANGUAGE = {"layers": "num_hidden_layers", "heads": "num_attention_heads", "vocab": "vocab_size"}
OF_IDS = "ids that stand in the case's input"


@replays("vary", "ImageEncoderViT", without_effect=BATCH)
@torch.no_grad()
def replay_tower(case: Case) -> dict[str, Tensor]:
    """Features as the original has them, channels first."""
    tower = parts.build("encoder", vary_tower(case.config))
    names = NameMap(*vary_tower_rules("", "tower"))
    load_case(tower.eval(), case, names, "tower.")
    features = tower(unnormalised(tower, case.inputs["image"]))
    return {"y": rearrange(features, "n gh gw c -> n c gh gw")}


@replays(
    "vary",
    "varyQwenForCausalLM",
    without_effect={"im_start": OF_IDS, "im_end": OF_IDS},
)
@torch.no_grad()
def replay_whole(case: Case) -> dict[str, Tensor]:
    """The input has an image's id at each of its visual tokens."""
    inputs, image = case.inputs, case.config["im_patch"]
    model = load(find_family("vary"), Original(_public(case.config), case.tensors)).model
    clip, sam = model.encoder.encoders
    count = sum(name.startswith("high") for name in inputs)
    pixels = [
        unnormalised(encoder, torch.cat([inputs[f"{name}{i}"] for i in range(count)]))
        for encoder, name in ((clip, "low"), (sam, "high"))
    ]
    features = model.encoder.joined(pixels)
    side = Size(*pixels[1].shape[-2:])
    images = [CasePicture(f"{i}", side, each[None]) for i, each in enumerate(features)]
    documents = [case_document(model, row, images, image, repeated=True) for row in inputs["input_ids"]]
    read = read_documents(model, documents, encoded=True)
    return {"image_features": model.connector(features), "logits": read.logits}


def _public(config: Mapping[str, Any]) -> dict[str, Any]:
    """A case's config in the form of a published one."""
    others = ("sam", "clip", "im_start", "im_end", "im_patch")
    public = {LANGUAGE.get(key, key): value for key, value in config.items() if key not in others}
    width = public["hidden_size"] // public["num_attention_heads"]
    sam = {key: value for key, value in config["sam"].items() if key not in BATCH}
    return {"kv_channels": width, **public, TOWERS: {"clip": config["clip"], "sam": sam}}
