"""Chameleon's image tokenizer in transformers, which kept its encoder only (arXiv 2405.09818)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from chiasm import parts
from chiasm.interop.config import TRANSFORMERS
from chiasm.interop.families.vqgan import replay_nearest
from chiasm.interop.family import find_family
from chiasm.interop.mapping import NameMap, OwnTensors, Rule
from chiasm.interop.parity.cases import Case
from chiasm.interop.parity.replay import load_case
from chiasm.interop.parity.verify import replays

WITHOUT_EFFECT = {
    **{f"*.{key}": why for key, why in TRANSFORMERS.items()},
    "*.dropout": "in training only",
    "cls": "the replay's name",
    "config_cls": "the replay's name",
    "res": "the size of a case's image",
}


def of_transformers(config: Mapping[str, Any]) -> dict[str, Any]:
    """A ChameleonVQVAEConfig in taming's words; what it leaves out has transformers' default."""
    structure = {
        "double_z": config.get("double_latent", False),
        "z_channels": config.get("latent_channels", 256),
        "resolution": config.get("resolution", 512),
        "in_channels": config.get("in_channels", 3),
        "out_ch": 3,
        "ch": config.get("base_channels", 128),
        "ch_mult": list(config.get("channel_multiplier", (1, 1, 2, 2, 4))),
        "num_res_blocks": config.get("num_res_blocks", 2),
        "attn_resolutions": list(config.get("attn_resolutions") or ()),
        # Whatever else it is called, transformers leaves attention out.
        "attn_type": "vanilla" if config.get("attn_type", "vanilla") == "vanilla" else "none",
    }
    return {
        "ddconfig": structure,
        "n_embed": config.get("num_embeddings", 8192),
        "embed_dim": config.get("embed_dim", 256),
        "beta": config.get("beta", 0.25),
    }


@replays("chameleon", "ChameleonVQVAE", without_effect=WITHOUT_EFFECT)
@torch.no_grad()
def replay(case: Case) -> dict[str, Tensor]:
    """The picture to codes; there is no decoder to load."""
    layout = find_family("vqgan")
    spec = layout.model(of_transformers(case.config["config"]))["image_tokenizer"]
    names = NameMap(
        OwnTensors("image_tokenizer.decoder.{rest...}"), Rule("{rest...}", "image_tokenizer.{rest...}")
    )
    tokenizer = parts.build("image_tokenizer", spec).eval()
    load_case(tokenizer, case, names, "image_tokenizer.")
    # What the case calls quant is the first of transformers' outputs, the encoder's before `quant_conv`.
    return replay_nearest(tokenizer, case) | {"quant": tokenizer.encoder(case.inputs["img"])}
