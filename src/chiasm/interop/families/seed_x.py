"""SEED-X (arXiv 2404.14396)."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from chiasm import parts
from chiasm.interop.convert import load_named
from chiasm.interop.mapping import NameMap
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import unnormalised
from chiasm.interop.parity.verify import replays
from chiasm.interop.shapes import qwen_vl

VISUAL = {
    "image_size": "positions are interpolated to whatever the images have",
}


@replays("seed_x", "VisionTransformerWithAttnPool", without_effect=VISUAL)
@torch.no_grad()
def replay_encoder(case: Case) -> dict[str, Tensor]:
    """The frozen encoder, and the target that its features are drawn as."""
    spec = qwen_vl.encoder(case.config)
    encoder = parts.build("encoder", spec).eval()
    names = NameMap(*qwen_vl.encoder_rules(spec, "", "encoder."))
    ours, _ = names.to_ours(case.tensors, case.name)
    load_named(encoder, ours, names, case.name, prefix="encoder.")
    grid = encoder(unnormalised(encoder, case.inputs["img"]))
    features = rearrange(grid, "n gh gw c -> n (gh gw) c")
    down = functional.avg_pool1d(features.transpose(1, 2), 4).transpose(1, 2)
    return {"features": features, "features_down": down}
